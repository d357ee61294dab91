"""Mistakes that newcomers make, and what they are told: the rows of `tests/mistakes/mistakes.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parents[1] / "mistakes" / "mistakes.toml"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A row of the table.

    Args:
        mistake: what the developer did.
        seen: where the developer sees what is wrong.
        says: the line that says it, with … for what differs each time.
    """

    mistake: str
    seen: str
    says: str

    def is_said_by(self, line: str) -> bool:
        """Whether a line is this message, as a whole."""
        return re.fullmatch(".*".join(map(re.escape, self.says.split("…"))), line) is not None


@dataclass(frozen=True, slots=True)
class Group:
    """The mistakes of one kind, in a test file of their own.

    Args:
        title: for the docs.
        mistakes: by the names of their tests.
    """

    title: str
    mistakes: Mapping[str, Mistake]


def _read() -> dict[str, Group]:
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    groups = {}
    for name, group in table.items():
        title = group.pop("title")
        groups[name] = Group(title, {key: Mistake(**row) for key, row in group.items()})
    return groups


GROUPS: Final = _read()
"""By the name of the test file, without `test_`."""
