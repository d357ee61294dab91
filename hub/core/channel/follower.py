"""Follows the stream of one channel on one node: order, gaps, and the recovery of clients. Pure.

Publications of a channel with history carry an offset. They arrive over a connection that may lose, repeat or
delay them. A follower decides which publications to deliver, when to read the history, and when to tell
subscribers that publications are missing. It never skips a publication silently.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from hub.core.channel.replay_buffer import ReplayBuffer
from hub.core.channel.stream import Recovery, is_complete
from hub.protocol.messages import NO_PUBLICATIONS, Publication, StreamPosition

PENDING_MAX: Final = 1024
"""Publications that wait while the history is read. Further ones are read from the history afterwards. Those
that are in no history are delivered at once instead, before the ones that wait."""

FAILURES_MAX: Final = 3
"""Reads of the history that fail in a row before the follower gives the gap up."""

PAST_MAX: Final = 8
"""Ended epochs that a follower remembers."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send a publication to the channel's subscribers."""

    publication: Publication


@dataclass(frozen=True, slots=True)
class Read:
    """Read the history after this position, then call `read` or `read_failed`."""

    since: StreamPosition


@dataclass(frozen=True, slots=True)
class Broken:
    """Publications are lost: end the subscriptions that have a position, with 2500."""


FollowerEffect: TypeAlias = Deliver | Read | Broken


class StreamFollower:
    """Follows the stream of one channel on one node.

    Args:
        buffer_max: publications that the replay buffer holds, as many as the channel's history.
    """

    __slots__ = (
        "_again",
        "_buffer",
        "_buffer_max",
        "_past",
        "_pending",
        "_pending_at_read",
        "_since_load",
        "failures",
        "is_waiting",
        "position",
    )

    def __init__(self, buffer_max: int) -> None:
        self.position: StreamPosition | None = None
        """Of the last publication delivered, or of the newest one at the first read. None before that, and
        after a gap that was given up without knowledge of a newer publication."""
        self.is_waiting = False
        """Whether a read is in progress or due. Publications that arrive are pending until it succeeds."""
        self.failures = 0
        """Reads that failed since the last one that succeeded."""
        self._buffer_max = buffer_max
        self._pending: list[tuple[Publication, str]] = []
        self._pending_at_read = 0
        self._again = False
        # Ended epochs: their publications arrive late.
        self._past: deque[str] = deque(maxlen=PAST_MAX)
        # The newest publications up to `position` without a gap, once the whole history was read.
        self._buffer: ReplayBuffer | None = None
        # The publications delivered since a read of the history began, while it is in progress.
        self._since_load: list[Publication] | None = None

    def arrived(self, publication: Publication, epoch: str) -> list[FollowerEffect]:
        """Process a publication that arrived. `epoch` is empty if it is in no history."""
        if self.is_waiting:
            if len(self._pending) < PENDING_MAX:
                self._pending.append((publication, epoch))
            elif publication.offset:
                self._again = True
            else:
                return [Deliver(publication)]
            return []
        if not publication.offset:
            return [Deliver(publication)]
        at = self.position
        if at is None:
            self._restart(StreamPosition(publication.offset, epoch))
            return [Deliver(publication)]
        if (epoch == at.epoch and publication.offset <= at.offset) or epoch in self._past:
            return []
        if epoch == at.epoch and publication.offset == at.offset + 1:
            return [self._deliver(publication)]
        # A gap, or another epoch: the stream began again, or the publication is late and from before that.
        self._pending.append((publication, epoch))
        return self._repair(at)

    # Repair

    def doubt(self) -> list[FollowerEffect]:
        """Publications may have been lost: read the history."""
        if self.is_waiting:
            # The read in progress may be from before the loss.
            self._again = True
            return []
        return [] if self.position is None else self._repair(self.position)

    def read(self, publications: Sequence[Publication], top: StreamPosition) -> list[FollowerEffect]:
        """Process the history after `position`.

        Args:
            publications: in order. Entries that the broker could not read are missing.
            top: the position of the newest publication at the time of the read.
        """
        at = self.position
        assert at is not None, "a repair begins at a position"
        is_whole = is_complete(at, publications, top)
        newer = [publication for publication in publications if publication.offset > at.offset]
        self.failures = 0  # and not before: the lines above raise where the read returned garbage
        # Publications that arrived before the read are of the epoch of `top`, or of one that had ended.
        early = {epoch for _, epoch in self._pending[: self._pending_at_read]} | {at.epoch}
        self._past.extend(early - {top.epoch, ""})
        if is_whole:
            return [*map(self._deliver, publications), *self._go_on()]
        effects: list[FollowerEffect] = [Broken()]
        if top.epoch != at.epoch:
            # Continue with the publications of the new stream that arrived, not with older ones in it.
            came = [each.offset for each, epoch in self._pending if each.offset and epoch == top.epoch]
            self._restart(StreamPosition(min(came) - 1 if came else top.offset, top.epoch))
        else:
            # Subscribers without a position get what there is. A top that went back has nothing for them.
            effects += map(Deliver, newer)
            self._restart(top)
        return effects + self._go_on()

    def read_failed(self, *, is_counted: bool = True) -> list[FollowerEffect]:
        """Process a read that failed, timed out or returned garbage: read again, or give the gap up.

        A follower that gives up tells the subscribers and continues from the newest publication that arrived.

        Args:
            is_counted: False while the broker is disconnected, when every read fails and none is given up.
        """
        assert self.position is not None, "a repair begins at a position"
        self.failures += is_counted
        return self._repair(self.position) if self.failures < FAILURES_MAX else self._give_up(self.position)

    # Subscribers

    def loading(self) -> None:
        """A read of the position, or of the whole history, begins."""
        self._since_load = []
        if self.position is None:
            self.is_waiting = True

    def loaded(self, publications: Sequence[Publication] | None, top: StreamPosition) -> list[FollowerEffect]:
        """Process the position, and the whole history unless `publications` is None."""
        since = self._since_load or []
        is_first_look = self.position is None
        at = self.position or top
        first = since[0].offset if since else at.offset + 1
        before = [publication for publication in publications or () if publication.offset < first]
        is_behind = top.epoch != at.epoch or top.offset < at.offset
        # Nothing changes before this line: the lines above raise where the read returned garbage.
        self.position, self._since_load = at, None
        if is_behind:
            return self.doubt()
        if publications is not None:
            self._buffer = ReplayBuffer([*before, *since], at.offset, self._buffer_max)
        return self._go_on() if is_first_look else []

    def load_failed(self) -> list[FollowerEffect]:
        """Process a read of the position, or of the whole history, that failed."""
        self._since_load = None
        return self._go_on() if self.position is None else []

    def recover(self, since: StreamPosition) -> Recovery | None:
        """The first page of the publications that a client missed, or None if the history must be read first.

        The client's position after a page leads to the next page.
        """
        at = self.position
        if at is None or self.is_waiting:
            return None
        if since.epoch not in ("", at.epoch) or since.offset > at.offset:
            return Recovery(False, NO_PUBLICATIONS, at)
        if since.offset == at.offset:
            return Recovery(True, NO_PUBLICATIONS, at)
        if self._buffer is None:
            return None
        missed = self._buffer.after(since.offset)
        if missed is None:
            return Recovery(False, NO_PUBLICATIONS, at)
        return Recovery(True, missed, StreamPosition(since.offset, at.epoch))

    def forget_pages(self) -> None:
        """Drop the pages of the replay buffer, which save work only while many clients recover."""
        if self._buffer is not None:
            self._buffer.forget_pages()

    def drop_buffer(self) -> None:
        """Drop the replay buffer. The next recovery reads the history."""
        self._buffer = None

    def _deliver(self, publication: Publication) -> Deliver:
        assert self.position is not None, "a stream that is delivered has a position"
        self.position = StreamPosition(publication.offset, self.position.epoch)
        if self._buffer is not None:
            self._buffer.append(publication)
        if self._since_load is not None:
            self._since_load.append(publication)
        return Deliver(publication)

    def _repair(self, since: StreamPosition) -> list[FollowerEffect]:
        self.is_waiting = True
        self._pending_at_read = len(self._pending)
        return [Read(since)]

    def _restart(self, position: StreamPosition | None) -> None:
        self.position = position
        self._buffer = None
        self._since_load = None

    def _give_up(self, at: StreamPosition) -> list[FollowerEffect]:
        effects: list[FollowerEffect] = [Broken()]
        newest = at
        for publication, epoch in self._pending:
            if publication.offset:
                if (epoch == newest.epoch and publication.offset <= newest.offset) or epoch in self._past:
                    continue
                newest = StreamPosition(publication.offset, epoch)
            effects.append(Deliver(publication))
        self._pending = []
        self._again = self.is_waiting = False
        self.failures = 0
        self._restart(None if newest is at else newest)
        return effects

    def _go_on(self) -> list[FollowerEffect]:
        """Process the pending publications as if they arrived now."""
        self.is_waiting = False
        pending, self._pending = self._pending, []
        again, self._again = self._again, False
        effects: list[FollowerEffect] = []
        for publication, epoch in pending:
            effects += self.arrived(publication, epoch)
        return effects + self.doubt() if again else effects
