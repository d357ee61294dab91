"""The data that waits for all slow clients of a node, within one limit."""

from __future__ import annotations

from collections.abc import Callable

from hub.core.outbox import Outbox


class Outboxes:
    """The outboxes of a node. Over the limit, the connections with the most bytes end.

    Args:
        bytes_max: bytes that the outboxes hold together at the most; 0 for no limit.
    """

    def __init__(self, bytes_max: int) -> None:
        self.size = 0
        """Bytes in all outboxes."""
        self.behind: dict[Outbox, Callable[[], None]] = {}
        """By outbox, the call that ends its connection and removes the outbox."""
        self._bytes_max = bytes_max

    def grew(self, size: int) -> None:
        """Count bytes that were added to an outbox, or taken out where `size` is below zero."""
        self.size += size
        if self._bytes_max and self.size > self._bytes_max:
            self.shed(self._bytes_max)

    def shed(self, bytes_max: int) -> int:
        """End the connections with the most bytes until `bytes_max` are left. Returns how many ended."""
        count = 0
        by_size = sorted(self.behind.items(), key=lambda item: item[0].size, reverse=True)
        for _, give_up in by_size:
            if self.size <= bytes_max:
                break
            give_up()
            count += 1
        return count
