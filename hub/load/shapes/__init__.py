"""Shapes of a load: how many users there are as a run goes on."""

from __future__ import annotations

from typing import Final

SHAPES: Final = ("ramp", "spike")
"""Each is a file of its own here: Locust takes the first that it finds in its files."""

GROWING: Final = 0.8
"""The part of a ramp in which users come; the rest shows whether the hub holds all of them."""

FEW: Final = 0.1
"""The part of the users that is there before and after a spike."""

SPIKE: Final = (0.3, 0.6)
"""When a spike begins and ends, as parts of a run."""


def ramp(users: int, part: float) -> int:
    """How many users there are when so much of the run is over: ever more, then all.

    Args:
        users: all.
        part: from 0 to 1.
    """
    return max(1, round(users * min(1.0, part / GROWING)))


def spike(users: int, part: float) -> int:
    """A tenth, then all at once for a while, then a tenth again."""
    begin, end = SPIKE
    return users if begin <= part < end else max(1, round(users * FEW))
