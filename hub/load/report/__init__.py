"""What a finished load run was like: a page to look at, and the same figures as JSON and CSV."""

from __future__ import annotations

from pathlib import Path

from hub.load.report.page import page
from hub.load.report.record import RunError, read
from hub.load.report.tables import as_csv, as_json

__all__ = ["RunError", "compare", "write"]


def write(folder: Path) -> Path:
    """Write `report.html`, `report.json` and `report.csv` into the folder of a run.

    Returns:
        The page's path.

    Raises:
        RunError: the folder has no run that could be read.
    """
    run = read(folder)
    path = folder / "report.html"
    path.write_text(page([run], ["report.json", "report.csv"]))
    path.with_suffix(".json").write_bytes(as_json(run))
    path.with_suffix(".csv").write_text(as_csv(run))
    return path


def compare(folder: Path, other: Path) -> Path:
    """Write `compare.html`, with two runs side by side, into the folder of the first.

    Returns:
        The page's path.

    Raises:
        RunError: one of the folders has no run that could be read.
    """
    path = folder / "compare.html"
    path.write_text(page([read(folder), read(other)]))
    return path
