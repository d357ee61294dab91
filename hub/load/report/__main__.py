"""The command: writes the report of a run, alone or beside another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hub.load.report import RunError, compare, write


def main() -> int:
    """Write. Ends with 1 where a folder has no run."""
    parser = argparse.ArgumentParser(prog="python -m hub.load.report", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--compare", type=Path, metavar="RUN", help="another, to be shown beside it")
    arguments = parser.parse_args()
    try:
        print(write(arguments.run))
        if arguments.compare:
            print(compare(arguments.run, arguments.compare))
    except RunError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
