"""What waits for all the slow clients of a node, within one bound: over it, who waits for most goes first."""

from __future__ import annotations

from typing import Protocol


class Slow(Protocol):
    """A connection that is behind."""

    @property
    def waiting_bytes(self) -> int: ...
    def give_up(self) -> None: ...


class Outboxes:
    """The outboxes of a node, counted.

    Args:
        bytes_max: bytes that they hold together; 0 for no bound.
    """

    def __init__(self, bytes_max: int) -> None:
        self.size = 0
        """Bytes that wait in all of them."""
        self.behind: set[Slow] = set()
        """The connections that have one."""
        self._bytes_max = bytes_max

    def grew(self, size: int) -> None:
        """Bytes were added to one, or taken out where `size` is below zero."""
        self.size += size
        if self._bytes_max and self.size > self._bytes_max:
            self.shed(self._bytes_max)

    def shed(self, bytes_max: int) -> int:
        """Give up those who wait for most, until no more than this is left. Returns how many."""
        count = 0
        for connection in sorted(self.behind, key=lambda each: each.waiting_bytes, reverse=True):
            if self.size <= bytes_max:
                break
            connection.give_up()
            count += 1
        return count
