"""The broker of a hub under test: in memory, with a record of publications, and able to be away."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any, Final

from hub.broker.base import BrokerCallbacks, BrokerState, HistoryPolicy
from hub.broker.memory import MemoryBroker
from hub.client.values import Publication
from hub.errors import BrokerError
from hub.protocol.messages import ClientInfo, Payload, StreamPosition
from hub.protocol.payloads import value
from hub.testing.clock import ManualClock

_AWAY: Final = "Redis is away, in a test"


class StandInBroker(MemoryBroker):
    """A `MemoryBroker` that stands in for Redis.

    Args:
        clock: of the test.
        published: gets what the app publishes, by channel.
        started: called before the broker starts.
        stopped: awaited after it has stopped.
    """

    def __init__(
        self,
        clock: ManualClock,
        published: dict[str, list[Publication]],
        started: Callable[[StandInBroker], None],
        stopped: Callable[[StandInBroker], Awaitable[None]],
    ) -> None:
        super().__init__(clock=clock.now, wall_clock=clock.unix)
        self._published = published
        self._started = started
        self._stopped = stopped
        self._is_away = False

    async def start(self, node: str, callbacks: BrokerCallbacks) -> None:
        self._started(self)
        await super().start(node, callbacks)

    async def stop(self) -> None:
        await super().stop()
        await self._stopped(self)

    def go_away(self) -> None:
        """Be as a Redis that does not answer: every call fails, until `come_back`."""
        self._is_away = True
        self._callbacks.state(BrokerState.DISCONNECTED, _AWAY)

    def come_back(self) -> None:
        """Answer again. The node compares its channels, as after every broken connection to Redis."""
        self._is_away = False
        self._callbacks.state(BrokerState.CONNECTED, "")
        self._callbacks.gap()

    def subscribe(self, channel: str) -> Future[None]:
        subscribed = super().subscribe(channel)
        return _failed() if self._is_away else subscribed

    def publish(
        self,
        channel: str,
        data: Payload,
        *,
        info: ClientInfo | None = None,
        tags: dict[str, str] | None = None,
        history: HistoryPolicy | None = None,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> Future[StreamPosition]:
        if self._is_away:
            return _failed()
        sent = self._idempotent.get((channel, idempotency_key))
        is_repeat = bool(idempotency_key) and sent is not None and sent[0] > self._clock()
        position = super().publish(
            channel,
            data,
            info=info,
            tags=tags,
            history=history,
            idempotency_key=idempotency_key,
            delta=delta,
        )
        if info is None and not is_repeat:
            offset = position.result().offset
            publication = Publication(value(data), offset, None, tags or {}, int(self._wall_clock() * 1000))
            self._published.setdefault(channel, []).append(publication)
        return position


def _failed() -> Future[Any]:
    future: Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(BrokerError(_AWAY))
    future.exception()  # a caller need not look at the failure
    return future


def _unless_away(call: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """A call of the `MemoryBroker` that fails while the broker is away."""

    def answer(self: StandInBroker, *args: Any, **kwargs: Any) -> Future[Any]:
        return _failed() if self._is_away else call(self, *args, **kwargs)

    return answer


for _call in (
    MemoryBroker.publish_join,
    MemoryBroker.publish_leave,
    MemoryBroker.history,
    MemoryBroker.positions,
    MemoryBroker.history_remove,
    MemoryBroker.presence_add,
    MemoryBroker.presence_remove,
    MemoryBroker.presence,
    MemoryBroker.session_resume,
    MemoryBroker.session_leave,
    MemoryBroker.session_announced,
    MemoryBroker.session_revoke,
    MemoryBroker.send_bus,
    MemoryBroker.append_bus,
    MemoryBroker.read_bus,
):
    setattr(StandInBroker, _call.__name__, _unless_away(_call))
