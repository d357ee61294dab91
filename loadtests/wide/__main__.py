"""The command: breaks Redis under a node with very many channels, and says what held."""

from __future__ import annotations

import argparse
import sys

import uvloop

from loadtests.wide.run import FAULTS, Plan, run


def main() -> int:
    """Run, and fail where a promise was not held."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.wide", description=__doc__)
    parser.add_argument(
        "--channels", type=int, default=200_000, help="with history, each followed by one client"
    )
    parser.add_argument(
        "--clients", type=int, default=2_000, help="that share them; at most 128 channels each"
    )
    parser.add_argument("--busy", type=int, default=0, help="processes beside the node that take all the CPU")
    parser.add_argument("--fault", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    arguments = parser.parse_args()
    plan = Plan(arguments.channels, arguments.clients, arguments.busy, tuple(arguments.fault))
    missed = [fault for figures in uvloop.run(run(plan)) for fault in figures.faults(plan.channels)]
    for fault in missed:
        print(f"MISSED: {fault}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
