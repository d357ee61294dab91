"""The command: runs faults from a seed against two nodes, and says what held."""

from __future__ import annotations

import argparse
import secrets
import sys

import uvloop

from loadtests.chaos.outages import OUTAGES
from loadtests.chaos.run import INTRUSIONS, Plan, run


def main() -> int:
    """Run, and fail where a promise was not held."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults")
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; drawn without it")
    parser.add_argument("--clients", type=int, default=500, help="that count messages")
    parser.add_argument(
        "--only", nargs="*", choices=[*OUTAGES, *INTRUSIONS], default=[], help="faults to run"
    )
    arguments = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    only = "".join(f" {name}" for name in arguments.only)
    command = (
        f"python -m loadtests.chaos --minutes {arguments.minutes:g} --seed {seed}"
        f" --clients {arguments.clients}"
        f"{' --only' + only if only else ''}"
    )
    print(command, flush=True)
    verdict = uvloop.run(
        run(Plan(seed, arguments.minutes * 60, arguments.clients, only=frozenset(arguments.only)))
    )
    print(verdict.table())
    if not verdict.holds:
        print(f"A promise was not held. Replay with seed {seed}: {command}")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
