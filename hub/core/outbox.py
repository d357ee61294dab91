"""What waits for one client whose socket takes no more for now. Pure: bytes in, bytes out, bounded."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque


class Outbox:
    """Bytes that could not be written yet, in order.

    Publications of a channel may be given up, as its rule says: those that `offer` adds as the oldest where
    there is no room, those that `replace` adds as soon as a newer one waits. What `push` adds never is.

    Args:
        bytes_max: bytes that it holds at the most.
        messages_max: writes that it holds at the most.
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
        """Bytes that wait."""
        self.dropped: Counter[str] = Counter()
        """Publications given up, by channel. Whoever counts them clears it."""

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, data: bytes) -> bool:
        """Add bytes behind the others. Returns False where they do not fit, whatever is given up for them."""
        if not self._has_room(len(data)):
            return False
        self._add(data, "")
        return True

    def offer(self, channel: str, data: bytes) -> None:
        """Add a publication. Where there is no room the oldest such ones are given up, at last this one."""
        if self._has_room(len(data)):
            self._droppable.append(self._add(data, channel))
        else:
            self.dropped[channel] += 1

    def replace(self, channel: str, data: bytes) -> bool:
        """Add a publication in the place of an older one of its channel. Returns as `push`."""
        older = self._latest.pop(channel, None)
        if older is not None:
            self._drop(older)
        if not self._has_room(len(data)):
            return False
        self._latest[channel] = self._add(data, channel)
        return True

    def pop(self) -> bytes:
        """Take the oldest bytes out. There must be some."""
        number, (data, channel) = self._waiting.popitem(last=False)
        self.size -= len(data)
        if self._droppable and self._droppable[0] == number:
            self._droppable.popleft()
        elif channel and self._latest.get(channel) == number:
            del self._latest[channel]
        return data

    def _has_room(self, size: int) -> bool:
        """Make room, as far as that can be done."""
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
