"""One run: a hub, Locust against it, faults at their times, and the verdict."""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from hub.load.levels import Level, judge
from hub.load.local import FAULTS, LocalHub, free_port
from hub.load.plan import LoadPlan
from hub.load.probe import Probe
from hub.load.report.record import SAMPLES, GeneratorFigures
from hub.load.trust import generator_limits, nothing_measured
from hub.load.view import View
from hub.load.watch import Watch

FOLDER: Final = Path(__file__).parent
LOCUST_FILE: Final = FOLDER / "locustfile.py"
TOTALS: Final = "totals.json"


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        levels: the service levels.
        totals: what was measured, by name.
        warnings: why not to trust it, if at all.
    """

    levels: list[Level]
    totals: dict[str, dict[str, float]]
    warnings: list[str]

    @property
    def passed(self) -> bool:
        """Whether all levels hold, and something was measured."""
        return all(level.holds for level in self.levels) and not self.warnings


async def run(
    plan: LoadPlan, levels: Mapping[str, float], folder: Path, console: Console | None = None
) -> Outcome:
    """Run it, and leave `run.json`, `totals.json` and `samples.jsonl` in a folder.

    Args:
        console: shows the run while it goes on, where it is a terminal.

    Raises:
        RuntimeError: Locust did not run; the text is what it said.
    """
    console = console or Console(quiet=True)
    if plan.target:
        return await _load(plan, levels, folder, plan.target.split(","), None, console)
    async with LocalHub(plan.nodes) as hub:
        return await _load(plan, levels, folder, hub.urls, hub, console)


async def _load(
    plan: LoadPlan,
    levels: Mapping[str, float],
    folder: Path,
    urls: list[str],
    hub: LocalHub | None,
    console: Console,
) -> Outcome:
    for name in (TOTALS, SAMPLES):
        (folder / name).unlink(missing_ok=True)
    watch = Watch(urls, hub.nodes if hub else [])
    probe = Probe(urls, plan.token_key)
    began = time.time()
    beside = [asyncio.create_task(watch.run()), asyncio.create_task(probe.run())]
    beside += [asyncio.create_task(_befall(hub, at_s, name, console)) for at_s, name in plan.faults if hub]
    try:
        with View(console, plan.scenario, plan.seconds, folder / SAMPLES, watch, probe):
            await _locust(plan, folder, urls)
    finally:
        for task in beside:
            task.cancel()
        done = await asyncio.gather(*beside, return_exceptions=True)
    # A fault that could not be brought about would make a green run a lie.
    warnings = [str(each) or type(each).__name__ for each in done if isinstance(each, Exception)]
    totals = json.loads((folder / TOTALS).read_text())
    samples = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    _add_probe(totals, samples, probe)
    warnings += nothing_measured(totals, silent=plan.scenario == "idle")
    warnings += generator_limits([GeneratorFigures(**sample["generator"]) for sample in samples])
    outcome = Outcome(judge(levels, totals, watch.memory_bytes), totals["totals"], warnings)
    _record(plan, outcome, totals, _merged(samples, watch.samples, began), began, folder)
    return outcome


def _add_probe(totals: dict[str, Any], samples: list[dict[str, Any]], probe: Probe) -> None:
    """Put what the probe measured beside what users did, from when there were users."""
    began = before = samples[0]["at"] - 1 if samples else 0.0
    for sample in samples:
        measured = probe.between(before, sample["at"]).summary()
        if measured["n"]:
            sample["stats"]["probe"] = measured
        before = sample["at"]
    whole = probe.between(began, math.inf)
    totals["totals"]["probe"] = whole.summary()
    failed = probe.between(-math.inf, math.inf).failed
    totals["errors"] += [{"name": "probe", "error": error, "n": n} for error, n in failed.items()]


def _merged(samples: list[dict[str, Any]], nodes: list[dict[str, Any]], began: float) -> list[dict[str, Any]]:
    """What Locust saw each second, with what the nodes had last said by then."""
    merged = []
    for sample in samples:
        known = [each["nodes"] for each in nodes if each["at"] <= sample["at"]]
        merged.append({"t": round(sample["at"] - began, 2), **sample, "nodes": known[-1] if known else {}})
    return merged


def _record(
    plan: LoadPlan,
    outcome: Outcome,
    totals: Mapping[str, Any],
    samples: list[dict[str, Any]],
    began: float,
    folder: Path,
) -> None:
    record = {
        "scenario": plan.scenario,
        "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "passed": outcome.passed,
        "arguments": {
            "users": plan.users,
            "seconds": plan.seconds,
            "nodes": plan.nodes,
            "shape": plan.shape,
            "target": plan.target,
            "more": " ".join(plan.arguments),
        },
        "environment": {
            "machine": platform.platform(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "faults": [{"t": at_s, "name": name} for at_s, name in plan.faults],
        "levels": [{**asdict(level), "ok": level.holds} for level in outcome.levels],
        "warnings": outcome.warnings,
        **totals,
    }
    (folder / "run.json").write_text(json.dumps(record, indent=1))
    lines = [json.dumps(sample) + "\n" for sample in samples]
    (folder / SAMPLES).write_text("".join(lines))


async def _befall(hub: LocalHub, at_s: float, name: str, console: Console) -> None:
    await asyncio.sleep(at_s)
    console.print(f"{at_s:g} s: {name}")
    try:
        await FAULTS[name](hub)
    except asyncio.CancelledError:
        raise RuntimeError(f"{name} at {at_s:g} s was not over when the run was") from None
    except Exception as error:
        raise RuntimeError(f"{name} at {at_s:g} s could not be brought about: {error!r}") from error


def processes(count: int) -> list[str]:
    """Locust's arguments for so many processes. They meet at a port of this run alone."""
    if count == 1:
        return []
    port = str(free_port())
    where = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    return ["--processes", str(count), *where]


async def _locust(plan: LoadPlan, folder: Path, urls: list[str]) -> None:
    """Run Locust to its end. What a user fails at is in its totals, so its exit code says nothing new."""
    files = [plan.file or LOCUST_FILE, *([FOLDER / "shapes" / f"{plan.shape}.py"] if plan.shape else [])]
    spare = max(1, (os.cpu_count() or 1) - (plan.nodes if not plan.target else 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", ",".join(map(str, files))),
        *("--headless", "--only-summary", "--host", ",".join(urls), "--samples", str(folder)),
        *("-u", str(plan.users), "-r", str(max(10, plan.users // 10)), "-t", f"{plan.seconds}s"),
        *processes(spare),
        *(["--token-key", plan.token_key] if plan.token_key else []),
        *plan.arguments,
        *plan.classes,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if not (folder / TOTALS).exists():
        raise RuntimeError(output.decode(errors="replace"))
