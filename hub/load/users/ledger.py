"""What a user got of one channel, by offset: what is missing, came twice, or came late."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MISSING_MAX: Final = 10_000
"""Most missing offsets that are remembered, so that one which comes late is not taken for a repeated one."""


@dataclass(slots=True)
class Counts:
    """What all users of a process got.

    Args:
        received: publications.
        lost: that never came.
        repeated: that came again.
        disordered: that came after a later one.
        told: how often the hub said that it could not give what was missed.
    """

    received: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    told: int = 0

    def by_name(self) -> dict[str, int]:
        """All counts."""
        return {name: getattr(self, name) for name in self.__slots__}

    def add(self, other: dict[str, int]) -> None:
        """Add another process's."""
        for name, count in other.items():
            setattr(self, name, getattr(self, name) + count)


class Ledger:
    """One channel, as one user sees it. Each method returns what is wrong, or nothing.

    Args:
        counts: takes what is found.
    """

    __slots__ = ("_counts", "_missing", "epoch", "offset")

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._missing: set[int] = set()
        self.epoch = ""
        self.offset: int | None = None
        """Of the newest publication that came, or of where the subscription began."""

    def begin(self, epoch: str, offset: int, *, was_recovering: bool, recovered: bool) -> str:
        """The hub subscribed the user: the publications after `offset` follow."""
        if recovered and self.offset is not None and epoch == self.epoch:
            return self._skip(offset)
        self.epoch, self.offset = epoch, offset
        self._missing.clear()
        if was_recovering:
            self._counts.told += 1
        return ""

    def take(self, offset: int) -> str:
        """A publication came."""
        self._counts.received += 1
        if self.offset is None or not offset:
            return ""  # a channel without history counts nothing
        if offset > self.offset:
            fault = self._skip(offset - 1)
            self.offset = offset
            return fault
        if offset in self._missing:
            self._missing.discard(offset)
            self._counts.lost -= 1
            self._counts.disordered += 1
            return f"message {offset} came after message {self.offset}"
        self._counts.repeated += 1
        return f"message {offset} came again"

    def is_whole(self, top: int) -> bool:
        """Whether everything up to the channel's newest publication came."""
        return not self._missing and (self.offset or 0) >= top

    def end(self, top: int) -> str:
        """The channel's newest publication is known, and nothing more will come."""
        return self._skip(top) if self.offset is not None else ""

    def _skip(self, offset: int) -> str:
        """What comes next follows this offset."""
        assert self.offset is not None
        count = offset - self.offset
        if count <= 0:
            return ""
        self._missing.update(range(self.offset + 1, min(offset, self.offset + MISSING_MAX) + 1))
        self._counts.lost += count
        first, self.offset = self.offset + 1, offset
        return f"messages {first} to {offset} are missing" if count > 1 else f"message {first} is missing"


@dataclass(slots=True)
class Ledgers:
    """The channels of one user."""

    counts: Counts
    channels: dict[str, Ledger] = field(default_factory=dict)

    def of(self, channel: str) -> Ledger:
        """A channel's, begun where there is none."""
        if channel not in self.channels:
            self.channels[channel] = Ledger(self.counts)
        return self.channels[channel]
