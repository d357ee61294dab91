"""Where channels were seen, so that a server that lost what came last is found out."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """A position that a channel was seen at, and the incarnation of the server at that time."""

    epoch: str
    offset: int
    incarnation: bytes


class Positions:
    """The newest positions that a node saw at one server."""

    def __init__(self) -> None:
        self.doubtful: dict[bytes, Seen] = {}
        """Those seen in an incarnation before, by name, until they are verified."""
        self._current: dict[bytes, tuple[str, int]] = {}
        self._older: dict[bytes, tuple[str, int]] = {}

    def note(self, name: bytes, epoch: str, offset: int) -> None:
        """A channel was seen at a position."""
        seen = self._current.get(name)
        if seen is None or seen[1] < offset or seen[0] != epoch:
            self._current[name] = (epoch, offset)

    def rotate(self, wanted: Container[bytes]) -> None:
        """Forget what was not seen since the last rotation, unless it is wanted."""
        kept = {name: position for name, position in self._older.items() if name in wanted}
        self._older, self._current = {**kept, **self._current}, {}

    def doubt(self, incarnation: bytes) -> None:
        """The server is another one: what was seen in this incarnation, until now, is to be verified."""
        for name, seen in self._all(incarnation):
            self.doubtful.setdefault(name, seen)
        self._current, self._older = {}, {}

    def take(self, name: bytes, incarnation: bytes) -> Seen | None:
        """Give up what is known of a channel, which another server keeps now."""
        doubtful = self.doubtful.pop(name, None)
        known = self._older.pop(name, None)
        known = self._current.pop(name, None) or known
        return doubtful or (Seen(*known, incarnation) if known else None)

    def names(self) -> set[bytes]:
        """All channels of which something is known."""
        return {*self.doubtful, *self._older, *self._current}

    def _all(self, incarnation: bytes) -> Iterator[tuple[bytes, Seen]]:
        for seen in (self._current, self._older):
            for name, (epoch, offset) in seen.items():
                yield name, Seen(epoch, offset, incarnation)
