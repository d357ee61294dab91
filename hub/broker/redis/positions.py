"""Where channels were seen, so that a server that lost its newest data is found out."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final


@dataclass(frozen=True, slots=True)
class Seen:
    """A position that a channel was seen at, and the incarnation of the server at that time."""

    epoch: str
    offset: int
    incarnation: bytes


class Positions:
    """The newest positions that a node saw at one server.

    No method walks over all channels: with 200,000 of them the event loop would stand still.

    Args:
        followed: the channels that the node is subscribed to, by name. Their positions are kept; those of
            others, which the node only published to, until the second rotation.
    """

    def __init__(self, followed: Container[bytes]) -> None:
        self._is_followed: Final = followed.__contains__
        self._followed: dict[bytes, tuple[str, int]] = {}
        self._recent: dict[bytes, tuple[str, int]] = {}
        self._older: dict[bytes, tuple[str, int]] = {}
        self._doubtful: list[tuple[bytes, dict[bytes, tuple[str, int]]]] = []
        """Positions of earlier incarnations, until they are verified."""

    def note(self, name: bytes, epoch: str, offset: int) -> None:
        """A channel was seen at a position."""
        known = self._followed if self._is_followed(name) else self._recent
        seen = known.get(name)
        if seen is None or seen[1] < offset or seen[0] != epoch:
            known[name] = (epoch, offset)

    def unfollow(self, name: bytes) -> None:
        """The node is no longer subscribed to a channel."""
        if seen := self._followed.pop(name, None):
            self._recent[name] = seen

    def rotate(self) -> None:
        """Forget what was not seen since the last rotation, unless the node is subscribed to it."""
        self._older, self._recent = self._recent, {}

    def doubt(self, incarnation: bytes) -> None:
        """The server is another one: what was seen in this incarnation, until now, is to be verified."""
        for known in (self._followed, self._recent, self._older):
            if known:
                self._doubtful.append((incarnation, known))
        self._followed, self._recent, self._older = {}, {}, {}

    @property
    def is_doubtful(self) -> bool:
        """Whether there is something to verify."""
        return any(known for _, known in self._doubtful)

    def take_doubtful(self, count: int) -> list[tuple[bytes, Seen]]:
        """Take some of what is to be verified. What cannot be verified now goes back by `inherit`."""
        taken: list[tuple[bytes, Seen]] = []
        while self._doubtful and len(taken) < count:
            incarnation, known = self._doubtful[-1]
            while known and len(taken) < count:
                name, (epoch, offset) = known.popitem()
                taken.append((name, Seen(epoch, offset, incarnation)))
            if not known:
                self._doubtful.pop()
        return taken

    def inherit(self, name: bytes, seen: Seen) -> None:
        """Something is to be verified here that was seen at another server, or could not be verified
        before."""
        for incarnation, known in self._doubtful:
            if incarnation == seen.incarnation and name not in known:
                known[name] = (seen.epoch, seen.offset)
                return
        self._doubtful.append((seen.incarnation, {name: (seen.epoch, seen.offset)}))

    def take(self, name: bytes, incarnation: bytes) -> list[Seen]:
        """Take what is known of a channel, which another server keeps now."""
        taken = [Seen(*seen, earlier) for earlier, known in self._doubtful if (seen := known.pop(name, None))]
        for known in (self._followed, self._recent, self._older):
            if seen := known.pop(name, None):
                taken.append(Seen(*seen, incarnation))
        return taken

    def names(self, step: int) -> Iterator[list[bytes]]:
        """All channels of which something is known, as they are now, in steps."""
        doubtful = [known for _, known in self._doubtful]
        for known in (self._followed, self._recent, self._older, *doubtful):
            names = iter(list(known))
            while some := list(islice(names, step)):
                yield some
