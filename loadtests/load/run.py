"""One run: a hub, Locust against it, faults at their times, and the verdict."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from loadtests.load.levels import Level, judge
from loadtests.load.local import FAULTS, LocalHub
from loadtests.load.watch import Watch

ROOT: Final = Path(__file__).parents[2]
BUSY_PERCENT: Final = 85.0
LATE_S: Final = 0.05
"""From these on the figures are those of the generator, and not of the hub."""


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Args:
        scenario: its name.
        classes: of Locust's users.
        users: how many.
        seconds: how long.
        nodes: of the local hub.
        target: addresses of a hub elsewhere, empty for a local one.
        faults: seconds from the start, and the fault's name.
        arguments: more of Locust's.
    """

    scenario: str
    classes: tuple[str, ...]
    users: int
    seconds: int
    nodes: int
    target: str
    faults: tuple[tuple[float, str], ...]
    arguments: tuple[str, ...]


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


async def run(plan: Plan, levels: Mapping[str, float], folder: Path) -> Outcome:
    """Run it, and leave `run.json`, `totals.json` and `samples.jsonl` in a folder.

    Raises:
        RuntimeError: Locust did not run; the text is what it said.
    """
    if plan.target:
        return await _load(plan, levels, folder, plan.target.split(","), None)
    async with LocalHub(plan.nodes) as hub:
        return await _load(plan, levels, folder, hub.urls, hub)


async def _load(
    plan: Plan, levels: Mapping[str, float], folder: Path, urls: list[str], hub: LocalHub | None
) -> Outcome:
    watch = Watch(urls, hub.nodes if hub else [])
    began = time.time()
    watching = asyncio.create_task(watch.run())
    faults = [asyncio.create_task(_befall(hub, at_s, name)) for at_s, name in plan.faults if hub]
    try:
        await _locust(plan, folder, urls)
    finally:
        for task in (watching, *faults):
            task.cancel()
    # A fault that could not be brought about would make a green run a lie.
    done = await asyncio.gather(*faults, return_exceptions=True)
    failed = [str(each) or type(each).__name__ for each in done if isinstance(each, BaseException)]
    totals = json.loads((folder / "totals.json").read_text())
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    outcome = Outcome(
        judge(levels, totals, watch.memory_bytes), totals["totals"], _warnings(plan, totals, samples, failed)
    )
    _record(plan, outcome, totals, _merged(samples, watch.samples, began), began, folder)
    return outcome


def _merged(samples: list[dict[str, Any]], nodes: list[dict[str, Any]], began: float) -> list[dict[str, Any]]:
    """What Locust saw each second, with what the nodes had last said by then."""
    merged = []
    for sample in samples:
        known = [each["nodes"] for each in nodes if each["at"] <= sample["at"]]
        merged.append({"t": round(sample["at"] - began, 2), **sample, "nodes": known[-1] if known else {}})
    return merged


def _record(
    plan: Plan,
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
    (folder / "samples.jsonl").write_text("".join(lines))


async def _befall(hub: LocalHub, at_s: float, name: str) -> None:
    await asyncio.sleep(at_s)
    print(f"{at_s:g} s: {name}", flush=True)
    await FAULTS[name](hub)


async def _locust(plan: Plan, folder: Path, urls: list[str]) -> None:
    """Run Locust to its end. What a user fails at is in its totals, so its exit code says nothing new."""
    for name in ("totals.json", "samples.jsonl"):
        (folder / name).unlink(missing_ok=True)
    spare = max(1, (os.cpu_count() or 1) - (plan.nodes if not plan.target else 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")),
        *("--headless", "--only-summary", "--host", ",".join(urls), "--samples", str(folder)),
        *("-u", str(plan.users), "-r", str(max(10, plan.users // 10)), "-t", f"{plan.seconds}s"),
        *(["--processes", str(spare)] if spare > 1 else []),
        *plan.arguments,
        *plan.classes,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if not (folder / "totals.json").exists():
        raise RuntimeError(output.decode(errors="replace"))


def _warnings(
    plan: Plan, totals: Mapping[str, Any], samples: list[dict[str, Any]], failed: list[str]
) -> list[str]:
    """Why the figures are not to be trusted."""
    warnings = [f"a fault could not be brought about: {why}" for why in failed]
    if plan.scenario != "idle" and not totals["counts"]["received"]:
        warnings.append("nothing was received")
    if not totals["totals"]:
        warnings.append("nothing was measured")
    # Half of the time: all start at once, and what one second holds may be chance.
    reports = [sample["generator"] for sample in samples]
    busy = sum(each["cpu"] > BUSY_PERCENT for each in reports)
    late = sum(each["lag_s"] > LATE_S for each in reports)
    if reports and max(busy, late) * 2 > len(reports):
        warnings.append(
            f"the generator was the limit: its CPU was over {BUSY_PERCENT:g} % in {busy} of"
            f" {len(reports)} seconds, its lag over {LATE_S * 1000:g} ms in {late}"
        )
    return warnings
