"""A channel's stream as one node follows it: order, gaps, and what those who come back have missed. Pure.

Publications of a channel with history carry an offset, and come by a way that may lose, repeat or delay them.
The feed decides which are delivered, when the history has to be read, and when subscribers must be told that
something is missing. Nothing is skipped silently.
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
"""Publications held back while the history is read. Those beyond are read from the history once more; what is
in no history goes out at once instead, before those held back."""

PAST_MAX: Final = 8
"""Epochs remembered that are over."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send a publication to the channel's subscribers."""

    publication: Publication


@dataclass(frozen=True, slots=True)
class Read:
    """Read the history after this position, and tell the feed by `read` or `read_failed`."""

    since: StreamPosition


@dataclass(frozen=True, slots=True)
class Broken:
    """Publications are gone for good: end the subscriptions that follow a position, with 2500."""


FollowerEffect: TypeAlias = Deliver | Read | Broken


class StreamFollower:
    """The stream of one channel on one node.

    Args:
        window_max: publications kept for those who come back: as many as the channel's history holds.
    """

    __slots__ = (
        "_again",
        "_held",
        "_held_at_read",
        "_past",
        "_since_load",
        "_window",
        "_window_max",
        "is_waiting",
        "position",
    )

    def __init__(self, window_max: int) -> None:
        self.position: StreamPosition | None = None
        """The last publication delivered, or the top when the stream was first looked at."""
        self.is_waiting = False
        """Whether a read is under way, or due again: what arrives is held back until it is done."""
        self._window_max = window_max
        self._held: list[tuple[Publication, str]] = []
        self._held_at_read = 0
        self._again = False
        # Epochs that are over: what comes of them is late.
        self._past: deque[str] = deque(maxlen=PAST_MAX)
        # Once the history was read in whole, the newest publications up to `position` without a gap. While it
        # is being read, those delivered since.
        self._window: ReplayBuffer | None = None
        self._since_load: list[Publication] | None = None

    def arrived(self, publication: Publication, epoch: str) -> list[FollowerEffect]:
        """A publication came. `epoch` is empty where it is in no history."""
        if self.is_waiting:
            if len(self._held) < PENDING_MAX:
                self._held.append((publication, epoch))
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
        # A gap, or another epoch: the stream began anew, or this comes late from before it did.
        self._held.append((publication, epoch))
        return self._repair(at)

    # Repair

    def doubt(self) -> list[FollowerEffect]:
        """Publications may have been lost on the way: compare with the history."""
        if self.position is None:
            return []
        if self.is_waiting:
            self._again = True
            return []
        return self._repair(self.position)

    def read(self, publications: Sequence[Publication], top: StreamPosition) -> list[FollowerEffect]:
        """The history after `position` was read, together with its top."""
        at = self.position
        assert at is not None, "a repair begins at a position"
        # What had come before the read was made is of this epoch, or of one that was over then.
        early = {epoch for _, epoch in self._held[: self._held_at_read]} | {at.epoch}
        self._past.extend(early - {top.epoch, ""})
        if is_complete(at, publications, top):
            return [*map(self._deliver, publications), *self._go_on()]
        effects: list[FollowerEffect] = [Broken()]
        if top.epoch != at.epoch:
            # Go on with what came of the new stream, and not with what it held before that.
            came = [held.offset for held, epoch in self._held if held.offset and epoch == top.epoch]
            self._restart(StreamPosition(min(came) - 1 if came else top.offset, top.epoch))
        else:
            # Those who follow no position take what there is. A top that went back has nothing for them.
            effects += [Deliver(missed) for missed in publications if missed.offset > at.offset]
            self._restart(top)
        return effects + self._go_on()

    def read_failed(self) -> list[FollowerEffect]:
        """The history could not be read; call this when it is time to try again."""
        assert self.position is not None, "a repair begins at a position"
        return self._repair(self.position)

    # Those who come, and those who come back

    def loading(self) -> None:
        """A read of the top, or of the whole history, begins."""
        self._since_load = []
        if self.position is None:
            self.is_waiting = True

    def loaded(self, publications: Sequence[Publication] | None, top: StreamPosition) -> list[FollowerEffect]:
        """The top was read; and with it the whole history, unless that is None."""
        since, self._since_load = self._since_load or [], None
        is_first_look = self.position is None
        at = self.position = self.position or top
        if top.epoch != at.epoch or top.offset < at.offset:
            return self.doubt()
        if publications is not None:
            first = since[0].offset if since else at.offset + 1
            before = [publication for publication in publications if publication.offset < first]
            self._window = ReplayBuffer([*before, *since], at.offset, self._window_max)
        return self._go_on() if is_first_look else []

    def load_failed(self) -> None:
        """The read that began could not be made."""
        self._since_load = None
        if self.position is None:
            self.is_waiting = False
            self._held.clear()

    def recover(self, since: StreamPosition) -> Recovery | None:
        """What a client missed, in pages: the first one now, and the next one for who has had that.

        None where the whole history has to be read for it.
        """
        at = self.position
        if at is None or self.is_waiting:
            return None
        if since.epoch not in ("", at.epoch) or since.offset > at.offset:
            return Recovery(False, NO_PUBLICATIONS, at)
        if since.offset == at.offset:
            return Recovery(True, NO_PUBLICATIONS, at)
        if self._window is None:
            return None
        missed = self._window.after(since.offset)
        if missed is None:
            return Recovery(False, NO_PUBLICATIONS, at)
        return Recovery(True, missed, StreamPosition(since.offset, at.epoch))

    def forget_pages(self) -> None:
        """Keep no pages that nobody may ask for again."""
        if self._window is not None:
            self._window.forget_pages()

    def drop_buffer(self) -> None:
        """Keep nothing any more for those who come back; the next one has the history read."""
        self._window = None

    def _deliver(self, publication: Publication) -> Deliver:
        assert self.position is not None, "a stream that is delivered has a position"
        self.position = StreamPosition(publication.offset, self.position.epoch)
        if self._window is not None:
            self._window.append(publication)
        if self._since_load is not None:
            self._since_load.append(publication)
        return Deliver(publication)

    def _repair(self, since: StreamPosition) -> list[FollowerEffect]:
        self.is_waiting = True
        self._held_at_read = len(self._held)
        return [Read(since)]

    def _restart(self, position: StreamPosition) -> None:
        self.position = position
        self._window = None
        self._since_load = None

    def _go_on(self) -> list[FollowerEffect]:
        """A read is done: what was held back comes now, as if it arrived."""
        self.is_waiting = False
        held, self._held = self._held, []
        again, self._again = self._again, False
        effects: list[FollowerEffect] = []
        for publication, epoch in held:
            effects += self.arrived(publication, epoch)
        return effects + self.doubt() if again else effects
