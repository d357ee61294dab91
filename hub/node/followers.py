"""The channels that a node follows: their streams, kept whole with the broker's history."""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from hub.broker.base import Broker, Stream
from hub.core.channel.follower import Broken, Deliver, FollowerEffect, Read, StreamFollower
from hub.core.channel.stream import Opened
from hub.errors import BrokerError
from hub.protocol.messages import Publication, StreamPosition

RETRY_S: Final = 1.0
"""How long after a read that failed the next one is made, on average."""


@dataclass(slots=True, eq=False)
class FollowedChannel:
    """A channel that the node is subscribed to.

    Args:
        name: of the channel.
        feed: its stream; None where it keeps no history.
        subscribed: done when the broker delivers it.
    """

    name: str
    feed: StreamFollower | None
    subscribed: Future[None]
    is_loading: bool = False
    compared: StreamPosition | None = None
    waiting: list[tuple[Future[Opened], StreamPosition | None]] = field(default_factory=list)


class Followers:
    """Follows channels for a node.

    Args:
        broker: whose channels they are.
        deliver: called with each publication, in order and once.
        broken: called with a channel whose publications are in part gone for good.
    """

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[str, Publication], None],
        broken: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._deliver = deliver
        self._broken = broken
        self._followed: dict[str, FollowedChannel] = {}
        self._loop = asyncio.get_running_loop()

    def follow(self, name: str, history_size: int) -> None:
        """Subscribe to a channel, where that was not done.

        Args:
            name: of the channel.
            history_size: publications that its history keeps; 0 for none.
        """
        if name not in self._followed:
            feed = StreamFollower(history_size) if history_size else None
            self._followed[name] = FollowedChannel(name, feed, self._broker.subscribe(name))

    def unfollow(self, name: str) -> Future[None]:
        """Unsubscribe from a channel that is followed."""
        followed = self._followed.pop(name)
        for waiting, _ in followed.waiting:
            waiting.cancel()
        return self._broker.unsubscribe(name)

    def open(self, name: str, since: StreamPosition | None) -> Future[Opened]:
        """The position of a followed channel as it stands, and what came after `since`, or the first of that.

        Whatever is delivered from now on is either in the result or comes after its top. One read of the
        broker's history serves all who wait for one.
        """
        followed = self._followed[name]
        result: Future[Opened] = self._loop.create_future()
        followed.waiting.append((result, since))
        self._settle(followed)
        return result

    def is_current(self, name: str, position: StreamPosition) -> bool:
        """Whether the channel stands here: what comes next goes on after it."""
        feed = self._followed[name].feed
        return feed is None or feed.position == position

    def arrived(self, name: str, publication: Publication, epoch: str) -> None:
        """The broker brought a publication."""
        followed = self._followed.get(name)
        if followed is None or not followed.subscribed.done():
            return  # it is of a subscription before this one, and what came after it was missed
        if followed.feed is None:
            self._deliver(name, publication)
        else:
            self._carry_out(followed, followed.feed.arrived(publication, epoch))

    def doubt(self) -> None:
        """Publications may have been lost on the way to this node: compare every channel with its history."""
        for followed in list(self._followed.values()):
            if followed.feed:
                self._carry_out(followed, followed.feed.doubt())

    def compare(self, positions: dict[str, StreamPosition]) -> None:
        """Repair the channels whose position at the broker is another than here."""
        for name, position in positions.items():
            followed = self._followed.get(name)
            if followed and followed.feed and followed.feed.position not in (None, position):
                self._carry_out(followed, followed.feed.doubt())

    async def compare_forever(self) -> None:
        """Find what was lost on the way to channels where nothing came after it."""
        while True:
            await asyncio.sleep(25.0 * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            names = self.idle()
            for start in range(0, len(names), 500):
                with suppress(BrokerError):
                    self.compare(await self._broker.positions(names[start : start + 500], renew=True))

    def idle(self) -> list[str]:
        """The channels that have a position, and the same as when this was asked last.

        What was kept for a crowd that came back since then is let go.
        """
        names = []
        for name, followed in self._followed.items():
            position = followed.feed.position if followed.feed else None
            if position and position == followed.compared:
                names.append(name)
            followed.compared = position
            if followed.feed:
                followed.feed.forget_pages()
        return names

    def forget(self, name: str) -> None:
        """Keep nothing of a channel's history any more."""
        followed = self._followed.get(name)
        if followed and followed.feed:
            followed.feed.forget_window()

    # Inside

    def _settle(self, followed: FollowedChannel) -> None:
        """Answer those who wait, as far as that can be; for the others, read."""
        if not followed.subscribed.done():
            if len(followed.waiting) == 1:
                followed.subscribed.add_done_callback(lambda _: self._settle(followed))
            return
        failure = followed.subscribed.exception()
        if failure and followed.feed:
            self._fail(followed, failure)
            return
        # Without history nothing is promised of what comes while the link is away, and the wish stands.
        unanswered = []
        for waiting, since in followed.waiting:
            answer = _answer(followed.feed, since)
            if answer is None:
                unanswered.append((waiting, since))
            elif not waiting.done():
                waiting.set_result(answer)
        followed.waiting = unanswered
        if unanswered and not followed.is_loading:
            self._load(followed)

    def _load(self, followed: FollowedChannel) -> None:
        feed = followed.feed
        assert feed is not None, "without history there is nothing to wait for"
        if feed.is_waiting:
            return  # a repair is under way, and settles these when it is done
        followed.is_loading = True
        is_whole = any(since for _, since in followed.waiting)
        feed.loading()
        read = self._broker.history(followed.name, limit=-1 if is_whole else 0)
        self._when_done(read, lambda done: self._loaded(followed, feed, is_whole, done))

    def _loaded(
        self, followed: FollowedChannel, feed: StreamFollower, is_whole: bool, read: Future[Stream]
    ) -> None:
        followed.is_loading = False
        if failure := read.exception():
            feed.load_failed()
            self._fail(followed, failure)
            return
        stream = read.result()
        effects = feed.loaded(stream.publications if is_whole else None, stream.top)
        self._carry_out(followed, effects)
        self._settle(followed)

    def _carry_out(self, followed: FollowedChannel, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(publication):
                    self._deliver(followed.name, publication)
                case Read(since):
                    self._repair(followed, since)
                case Broken():
                    self._broken(followed.name)

    def _repair(self, followed: FollowedChannel, since: StreamPosition) -> None:
        read = self._broker.history(followed.name, since=since)
        self._when_done(read, lambda done: self._repaired(followed, done))

    def _repaired(self, followed: FollowedChannel, read: Future[Stream]) -> None:
        feed = followed.feed
        if feed is None or self._followed.get(followed.name) is not followed:
            return
        if isinstance(read.exception(), BrokerError):
            delay_s = RETRY_S * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
            self._loop.call_later(delay_s, self._retry, followed, feed)
            return
        stream = read.result()
        self._carry_out(followed, feed.read(stream.publications, stream.top))
        self._settle(followed)

    def _retry(self, followed: FollowedChannel, feed: StreamFollower) -> None:
        if self._followed.get(followed.name) is followed:
            self._carry_out(followed, feed.read_failed())

    def _fail(self, followed: FollowedChannel, failure: BaseException) -> None:
        waiting, followed.waiting = followed.waiting, []
        for result, _ in waiting:
            if not result.done():
                result.set_exception(failure)

    def _when_done(self, future: Future[Any], call: Callable[[Future[Any]], None]) -> None:
        if future.done():
            call(future)
        else:
            future.add_done_callback(call)


def _answer(feed: StreamFollower | None, since: StreamPosition | None) -> Opened | None:
    """What a client who comes is told, or None where the history has to be read first."""
    if feed is None:
        return Opened(StreamPosition())
    if feed.position is None or feed.is_waiting:
        return None
    if since is None:
        return Opened(feed.position)
    recovery = feed.recover(since)
    return None if recovery is None else Opened(feed.position, recovery)
