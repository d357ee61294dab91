"""Carries out what sessions decide, in the order of their decisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hub.core.effects import (
    AnnounceLeave,
    Authenticated,
    CancelSubscribe,
    Close,
    Effect,
    Reconnected,
    Refused,
    Run,
    Send,
    SubscriptionEnded,
    SubscriptionStarted,
)
from hub.core.session.state import REPLY_ROOM_BYTES
from hub.node.backfill import Backfill
from hub.node.boundary import Boundary
from hub.node.channels import Channels
from hub.node.connection import Connection
from hub.node.metrics import count_reply
from hub.node.operations import Operations
from hub.node.presence import Presence
from hub.node.refusals import Refusals
from hub.node.sessions import Sessions
from hub.node.tasks import Tasks
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.messages import PING
from hub.telemetry import Metrics


class Effects:
    """Hands each effect to its owner.

    Args:
        now: monotonic seconds.
        flush: lets the broker's calls of this turn leave.
        channels: subscriptions.
        backfill: subscriptions that missed more than a reply holds.
        presence: joins and leaves.
        sessions: clients that come and go.
        operations: what takes time.
        tasks: turn outcomes into answers.
        boundary: records what an owner raises.
        refusals: counts and logs refusals.
        metrics: count replies.
    """

    def __init__(
        self,
        now: Callable[[], float],
        flush: Callable[[], None],
        channels: Channels,
        backfill: Backfill,
        presence: Presence,
        sessions: Sessions,
        operations: Operations,
        tasks: Tasks,
        boundary: Boundary,
        refusals: Refusals,
        metrics: Metrics,
    ) -> None:
        self._now = now
        self._flush = flush
        self._channels = channels
        self._backfill = backfill
        self._presence = presence
        self._sessions = sessions
        self._execute = operations.execute
        self._outcome = tasks.outcome
        self._boundary = boundary
        self._refusals = refusals
        self._metrics = metrics

    def carry_out(self, connection: Connection, effects: list[Effect]) -> None:
        """Carry out effects. What an operation comes to at once goes behind them.

        An effect that raises ends the connection, once the others are carried out.
        """
        failed = False
        for effect in effects:
            try:
                match effect:
                    case Send(reply):
                        if reply.publish is not None:
                            self._metrics.sent["publish"] += 1
                        else:
                            count_reply(self._metrics, reply)
                        if reply is PING:
                            connection.write(connection.encoding.ping)
                        else:
                            connection.add(reply)
                    case Run(operation, ticket):
                        future = self._execute(connection, operation)
                        if future.done():
                            outcome = self._outcome(future)
                            effects += connection.session.resume(ticket, outcome, self._now())
                        else:
                            future.add_done_callback(partial(self._resume, connection, ticket))
                    case Close(disconnect):
                        self._close(connection, disconnect)
                    case _:
                        self._tell(connection, effect)
            except Exception as error:
                self._boundary.failed("effect", error, client=connection.client)
                failed = True
        if failed and not connection.session.closed:
            connection.close(Disconnects.INTERNAL_ERROR)

    def _tell(self, connection: Connection, effect: Effect) -> None:
        match effect:
            case SubscriptionStarted(subscription):
                self._make_room(connection)
                self._channels.on_subscribed(connection, subscription)
                if subscription.is_backlogged:
                    self._backfill.begin(connection, subscription)
                self._sessions.announce_join(connection, subscription)
            case SubscriptionEnded(subscription):
                self._backfill.end(connection, subscription.channel)
                self._channels.on_unsubscribed(connection, subscription)
                self._sessions.on_left(connection, subscription)
                if not connection.session.closed:
                    self._flush()  # a read of presence after the reply shows that the client left
            case AnnounceLeave(subscription):
                self._sessions.announce_leave(connection, subscription)
            case CancelSubscribe(channel):
                self._channels.cancel_subscribe(connection, channel)
            case Refused():
                self._refusals.client(connection.client, connection.user, effect)
            case Authenticated():
                self._sessions.on_authenticated(connection)
            case Reconnected():
                self._sessions.on_reconnected(connection, effect)

    def _make_room(self, connection: Connection) -> None:
        """Write recovered publications, so that the next reply has room for more."""
        if connection.session.reply_room < REPLY_ROOM_BYTES:
            connection.flush()
            if not connection.is_backlogged:
                connection.session.reply_room = REPLY_ROOM_BYTES

    def _close(self, connection: Connection, disconnect: Disconnect) -> None:
        # Each step, whatever the one before raised: a closed connection must be in no table of the node.
        try:
            connection.end(disconnect)
        finally:
            try:
                self._channels.cancel_all(connection)
            finally:
                try:
                    self._sessions.on_closed(connection, disconnect)
                finally:
                    connection.transport.close(disconnect)

    def _resume(self, connection: Connection, ticket: int, future: object) -> None:
        connection.resume(ticket, self._outcome(future))  # type: ignore[arg-type]  # partial loses the type
