"""The command: fuzzes a hub from a seed, and says what differs."""

from __future__ import annotations

import argparse
import secrets
import sys

import uvloop

from loadtests.fuzz.differences import table
from loadtests.fuzz.run import TARGETS, Plan, replay, run


def main() -> int:
    """Run, and fail where something was found that is not explained."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of fuzzing")
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; drawn without it")
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), default=[], help="targets to run")
    parser.add_argument("--case", type=int, default=None, help="run only this case of the one target")
    parser.add_argument("--differences", action="store_true", help="print the table of the docs, and end")
    arguments = parser.parse_args()
    if arguments.differences:
        print("\n".join(table()))
        return 0
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    plan = Plan(seed, arguments.minutes * 60, frozenset(arguments.only))
    if arguments.case is not None:
        if len(arguments.only) != 1:
            parser.error("--case needs one target: --only NAME")
        [name] = arguments.only
        verdict = uvloop.run(replay(plan, TARGETS[name](), arguments.case))
    else:
        only = "".join(f" {name}" for name in arguments.only)
        only = f" --only{only}" if only else ""
        print(f"python -m loadtests.fuzz --minutes {arguments.minutes:g} --seed {seed}{only}", flush=True)
        verdict = uvloop.run(run(plan))
    print(verdict.text(seed))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
