"""What a target of the fuzzer is, and what a run finds."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from loadtests.fuzz.stage import Stage

INPUT_BYTES_SHOWN = 2048


class Target(ABC):
    """A reader of a peer's bytes, with inputs for it.

    Each case is drawn from a generator of its own, so that any case can be replayed without those before it.
    """

    name: ClassVar[str]

    @abstractmethod
    def draw(self, chance: random.Random) -> bytes:
        """Return an input: one of a corpus of valid inputs, mutated or not."""

    def case(self, seed: int, number: int) -> bytes:
        """Return the input of a case."""
        return self.draw(random.Random(f"{seed} {self.name} {number}"))  # noqa: S311 - replayed by its seed


class PureTarget(Target):
    """A target without I/O: a function of the hub beside a second implementation."""

    @abstractmethod
    def check(self, data: bytes) -> Iterable[str]:
        """Have both read an input. Returns the kinds of the differences between them."""


class LiveTarget(Target):
    """A target of a hub that runs."""

    lanes: ClassVar[int] = 4
    """Cases that are under way at a time."""

    @abstractmethod
    def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        """Send an input to the hub. Yields the kinds of what differs from the second implementation."""


class Found(Struct):
    """A kind of difference.

    Args:
        count: how many cases showed it.
        case: number of the first of them.
        data: its input.
    """

    count: int
    case: int
    data: bytes


class Tally(Struct):
    """What came of a run, or of a part of it.

    Args:
        cases: how many were run, by target.
        found: differences, by target and kind.
    """

    cases: dict[str, int] = {}
    found: dict[str, dict[str, Found]] = {}

    def count(self, target: str) -> int:
        """Begin another case of a target. Returns its number."""
        number = self.cases.get(target, 0)
        self.cases[target] = number + 1
        return number

    def note(self, target: str, kind: str, case: int, data: bytes) -> None:
        """Note a difference."""
        kinds = self.found.setdefault(target, {})
        if kind in kinds:
            kinds[kind].count += 1
        else:
            kinds[kind] = Found(1, case, data)

    def merge(self, other: Tally) -> None:
        """Add what another part found; each target is run by one part alone."""
        self.cases.update(other.cases)
        self.found.update(other.found)
