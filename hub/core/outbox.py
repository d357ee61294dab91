"""What waits for one client whose socket takes no more for now. Pure: bytes in, bytes out, bounded."""

from __future__ import annotations

from collections import deque


class Outbox:
    """Bytes that could not be written yet, in order.

    Args:
        bytes_max: bytes that it holds at the most.
        messages_max: writes that it holds at the most.
    """

    __slots__ = ("_bytes_max", "_messages_max", "_waiting", "size")

    def __init__(self, bytes_max: int, messages_max: int) -> None:
        self._bytes_max = bytes_max
        self._messages_max = messages_max
        self._waiting: deque[bytes] = deque()
        self.size = 0
        """Bytes that wait."""

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, data: bytes) -> bool:
        """Add bytes behind the others. Returns False, and adds nothing, where they do not fit."""
        if self.size + len(data) > self._bytes_max or len(self._waiting) >= self._messages_max:
            return False
        self._waiting.append(data)
        self.size += len(data)
        return True

    def pop(self) -> bytes:
        """Take the oldest bytes out. There must be some."""
        data = self._waiting.popleft()
        self.size -= len(data)
        return data
