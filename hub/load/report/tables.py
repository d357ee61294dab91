"""The figures of a run for other programs: as JSON, and as CSV with a row for each sample."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from hub.load.report.figures import measured, nodes
from hub.load.report.record import Figures, LoadRun, NodeFigures


def as_json(run: LoadRun) -> bytes:
    """All of a run."""
    return msgspec.json.encode(run) + b"\n"


def as_csv(run: LoadRun) -> str:
    """A row for each sample; a column is named by what it is of and what it is, as in `receive p99`."""
    columns: list[tuple[str, str, str]] = [("", "", name) for name in ("t", "users")]
    columns += [("stats", name, field) for name in measured(run) for field in Figures.__struct_fields__]
    columns += [("nodes", name, field) for name in nodes(run) for field in NodeFigures.__struct_fields__]
    columns += [("", "generator", "cpu"), ("", "generator", "lag_s")]
    codes = sorted({code for sample in run.samples for code in sample.disconnects})
    columns += [("", "disconnects", code) for code in codes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(" ".join(filter(None, (name, field))) for _, name, field in columns)
    for sample in run.samples:
        fields = msgspec.to_builtins(sample)
        writer.writerow(_cell(fields, column) for column in columns)
    return text.getvalue()


def _cell(fields: dict[str, Any], column: tuple[str, str, str]) -> Any:
    for key in filter(None, column):
        fields = fields.get(key, {}) if isinstance(fields, dict) else {}
    return "" if fields == {} else fields
