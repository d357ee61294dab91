"""The command: measures the set, or a part of it, and prints the table.

The whole set, with no less than its usual effort, is also kept: as JSON, and in docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Sequence

from loadtests.bench import environment, report
from loadtests.bench.experiments import EXPERIMENTS, FULL, QUICK, Effort, Experiment
from loadtests.bench.programs import BenchError, compiled, raise_files_limit
from loadtests.bench.results import Result, Results, Sample, write

PAGE = environment.ROOT / "docs" / "performance.md"
NAMES = [row.name for experiment in EXPERIMENTS for row in experiment.rows]


async def measure(experiment: Experiment, effort: Effort) -> list[Result]:
    """Measure the rows of an experiment, as often as it takes."""
    runs: list[Sequence[Sample]] = [await experiment.measure(effort, turn) for turn in range(effort.repeat)]
    columns = zip(*runs, strict=True)
    return [Result.of(row, samples) for row, samples in zip(experiment.rows, columns, strict=True)]


async def bench(experiments: Sequence[Experiment], effort: Effort) -> Results:
    """Measure experiments one after another, and tell how each went."""
    raise_files_limit(max(experiment.clients(effort) for experiment in experiments))
    for program in ("load", "floor"):
        await compiled(program)
    about = await environment.environment()
    results = []
    for experiment in experiments:
        for result in await measure(experiment, effort):
            value = report.judged(result.row, result.value)
            print(f"{result.row.name}: {value} (target {report.target(result.row)})", flush=True)
            results.append(result)
    return Results(about, results)


async def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    effort = QUICK if arguments.quick else FULL
    if arguments.repeat:
        effort = dataclasses.replace(effort, repeat=arguments.repeat)
    wanted = set(arguments.row)
    chosen = [each for each in EXPERIMENTS if not wanted.isdisjoint(row.name for row in each.rows)]
    last = await environment.last_committed()
    results = await bench(chosen, effort)
    text = report.table(results, last)
    print(f"\n{text}")
    if wanted == set(NAMES) and not arguments.quick and effort.repeat >= FULL.repeat:
        write(environment.ROOT / environment.LATEST, results)
        report.write_page(PAGE, text)
        report.chart(results, PAGE.with_suffix(".png"))
        for name in report.unexplained(results, PAGE.read_text()):
            print(f"{name} missed its target: say why in docs/performance.md")


def main() -> int:
    """Run. Ends with 1 where the benchmark could not be run, or was not clean."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a look at all rows in two minutes; nothing is kept"
    )
    parser.add_argument(
        "--repeat",
        type=int,
        choices=range(1, 100),
        metavar="N",
        help="runs of each row; the table has medians",
    )
    parser.add_argument(
        "--row", nargs="+", choices=NAMES, default=NAMES, metavar="ROW", help=", ".join(NAMES)
    )
    try:
        asyncio.run(run(parser.parse_args()))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
