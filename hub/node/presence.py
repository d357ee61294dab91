"""Which clients are present in which channels: kept at the broker, renewed, and announced to subscribers."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hub.broker.base import Broker, BrokerState
from hub.core.channel.registry import Registry
from hub.core.channel.subscription import Subscription
from hub.node.connection import Connection
from hub.node.environment import Clock
from hub.node.fanout import Fanout
from hub.node.state import NodeState
from hub.node.tasks import Tasks
from hub.protocol import messages as m
from hub.telemetry import get_logger

PRESENCE_TTL_S: Final = 60.0
"""How long presence outlives the node that stopped renewing it."""

PRESENCE_PERIOD_S: Final = 25.0
"""How often a node renews the presence of its clients."""

RENEWALS_MAX: Final = 500
"""Renewals under way at a time: the rest waits for them."""

MISSED_MAX: Final = 10_000
"""Announcements kept that could not be made. Beyond this, subscribers are told to subscribe again."""


_log = get_logger("hub.node")


@dataclass(frozen=True, slots=True)
class _Announcement:
    info: m.ClientInfo
    is_join: bool


class _Missed:
    """Joins and leaves that were not announced: of each client in each channel what it comes to."""

    def __init__(self) -> None:
        self._by_client: OrderedDict[tuple[str, str], _Announcement] = OrderedDict()
        self.overflowed: set[str] = set()
        """Channels of which something was forgotten."""

    def add(self, channel: str, info: m.ClientInfo, *, is_join: bool) -> None:
        key = channel, info.client
        before = self._by_client.pop(key, None)
        if before is not None and before.is_join != is_join:
            return  # the client is where the subscribers believe it to be
        if len(self._by_client) >= MISSED_MAX:
            (forgotten, _), _ = self._by_client.popitem(last=False)
            self.overflowed.add(forgotten)
        self._by_client[key] = _Announcement(info, is_join)

    def forget(self, channel: str, client: str) -> None:
        self._by_client.pop((channel, client), None)

    def take(self) -> tuple[list[tuple[str, _Announcement]], set[str]]:
        missed, self._by_client = self._by_client, OrderedDict()
        overflowed, self.overflowed = self.overflowed, set()
        return [(channel, each) for (channel, _), each in missed.items()], overflowed


class Presence:
    """The presence of this node's clients, and the joins and leaves of everybody's.

    An overloaded node does not tell its subscribers of joins and leaves, and while the broker is away they
    cannot be announced. Both are made up for when that ends.

    Args:
        broker: keeps presence, and carries announcements.
        registry: the subscribers of this node.
        fanout: sends them what is announced.
        state: of the node.
        tasks: owns what nobody waits for.
        clock: of the node.
        out_of_date: is told of a channel whose subscribers missed announcements for good.
    """

    def __init__(
        self,
        broker: Broker,
        registry: Registry[Connection],
        fanout: Fanout,
        state: NodeState,
        tasks: Tasks,
        clock: Clock,
        out_of_date: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._registry = registry
        self._fanout = fanout
        self._state = state
        self._tasks = tasks
        self._clock = clock
        self._out_of_date = out_of_date
        self._renew_now = asyncio.Event()
        """Set when the broker is there again: what could not be added to presence is added now."""
        self._not_announced = _Missed()
        self._not_delivered = _Missed()

    # This node's clients

    def entered(self, client: str, subscription: Subscription) -> None:
        """A client of this node subscribed to a channel."""
        if subscription.presence:
            self._tasks.forget(self._add(client, subscription))
        if subscription.announces and not subscription.is_back:
            self._announce(subscription.channel, subscription.info, is_join=True)

    def left(self, client: str, subscription: Subscription) -> None:
        """A client of this node is not in a channel any more."""
        if subscription.presence:
            self._tasks.forget(self._broker.presence_remove(subscription.channel, client))
        if subscription.announces:
            self._announce(subscription.channel, subscription.info, is_join=False)

    async def renew_forever(self) -> None:
        """Renew the presence of all clients before it expires."""
        while True:
            period_s = PRESENCE_PERIOD_S * (2 if self._state.step else 1)
            cancel = self._clock.call_at(self._clock.now() + period_s, self._renew_now.set)
            try:
                await self._renew_now.wait()
            finally:
                cancel()
            self._renew_now.clear()
            under_way: list[Future[None]] = []
            for connection in list(self._registry.clients.values()):
                for subscription in list(connection.session.subscriptions.values()):
                    if subscription.presence:
                        under_way.append(self._add(connection.client, subscription))
                if len(under_way) >= RENEWALS_MAX:
                    await self._finish(under_way)
            await self._finish(under_way)

    async def _finish(self, under_way: list[Future[None]]) -> None:
        if under_way:
            await asyncio.wait(under_way)
            for done in under_way:
                self._tasks.outcome(done)
            under_way.clear()
        await asyncio.sleep(0)

    def _add(self, client: str, subscription: Subscription) -> Future[None]:
        return self._broker.presence_add(subscription.channel, client, subscription.info, PRESENCE_TTL_S)

    def _announce(self, channel: str, info: m.ClientInfo, *, is_join: bool) -> None:
        publish = self._broker.publish_join if is_join else self._broker.publish_leave

        def done(future: Future[Any]) -> None:
            if future.cancelled() or future.exception() is not None:
                self._tasks.outcome(future)
                self._not_announced.add(channel, info, is_join=is_join)
            else:
                self._not_announced.forget(channel, info.client)

        future = publish(channel, info)
        if future.done():
            done(future)
        else:
            future.add_done_callback(done)

    # Everybody's

    def on_join(self, channel: str, info: m.ClientInfo) -> None:
        """A client subscribed to the channel, on any node."""
        self._tell(channel, info, is_join=True)

    def on_leave(self, channel: str, info: m.ClientInfo) -> None:
        """A client left the channel, on any node."""
        self._tell(channel, info, is_join=False)

    def _tell(self, channel: str, info: m.ClientInfo, *, is_join: bool) -> None:
        subscribers = self._registry.channels.get(channel)
        if subscribers is None:
            return
        if self._state.keeps_quiet:
            self._not_delivered.add(channel, info, is_join=is_join)
        elif is_join:
            self._fanout.announce(subscribers, m.Push(channel=channel, join=m.Join(info)))
        else:
            self._fanout.announce(subscribers, m.Push(channel=channel, leave=m.Leave(info)))

    def make_up(self) -> None:
        """The state changed: make up for the announcements that it no longer stands in the way of."""
        if not self._state.keeps_quiet:
            missed, overflowed = self._not_delivered.take()
            for channel, each in missed:
                if channel not in overflowed:
                    self._tell(channel, each.info, is_join=each.is_join)
            for channel in overflowed:
                self._out_of_date(channel)
        if self._state.broker is BrokerState.CONNECTED:
            self._renew_now.set()
            missed, overflowed = self._not_announced.take()
            if overflowed:
                _log.warning("presence.not_announced", channels=len(overflowed))
            for channel, each in missed:
                self._announce(channel, each.info, is_join=each.is_join)
