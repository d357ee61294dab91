"""The command: injects each fault in turn, prints the table, and writes it into `docs/reliability.md`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import uvloop

from loadtests.faults.injections import FAULTS, Fault
from loadtests.faults.run import run
from loadtests.faults.verdict import Verdict

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

COLUMNS = (
    "fault",
    "published",
    "acknowledged",
    "delivered",
    "lost",
    "duplicated",
    "out of order",
    "told",
    "sockets dropped",
    "longest way",
    "history reads",
)


def row(fault: Fault, verdict: Verdict) -> str:
    """A line of the table."""
    figures = (
        fault.title,
        f"{verdict.published:,}",
        f"{verdict.acknowledged:,}",
        f"{verdict.delivered:,}",
        f"{verdict.lost:,}",
        f"{verdict.duplicated:,}",
        f"{verdict.out_of_order:,}",
        f"{verdict.told:,}",
        f"{verdict.dropped:,}",
        f"{verdict.lateness_s:.1f} s",
        f"{verdict.history_reads:,}",
    )
    return f"| {' | '.join(figures)} |"


def write(table: str) -> None:
    """Put the table between the marks of the page."""
    begin, end = "<!-- from the run: python -m loadtests.faults -->", "<!-- end -->"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{table}\n{end}", page, flags=re.DOTALL))


def main() -> int:
    """Run, and fail where something was lost, repeated or out of order."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.faults", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1000, help="on each of the two nodes")
    parser.add_argument("--seconds", type=float, default=60.0, help="of publishing, for each fault")
    parser.add_argument(
        "--rate", type=float, default=5.0, help="publications a second into each channel, from each node"
    )
    parser.add_argument("--fault", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    arguments = parser.parse_args()
    lines = [f"| {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * (len(COLUMNS) - 1)}"]
    print("\n".join(lines), flush=True)
    faultless = True
    for name in arguments.fault:
        fault = FAULTS[name]
        verdict = uvloop.run(
            run(fault, subscribers=arguments.subscribers, seconds=arguments.seconds, rate=arguments.rate)
        )
        lines.append(row(fault, verdict))
        print(lines[-1], flush=True)
        faultless &= not (verdict.lost or verdict.duplicated or verdict.out_of_order)
        faultless &= fault.drops_sockets or not verdict.dropped
    if arguments.fault == list(FAULTS):
        write("\n".join(lines))
    return 0 if faultless else 1


if __name__ == "__main__":
    sys.exit(main())
