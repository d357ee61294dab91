"""One channel that a node is subscribed to, and the subscribers that wait for its position."""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hub.core.channel.follower import StreamFollower
from hub.core.channel.stream import Opened
from hub.errors import BrokerError
from hub.protocol.messages import StreamPosition

OPEN_TIMEOUT_S: Final = 5.0
"""Seconds that a subscriber waits for the position of a channel. Client libraries wait about as long."""


@dataclass(slots=True, eq=False)
class FollowedChannel:
    """A channel that the node is subscribed to.

    Args:
        name: name of the channel.
        follower: of its stream; None if it keeps no history.
        subscribed: done when the broker delivers the channel.
        gap: number of the gap after which the channel was last known to be whole.
        is_loading: whether a read for subscribers is in progress.
        read_gap: number of the last gap before the repairing read in progress began.
        reads: number of repairing reads that began.
        target: where a comparison found the broker ahead. No repair is needed once the publications up to it
            have arrived. None if only a read of the history helps.
        idle_position: position at the last periodic comparison.
    """

    name: str
    follower: StreamFollower | None
    subscribed: Future[None]
    gap: int
    is_loading: bool = False
    read_gap: int = 0
    reads: int = 0
    target: StreamPosition | None = None
    idle_position: StreamPosition | None = None
    _waiting: list[tuple[Future[Opened], StreamPosition | None, int]] = field(default_factory=list)
    _timer: TimerHandle | None = None

    def wait(self, since: StreamPosition | None) -> Future[Opened]:
        """Add a subscriber that recovers from a position; None without recovery."""
        result: Future[Opened] = asyncio.get_running_loop().create_future()
        self._waiting.append((result, since, self.reads))
        return result

    @property
    def is_awaited(self) -> bool:
        """Whether subscribers wait."""
        return bool(self._waiting)

    @property
    def is_recovering(self) -> bool:
        """Whether subscribers wait that recover from a position."""
        return any(since for _, since, _ in self._waiting)

    def answer(self, find: Callable[[StreamPosition | None, bool], Opened | None]) -> None:
        """Answer the subscribers for whom an answer is found. The others wait on.

        Args:
            find: takes a subscriber's position, and whether a repairing read began since it waits.
        """
        waiting, self._waiting = self._waiting, []
        for result, since, reads in waiting:
            if result.done():
                continue
            if (answer := find(since, self.reads > reads)) is None:
                self._waiting.append((result, since, reads))
            else:
                result.set_result(answer)

    def fail(self, failure: BaseException) -> None:
        """Answer all subscribers with a `BrokerError`."""
        for result in self._take():
            result.set_exception(BrokerError(str(failure) or type(failure).__name__))

    def cancel(self) -> None:
        """Answer nobody, because the node leaves the channel."""
        for result in self._take():
            result.cancel()

    def limit_wait(self) -> None:
        """Fail the subscribers that wait after `OPEN_TIMEOUT_S`, unless a read for them ends sooner."""
        if self._waiting and not self.is_loading:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(OPEN_TIMEOUT_S, self._time_out)
        else:
            self._stop_timer()

    def _time_out(self) -> None:
        self.fail(TimeoutError(f"{self.name} is being repaired"))

    def _take(self) -> list[Future[Opened]]:
        self._stop_timer()
        waiting, self._waiting = self._waiting, []
        return [result for result, _, _ in waiting if not result.done()]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
