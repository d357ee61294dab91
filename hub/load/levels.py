"""Service levels: what a run must hold, from TOML, and the verdict on it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COUNTS: Final = ("lost", "repeated", "disordered", "told")
_TIME: Final = re.compile(r"(?P<name>[a-z_]+)_(?P<percentile>p50|p95|p99|max)_ms")


class LevelsError(ValueError):
    """Service levels that are none. The text names the key."""


@dataclass(frozen=True)
class Level:
    """One level, and what became of it.

    Args:
        name: its key.
        limit: the highest value that holds it.
        value: what was measured; None for nothing.
    """

    name: str
    limit: float
    value: float | None

    @property
    def holds(self) -> bool:
        """Whether it was held. What never happened was not too slow."""
        return self.value is None or self.value <= self.limit


def read(path: Path) -> dict[str, float]:
    """The levels of a file: the table `[levels]`, a highest value by key.

    A key is one of `COUNTS`; `error_share`, of all that was measured; `node_memory_bytes`; or a measure, a
    percentile and `ms`, as in `receive_p99_ms`, with `_` for a space.

    Raises:
        LevelsError: the file is not TOML, or holds a key that is none, or a value that is no number.
        OSError: it cannot be read.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as exc:
        raise LevelsError(f"{path}: {exc}") from None
    levels = tables.get("levels")
    if not isinstance(levels, dict) or set(tables) != {"levels"}:
        raise LevelsError(f"{path}: must hold one table, [levels]")
    for name, limit in levels.items():
        if name not in (*COUNTS, "error_share", "node_memory_bytes") and not _TIME.fullmatch(name):
            raise LevelsError(f"{path}: levels.{name}: is no level; receive_p99_ms or lost would be")
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise LevelsError(f"{path}: levels.{name}: must be a number, got {limit!r}")
    return levels


def judge(levels: Mapping[str, float], totals: Mapping[str, Any], memory_bytes: float | None) -> list[Level]:
    """Hold a run against the levels.

    Args:
        levels: by key.
        totals: `totals` and `counts`, as a run leaves them.
        memory_bytes: the most that a node took; None where nobody looked.
    """
    return [Level(name, limit, _value(name, totals, memory_bytes)) for name, limit in levels.items()]


def _value(name: str, totals: Mapping[str, Any], memory_bytes: float | None) -> float | None:
    measures = totals["totals"]
    if name in COUNTS:
        return float(totals["counts"][name])
    if name == "error_share":
        count = sum(measure["n"] for measure in measures.values())
        return sum(measure["fail"] for measure in measures.values()) / count if count else None
    if name == "node_memory_bytes":
        return None if memory_bytes is None else memory_bytes
    found = _TIME.fullmatch(name)
    assert found, "read has checked the keys"
    value: float | None = measures.get(found["name"].replace("_", " "), {}).get(found["percentile"])
    return value
