"""The channels that a node is subscribed to, each kept whole with the broker's history."""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from hub.broker.base import Broker, Stream
from hub.core.channel.follower import Broken, Deliver, FollowerEffect, Read, StreamFollower
from hub.core.channel.stream import Opened
from hub.errors import BrokerError
from hub.node.boundary import Boundary
from hub.node.comparison import Comparison, Positions
from hub.node.environment import Clock
from hub.node.followed_channel import FollowedChannel
from hub.node.repairs import RepairQueue, failure_of, when_done
from hub.protocol.messages import Publication, StreamPosition

RETRY_S: Final = 1.0
"""Seconds, on average, until a read that failed is repeated. Each further failure doubles the time."""


class Followers:
    """Follows the channels of a node.

    Args:
        broker: brings the channels and keeps their histories.
        boundary: records what fails.
        deliver: called with each publication, in order and once.
        broken: called with a channel that lost publications.
        repairing_changed: called when `is_repairing` changes.
        clock: of the node.
    """

    def __init__(
        self,
        broker: Broker,
        boundary: Boundary,
        deliver: Callable[[str, Publication], None],
        broken: Callable[[str], None],
        repairing_changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.is_broker_away = False
        """Whether the broker is disconnected, so that a read that fails says nothing about the channel."""
        self.is_repairing = False
        """Whether channels are compared or repaired after a gap."""
        self._loop = asyncio.get_running_loop()
        self._broker = broker
        self._boundary = boundary
        self._deliver = deliver
        self._broken = broken
        self._repairing_changed = repairing_changed
        self._followed: dict[str, FollowedChannel] = {}
        self._gap = 0
        # Channels to repair since a gap. Those found by a periodic comparison are not among them.
        self._after_gap: set[FollowedChannel] = set()
        self._repairs: RepairQueue[FollowedChannel] = RepairQueue(self._read, self._repaired)
        self._comparison = Comparison(
            broker,
            boundary,
            lambda: list(self._followed),
            self._choose,
            self._compared,
            self._show_repairing,
            clock,
        )

    def stop(self) -> None:
        """Begin no more reads."""
        self._comparison.stop()
        self._repairs.stop()

    def follow(self, name: str, history_size: int) -> None:
        """Subscribe to a channel, unless the node is subscribed already.

        Args:
            name: name of the channel.
            history_size: publications that its history keeps; 0 for none.
        """
        if name not in self._followed:
            follower = StreamFollower(history_size) if history_size else None
            subscribed = self._broker.subscribe(name)
            followed = self._followed[name] = FollowedChannel(name, follower, subscribed, self._gap)
            if not subscribed.done():
                subscribed.add_done_callback(lambda _: self._settle(followed))

    def unfollow(self, name: str) -> Future[None]:
        """Unsubscribe from a channel that is followed."""
        followed = self._followed.pop(name)
        followed.cancel()
        self._repairs.discard(followed)
        self._settle_gap(followed)
        return self._broker.unsubscribe(name)

    def open(self, name: str, since: StreamPosition | None) -> Future[Opened]:
        """The position of a followed channel, and the first page of the publications after `since`.

        Each later publication is either in the result or delivered after it. One read of the history serves
        all subscribers that wait. The future fails with `BrokerError` after `OPEN_TIMEOUT_S`.
        """
        followed = self._followed[name]
        result = followed.wait(since)
        self._settle(followed)
        return result

    def is_current(self, name: str, position: StreamPosition) -> bool:
        """Whether the next publication of the channel follows this position."""
        follower = self._followed[name].follower
        return follower is None or follower.position == position

    def arrived(self, name: str, publication: Publication, epoch: str) -> None:
        """The broker brought a publication. Nothing is raised."""
        followed = self._followed.get(name)
        if followed is None or not followed.subscribed.done():
            return  # it belongs to an earlier subscription, after which publications were missed
        try:
            if followed.follower is None:
                self._deliver(name, publication)
            else:
                self._carry_out(followed, followed.follower.arrived(publication, epoch))
        except Exception as error:
            self._boundary.failed("publication", error, channel=name)

    def forget(self, name: str) -> None:
        """Drop what is kept of a channel's history."""
        followed = self._followed.get(name)
        if followed and followed.follower:
            followed.follower.drop_buffer()

    # Gaps

    def doubt(self) -> None:
        """Compare all channels with the broker after a gap, and repair those that differ."""
        self._gap += 1
        self._comparison.begin()
        self._show_repairing()

    async def compare_forever(self) -> None:
        """Find lost publications of channels where none followed, and renew the time to live of positions."""
        await self._comparison.compare_forever()

    def _choose(self, names: list[str]) -> list[str]:
        """The channels that have a stream."""
        return [
            name for name in names if (followed := self._followed.get(name)) and followed.follower is not None
        ]

    def _compared(self, names: list[str], positions: Positions, is_after_gap: bool) -> None:
        """Repair the channels whose position at the broker is another than here."""
        for name in names:
            followed = self._followed.get(name)
            if followed is None or (follower := followed.follower) is None:
                continue
            position, found = follower.position, positions.get(name)
            if not is_after_gap:
                # While publications arrive, the two differ by those on their way.
                is_idle, followed.idle_position = position == followed.idle_position, position
                follower.forget_pages()
                if not is_idle:
                    continue
            if position is None or position == found:
                if follower.is_waiting:
                    follower.doubt()
                elif is_after_gap:
                    followed.gap = self._gap
                continue
            if is_after_gap:
                self._after_gap.add(followed)
            if follower.is_waiting:
                follower.doubt()
            else:
                followed.target = found if found and _leads_to(position, found) else None
                self._repairs.add(followed)
        self._show_repairing()

    def _settle_gap(self, followed: FollowedChannel) -> None:
        self._after_gap.discard(followed)
        self._show_repairing()

    def _show_repairing(self) -> None:
        is_repairing = self._comparison.is_running or bool(self._after_gap)
        if is_repairing != self.is_repairing:
            self.is_repairing = is_repairing
            self._repairing_changed()

    # Subscribers

    def _settle(self, followed: FollowedChannel) -> None:
        """Answer the subscribers that wait, as far as that is possible. For the others, read."""
        if followed.subscribed.done():
            # A channel without history promises nothing while the broker is away, so its subscribers succeed.
            if followed.follower and (failure := failure_of(followed.subscribed)):
                followed.fail(failure)
            followed.answer(partial(self._answer, followed))
            if followed.is_awaited and not followed.is_loading:
                self._load(followed)
        followed.limit_wait()

    def _answer(
        self, followed: FollowedChannel, since: StreamPosition | None, is_read: bool
    ) -> Opened | None:
        """The answer to a subscriber, or None if the history must be read first.

        Args:
            since: where the subscriber continues; None without recovery.
            is_read: whether a repairing read of the channel began since the subscriber waits.
        """
        follower = followed.follower
        if follower is None:
            return Opened(StreamPosition())
        if follower.position is None or follower.is_waiting:
            return None
        if since is None:
            return Opened(follower.position)
        is_ahead = since.epoch not in ("", follower.position.epoch) or since.offset > follower.position.offset
        if followed.gap != self._gap or (is_ahead and not is_read):
            # The client may have received publications from another node that this node lacks so far.
            self._carry_out(followed, follower.doubt())
            return None
        recovery = follower.recover(since)
        return None if recovery is None else Opened(follower.position, recovery)

    def _load(self, followed: FollowedChannel) -> None:
        follower = followed.follower
        assert follower is not None, "a channel without history has nothing to read"
        if follower.is_waiting:
            return  # a repair is in progress, and answers these subscribers when it is done
        followed.is_loading = True
        is_whole = followed.is_recovering
        follower.loading()
        read = self._history(followed, None, limit=-1 if is_whole else 0)
        when_done(read, partial(self._loaded, followed, follower, is_whole, self._gap))

    def _loaded(
        self,
        followed: FollowedChannel,
        follower: StreamFollower,
        is_whole: bool,
        gap: int,
        read: Future[Stream] | None,
    ) -> None:
        if self._followed.get(followed.name) is not followed:
            return
        followed.is_loading = False
        failure = failure_of(read)
        if failure is None:
            assert read is not None
            stream = read.result()
            try:
                effects = follower.loaded(stream.publications if is_whole else None, stream.top)
            except Exception as error:
                failure = error
        if failure is not None:
            self._report("load", failure, followed)
            effects = follower.load_failed()
            followed.fail(failure)
        elif follower.position == stream.top:
            followed.gap = max(followed.gap, gap)
        self._carry_out(followed, effects)
        self._settle(followed)

    # Repairs

    def _carry_out(self, followed: FollowedChannel, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(publication):
                    try:
                        self._deliver(followed.name, publication)
                    except Exception as error:
                        self._boundary.failed("deliver", error, channel=followed.name)
                        self._tell_broken(followed)
                case Read():
                    self._repair(followed)
                case Broken():
                    self._tell_broken(followed)

    def _tell_broken(self, followed: FollowedChannel) -> None:
        try:
            self._broken(followed.name)
        except Exception as error:
            self._boundary.failed("broken", error, channel=followed.name)

    def _repair(self, followed: FollowedChannel) -> None:
        """Read the history of a channel whose publications are pending."""
        self._repairs.add(followed, urgent=True)

    def _read(self, followed: FollowedChannel) -> Future[Any] | None:
        follower = followed.follower
        if follower is None or self._followed.get(followed.name) is not followed:
            return None
        if not follower.is_waiting:
            position, target = follower.position, followed.target
            if position is None or (target and _leads_to(target, position)):
                # The publications that the comparison found missing have arrived.
                self._settle_gap(followed)
                return None
            follower.doubt()
        followed.read_gap = self._gap
        followed.reads += 1
        return self._history(followed, follower.position, limit=-1)

    def _history(
        self, followed: FollowedChannel, since: StreamPosition | None, *, limit: int
    ) -> Future[Stream]:
        try:
            return self._broker.history(followed.name, since=since, limit=limit)
        except Exception as error:
            failed: Future[Stream] = self._loop.create_future()
            failed.set_exception(error)
            return failed

    def _repaired(self, followed: FollowedChannel, read: Future[Stream] | None) -> None:
        follower = followed.follower
        if follower is None or self._followed.get(followed.name) is not followed:
            return
        failure = failure_of(read)
        if failure is None:
            assert read is not None
            stream = read.result()
            try:
                effects = follower.read(stream.publications, stream.top)
            except Exception as error:
                failure = error
        if failure is not None:
            self._repair_failed(followed, follower, failure)
            return
        followed.gap = max(followed.gap, followed.read_gap)
        self._finish_repair(followed, follower, effects)

    def _repair_failed(
        self, followed: FollowedChannel, follower: StreamFollower, failure: BaseException
    ) -> None:
        self._report("repair", failure, followed)
        effects = follower.read_failed(is_counted=not self.is_broker_away)
        if not follower.is_waiting:
            self._boundary.failed("repair", failure, channel=followed.name)
            followed.gap = self._gap
            self._finish_repair(followed, follower, effects)
            return
        delay_s = RETRY_S * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        if self.is_broker_away:
            self._repairs.pause(delay_s)
        self._loop.call_later(delay_s * 2**follower.failures / 2, self._retry, followed)

    def _retry(self, followed: FollowedChannel) -> None:
        if self._followed.get(followed.name) is followed:
            self._repair(followed)

    def _finish_repair(
        self, followed: FollowedChannel, follower: StreamFollower, effects: list[FollowerEffect]
    ) -> None:
        self._carry_out(followed, effects)
        if not follower.is_waiting:
            self._settle_gap(followed)
        self._settle(followed)

    def _report(self, place: str, failure: BaseException, followed: FollowedChannel) -> None:
        """Record a failure that is not the broker's own, which the broker reports itself."""
        if not isinstance(failure, BrokerError | TimeoutError):
            self._boundary.failed(place, failure, channel=followed.name)


def _leads_to(earlier: StreamPosition, later: StreamPosition) -> bool:
    return earlier.epoch == later.epoch and earlier.offset <= later.offset
