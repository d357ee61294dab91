"""Print which branches of the package tests run, by folder, and the files that lack most.

`scripts/branches.py REPORT MIN` reads a JSON report of coverage, and fails where less than MIN percent of the
branches outside the core and the protocol were run.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

PURE = ("hub/core", "hub/protocol")
"""Folders that the unit tests alone cover."""
FILES_SHOWN = 10


def main() -> int:
    """Print the table. Returns 1 where too little was run."""
    report = json.loads(Path(sys.argv[1]).read_text())
    minimum = float(sys.argv[2])
    folders: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    files: list[tuple[int, str]] = []
    for name, file in report["files"].items():
        summary = file["summary"]
        if name.startswith("/"):
            continue  # a copy of the package, which a test made to change it
        parts = name.split("/")
        folder = "/".join(parts[:2]) if len(parts) > 2 else "hub/*.py"
        for each in (folder, "" if folder in PURE else "the rest"):
            folders[each][0] += summary["covered_branches"]
            folders[each][1] += summary["num_branches"]
        if folder not in PURE:
            files.append((summary["missing_branches"], name))
    rest = folders.pop("the rest")
    folders.pop("", None)
    for folder, (covered, total) in sorted(folders.items()):
        print(f"{_percent(covered, total):6.1f} %  {covered:5} of {total:5} branches  {folder}")
    print("\nfiles that lack most branches:")
    for missing, name in sorted(files, reverse=True)[:FILES_SHOWN]:
        print(f"{missing:6}  {name}")
    percent = _percent(*rest)
    print(
        f"\n{percent:.1f} % of the branches outside {' and '.join(PURE)}; at least {minimum:g} % must be run"
    )
    return 0 if percent >= minimum else 1


def _percent(covered: int, total: int) -> float:
    return 100 * covered / total if total else 100.0


if __name__ == "__main__":
    sys.exit(main())
