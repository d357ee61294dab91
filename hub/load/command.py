"""The command `hub load`: load a hub, print a verdict, and exit with 1 where a level does not hold."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from hub.load import report
from hub.load.capacity import Trial, search
from hub.load.levels import LevelsError, read
from hub.load.local import FAULTS, NEED_REDIS
from hub.load.plan import SCENARIOS, LoadPlan
from hub.load.report.record import read as read_run
from hub.load.run import FOLDER, Outcome, run
from hub.load.shapes import SHAPES

CAPACITY: Final = "capacity"


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: those after `hub load`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="hub load",
        description=__doc__.partition(": ")[2],
        epilog="Other arguments go to Locust, such as --rooms 20.",
    )
    parser.add_argument(
        "scenario",
        nargs="?",
        choices=[*SCENARIOS, CAPACITY],
        help=f"what the users do; {CAPACITY}: find the most users that hold the levels",
    )
    parser.add_argument(
        "-f",
        dest="file",
        nargs="+",
        default=[],
        metavar=("FILE", "CLASS"),
        help="a Locust file and classes of its users, in place of a scenario",
    )
    parser.add_argument("--of", choices=list(SCENARIOS), default="chat", help=f"the scenario of {CAPACITY}")
    parser.add_argument(
        "--most", type=int, default=20_000, metavar="USERS", help=f"never exceeded by {CAPACITY}"
    )
    parser.add_argument("--users", type=int, default=100, help=f"how many; {CAPACITY} begins with them")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--nodes", type=int, default=1, help="of the local hub; several with Redis between them"
    )
    parser.add_argument(
        "--target", default="", metavar="URL", help="a hub that runs elsewhere; several nodes with commas"
    )
    parser.add_argument("--token-key", default="", help="HMAC secret of a hub that asks for tokens")
    parser.add_argument(
        "--shape", choices=SHAPES, default="", help="of the load; none: all from the beginning"
    )
    parser.add_argument(
        "--slo",
        type=Path,
        default=FOLDER / "levels.toml",
        metavar="FILE",
        help="service levels, in TOML",
    )
    parser.add_argument(
        "--at",
        nargs=2,
        action="append",
        default=[],
        metavar=("SECONDS", "FAULT"),
        help=f"bring about, in a local hub: {', '.join(FAULTS)}",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("hub-load"),
        metavar="FOLDER",
        help="for run.json, samples.jsonl and the report",
    )
    options, more = parser.parse_known_args(arguments)
    if options.scenario in SCENARIOS if options.file else options.scenario is None:
        parser.error(f"give a scenario or -f FILE CLASS: {', '.join([*SCENARIOS, CAPACITY])}")
    if len(options.file) == 1:
        parser.error(f"-f {options.file[0]}: needs the classes of its users behind it, such as ChatUser")
    try:
        faults = tuple(_fault(at, name, options) for at, name in options.at)
        levels = read(options.slo)
    except (LevelsError, OSError) as error:
        parser.error(str(error))
    scenario = options.of if options.scenario == CAPACITY else options.scenario
    file, classes = None, SCENARIOS.get(scenario, ())
    if options.file:
        file, classes = Path(options.file[0]), tuple(options.file[1:])
        scenario = file.stem
    plan = LoadPlan(
        scenario,
        classes,
        options.users,
        max(1, round(options.minutes * 60)),
        options.nodes,
        options.target,
        faults,
        tuple(more),
        options.token_key,
        options.shape,
        file,
    )
    if options.scenario == CAPACITY and not 0 < options.users <= options.most:
        parser.error("--users must be from 1 to --most")
    try:
        if options.scenario == CAPACITY:
            return find_capacity(plan, levels, options.out, options.most)
        return 0 if load(plan, levels, options.out).passed else 1
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2


def load(plan: LoadPlan, levels: Mapping[str, float], folder: Path) -> Outcome:
    """Run a load, and show what became of it."""
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    outcome = asyncio.run(run(plan, levels, folder, console))
    show(outcome, console)
    print(f"The report is {report.write(folder)}")
    return outcome


def find_capacity(plan: LoadPlan, levels: Mapping[str, float], folder: Path, most: int) -> int:
    """Search for the most users that hold the levels, each load in a folder of its own."""

    def trial(users: int) -> Trial:
        load(replace(plan, users=users), levels, folder / str(users))
        return Trial.of(users, read_run(folder / str(users)))

    found = search(trial, plan.users, most)
    print("\n".join(found.told()))
    return 0 if found.users else 1


def _fault(at: str, name: str, options: argparse.Namespace) -> tuple[float, str]:
    if name not in FAULTS:
        raise LevelsError(f"--at {at} {name}: is no fault; there are {', '.join(FAULTS)}")
    if options.target:
        raise LevelsError(f"--at {at} {name}: faults befall a local hub alone, not --target")
    if options.nodes < 2:
        need = "Redis" if name in NEED_REDIS else "another node to go to"
        raise LevelsError(f"--at {at} {name}: needs {need}: give --nodes 2")
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)s?", at)):
        raise LevelsError(f"--at {at} {name}: must begin with seconds, as in --at 30s {name}")
    return float(found[1]), name


def show(outcome: Outcome, console: Console) -> None:
    """Print what was measured, and the verdict."""
    measured = Table("measured", title="milliseconds", title_justify="left")
    for name in ("count", "failed", "p50", "p95", "p99", "max"):
        measured.add_column(name, justify="right")
    for name, figures in outcome.totals.items():
        times = [f"{figures[each]:g}" if each in figures else "" for each in ("p50", "p95", "p99", "max")]
        measured.add_row(name, f"{figures['n']:,}", f"{figures['fail']:,}", *times)
    console.print(measured)
    table = Table("service level", "limit", "measured", "", title="verdict", title_justify="left")
    for level in outcome.levels:
        value = "nothing" if level.value is None else f"{level.value:g}"
        mark = "[green]holds[/]" if level.holds else "[bold red]does not hold[/]"
        table.add_row(level.name, f"{level.limit:g}", value, mark)
    console.print(table)
    for warning in outcome.warnings:
        console.print(f"[bold yellow]not to be trusted:[/] {warning}")
    console.print("[bold green]passed[/]" if outcome.passed else "[bold red]failed[/]")
