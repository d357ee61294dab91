"""The channels of a node: publishing to them, delivering them, and who of this node's clients is in which."""

from __future__ import annotations

import asyncio
from asyncio import Future
from typing import Any

from hub.broker.base import Broker, BrokerState, HistoryPolicy
from hub.core import effects as e
from hub.core.channel.registry import Registry
from hub.core.channel.subscription import Subscription
from hub.core.rules import Rules
from hub.node.boundary import Boundary
from hub.node.connection import Connection
from hub.node.environment import Clock
from hub.node.fanout import Fanout
from hub.node.followers import Followers
from hub.node.state import NodeState
from hub.node.tasks import Tasks, known
from hub.protocol import messages as m
from hub.protocol.codes import Unsubscribes
from hub.settings import ChannelOptions


class Channels:
    """Subscribes this node's clients to channels, and delivers to them what the broker brings.

    Args:
        rules: the options of channels.
        registry: who is in which channel.
        broker: carries publications and keeps history.
        fanout: writes to subscribers.
        state: of the node.
        tasks: owns what nobody waits for.
        boundary: guards callbacks.
    """

    def __init__(
        self,
        rules: Rules,
        registry: Registry[Connection],
        broker: Broker,
        fanout: Fanout,
        state: NodeState,
        tasks: Tasks,
        clock: Clock,
        boundary: Boundary,
    ) -> None:
        self._now = clock.now
        self._rules = rules
        self._registry = registry
        self._broker = broker
        self._fanout = fanout
        self._state = state
        self._tasks = tasks
        self._boundary = boundary
        self._opening: dict[Connection, set[str]] = {}
        """Channels that were opened for a connection and are not joined yet."""
        self.followers = Followers(broker, boundary, self.deliver, self.broken, self._on_repairing, clock)

    # Publishing and delivery

    def publish(
        self,
        channel: str,
        data: m.Payload,
        *,
        info: m.ClientInfo | None = None,
        tags: dict[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> Future[m.StreamPosition]:
        """Publish to a channel whose name is valid and whose namespace is configured."""
        options = self._rules.find(channel)
        assert isinstance(options, ChannelOptions)
        if options.when_degraded == "local" and self._state.broker is not BrokerState.CONNECTED:
            self.deliver(channel, m.Publication(data, info, 0, tags))
            return known(m.StreamPosition())
        history = None
        if options.history_size and not skip_history:
            history = HistoryPolicy(options.history_size, options.history_ttl_s)
        return self._broker.publish(
            channel,
            data,
            info=info,
            tags=tags,
            history=history,
            idempotency_key=idempotency_key,
            delta=bool(options.allowed_delta_types) and (delta or options.delta_publish),
        )

    def deliver(self, channel: str, publication: m.Publication) -> None:
        """Send a publication to the subscribers of this node."""
        subscribers = self._registry.channels.get(channel)
        if subscribers is not None:
            self._fanout.publish(subscribers, publication)

    def broken(self, channel: str) -> None:
        """Publications of the channel are gone for good: tell the subscribers that follow its position."""
        self._unsubscribe_all(channel, lambda subscription: subscription.has_position)

    def out_of_date(self, channel: str) -> None:
        """Joins and leaves of the channel are gone for good: tell the subscribers that hear them."""
        self._unsubscribe_all(channel, lambda subscription: subscription.hears_joins)

    def tell_broken(self, connection: Connection, channel: str) -> None:
        """Have a client subscribe again: it can no longer be told all that it missed."""
        connection.run(connection.session.unsubscribe(channel, Unsubscribes.INSUFFICIENT_STATE, self._now()))

    def _unsubscribe_all(self, name: str, concerns: Any) -> None:
        channel = self._registry.channels.get(name)
        if channel is None:
            return
        for connection, subscription in list(channel.members()):
            if concerns(subscription):
                try:
                    self.tell_broken(connection, name)
                except Exception as error:
                    connection.fail("channel", error)

    def _on_repairing(self) -> None:
        self._state.set_repairing(self.followers.is_repairing)

    # Subscriptions

    def open(self, connection: Connection, operation: e.OpenChannel) -> Future[Any]:
        """Listen to a channel for a connection, hold back what arrives for it, then read its history."""
        options = self._rules.options(operation.channel)
        assert options is not None
        channel = self._registry.channel(operation.channel, options.slow_reader)
        channel.opening[connection] = []
        self._opening.setdefault(connection, set()).add(channel.name)
        self.followers.follow(channel.name, options.history_size)
        return self.followers.open(channel.name, operation.since)

    def open_all(self, connection: Connection, opens: tuple[e.OpenChannel, ...]) -> Future[list[Any]]:
        """Open several channels. Returns an outcome for each; at once where all are known."""
        futures = [self.open(connection, each) for each in opens]
        outcome = self._tasks.outcome
        if all(future.done() for future in futures):
            return known([outcome(future) for future in futures])

        async def gather() -> list[Any]:
            await asyncio.wait(futures)
            return [outcome(future) for future in futures]

        return self._tasks.spawn(gather())

    def on_subscribed(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription stands: send what was held back for it since the channel was opened."""
        channel = self._registry.channels[subscription.channel]
        pending = channel.opening.pop(connection)
        self._opened(connection, subscription.channel)
        self._registry.subscriptions += 1
        for publication in pending:
            if publication.offset == 0 or (
                publication.offset > subscription.offset and not subscription.is_backlogged
            ):
                subscription.offset += publication.offset > 0
                if single := subscription.single(publication):
                    connection.send(m.Reply(push=m.Push(channel=channel.name, pub=single)))
        if subscription.is_backlogged:
            channel.behind[connection] = subscription
        else:
            self.go_live(connection, subscription)

    def go_live(self, connection: Connection, subscription: Subscription) -> None:
        """Deliver the channel to a subscriber from now on: it has everything up to here."""
        channel = self._registry.channels[subscription.channel]
        channel.behind.pop(connection, None)
        self._fanout.flush(channel.group(connection.encoding, subscription))
        channel.add(connection, connection.encoding, subscription)
        position = m.StreamPosition(subscription.offset, subscription.epoch)
        if subscription.has_position and not self.followers.is_current(channel.name, position):
            # The stream broke after the client's position was read: the client was in no group to be told.
            self._boundary.soon("channel", self.tell_broken, connection, channel.name)

    def on_unsubscribed(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription is over: send what was published until now, and nothing after it."""
        channel = self._registry.channels[subscription.channel]
        if connection not in channel.behind:
            self._fanout.flush(channel.group(connection.encoding, subscription))
        channel.remove(connection, connection.encoding, subscription)
        self._registry.subscriptions -= 1
        self._release(channel.name)

    def cancel_subscribe(self, connection: Connection, name: str) -> None:
        """A channel that was opened for a connection is not joined."""
        channel = self._registry.channels.get(name)
        if channel and channel.opening.pop(connection, None) is not None:
            self._opened(connection, name)
            self._release(name)

    def cancel_all(self, connection: Connection) -> None:
        """The connection ends: none of the channels that were opened for it is joined."""
        for name in list(self._opening.get(connection, ())):
            self.cancel_subscribe(connection, name)

    def _opened(self, connection: Connection, name: str) -> None:
        opening = self._opening[connection]
        opening.discard(name)
        if not opening:
            del self._opening[connection]

    def _release(self, name: str) -> None:
        if self._registry.release(self._registry.channels[name]):
            self._tasks.forget(self.followers.unfollow(name))
