"""The data that waits for one client whose socket is full. Pure and bounded."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque


class Outbox:
    """Data that could not be written yet, in order.

    `push` adds data that is never dropped. `offer` adds a publication that may be dropped to make room, the
    oldest first. `replace` adds a publication that is dropped when a newer one of its channel arrives.

    Args:
        bytes_max: bytes that the outbox holds at the most.
        messages_max: messages that the outbox holds at the most.
    """

    __slots__ = (
        "_bytes_max",
        "_droppable",
        "_latest",
        "_messages_max",
        "_next",
        "_waiting",
        "dropped",
        "size",
    )

    def __init__(self, bytes_max: int, messages_max: int) -> None:
        self._bytes_max = bytes_max
        self._messages_max = messages_max
        self._waiting: OrderedDict[int, tuple[bytes, str]] = OrderedDict()
        self._next = 0
        self._droppable: deque[int] = deque()
        self._latest: dict[str, int] = {}
        self.size = 0
        """Bytes in the outbox."""
        self.dropped: Counter[str] = Counter()
        """Publications that were dropped, by channel. The caller counts them and clears this."""

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, data: bytes) -> bool:
        """Add data at the end. Returns False if it does not fit, even after dropping publications."""
        if not self._has_room(len(data)):
            return False
        self._add(data, "")
        return True

    def offer(self, channel: str, data: bytes) -> None:
        """Add a publication. To make room, drop the oldest publications of this kind, or this one."""
        if self._has_room(len(data)):
            self._droppable.append(self._add(data, channel))
        else:
            self.dropped[channel] += 1

    def replace(self, channel: str, data: bytes) -> bool:
        """Add a publication that replaces the older one of its channel. Returns as `push` does."""
        older = self._latest.pop(channel, None)
        if older is not None:
            self._drop(older)
        if not self._has_room(len(data)):
            return False
        self._latest[channel] = self._add(data, channel)
        return True

    def pop(self) -> bytes:
        """Remove and return the oldest data. The outbox must not be empty."""
        number, (data, channel) = self._waiting.popitem(last=False)
        self.size -= len(data)
        if self._droppable and self._droppable[0] == number:
            self._droppable.popleft()
        elif channel and self._latest.get(channel) == number:
            del self._latest[channel]
        return data

    def _has_room(self, size: int) -> bool:
        """Drop publications until there is room. Returns whether there is."""
        while self.size + size > self._bytes_max or len(self._waiting) >= self._messages_max:
            if not self._droppable:
                return False
            self._drop(self._droppable.popleft())
        return True

    def _add(self, data: bytes, channel: str) -> int:
        self._next += 1
        self._waiting[self._next] = (data, channel)
        self.size += len(data)
        return self._next

    def _drop(self, number: int) -> None:
        data, channel = self._waiting.pop(number)
        self.size -= len(data)
        self.dropped[channel] += 1
