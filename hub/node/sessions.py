"""Sessions that outlive their socket: resuming, takeover, the disconnect grace, and revocation."""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass
from typing import Any, Final

from hub.broker.base import Broker, Resumption
from hub.core import effects as e
from hub.core.channel.registry import Registry
from hub.core.channel.subscription import Subscription
from hub.core.hooks import DisconnectEvent
from hub.node.boundary import Boundary
from hub.node.bus import Bus
from hub.node.bus_messages import OwnerChanged
from hub.node.callbacks import Callbacks
from hub.node.connection import Connection
from hub.node.environment import Clock
from hub.node.presence import Presence
from hub.node.state import STOPPED, NodeState
from hub.node.tasks import Tasks, known
from hub.node.timers import TimerWheel
from hub.protocol.codes import Disconnect, Disconnects
from hub.settings import ReconnectSettings
from hub.telemetry import Metrics, RateLimitedLog, get_logger

CLOCKS_S: Final = 60.0
"""How far the clocks of nodes may be apart: sessions are remembered so much longer than tokens are good."""

OVERTAKEN_S: Final = 10.0
"""How long a node remembers that a session ended: the message may come before the broker's earlier answer."""

_log = get_logger("hub.node")


@dataclass(slots=True, eq=False)
class _DetachedSession:
    """A session whose socket is gone, during its disconnect grace.

    Args:
        user: whose session it is.
        client: id of its client.
        owner: the socket that it was on.
        resumed_at: Unix seconds at which that socket became its owner; 0 after a login.
        subscriptions: those that others know of.
        disconnect: how the socket ended.
        state: what the app keeps of the connection.
        deadline: monotonic seconds at which the session has expired.
        sessions: ends it then.
    """

    user: str
    client: str
    owner: str
    resumed_at: float
    subscriptions: list[Subscription]
    disconnect: Disconnect
    state: Any
    deadline: float
    sessions: Sessions

    def tick(self, now: float) -> None:
        self.sessions.expire(self)

    def fail(self, place: str, error: BaseException) -> None:
        self.sessions.fail(self, place, error)


class Sessions:
    """The sessions of a node's clients.

    Args:
        settings: of reconnect tokens.
        registry: clients by id and by user.
        broker: remembers which socket owns a session.
        bus: tells the other nodes that a session has another owner, or ended.
        presence: announces that a client left its channels.
        callbacks: the app's disconnect handler.
        timers: end the disconnect grace.
        state: of the node.
        tasks: own what nobody waits for.
        clock: of the node.
        boundary: guards callbacks.
        metrics: count reconnects.
    """

    def __init__(
        self,
        settings: ReconnectSettings,
        registry: Registry[Connection],
        broker: Broker,
        bus: Bus,
        presence: Presence,
        callbacks: Callbacks,
        timers: TimerWheel,
        state: NodeState,
        tasks: Tasks,
        clock: Clock,
        boundary: Boundary,
        metrics: Metrics,
    ) -> None:
        self._now = clock.now
        self._unix = clock.unix
        self._settings = settings
        self._registry = registry
        self._broker = broker
        self._bus = bus
        self._presence = presence
        self._callbacks = callbacks
        self._timers = timers
        self._state = state
        self._tasks = tasks
        self._boundary = boundary
        self._metrics = metrics
        self._log = RateLimitedLog(_log)
        self._revoked: dict[str, float] = {}
        """By user, until when no reconnect token of before is taken."""
        self._ended: dict[str, float] = {}
        """By client, until when it is remembered that its session ended."""
        self._left: dict[Connection, list[Subscription]] = {}
        """Subscriptions of connections that are ending right now."""
        self._detached: dict[str, _DetachedSession] = {}

    @property
    def ttl_s(self) -> float:
        """How long to remember something about a session: as long as a token of it may be good."""
        return self._settings.ttl_s + CLOCKS_S

    @property
    def in_grace(self) -> int:
        """Sessions without a socket that have not expired yet."""
        return len(self._detached)

    # A client connects

    def resume(self, operation: e.ResumeSession) -> Future[Resumption]:
        """Ask whether a session is a socket's from now on."""
        if self._is_revoked(operation.user):
            return known(Resumption("revoked"))
        return self._broker.session_resume(
            operation.user, operation.client, operation.owners, operation.owner, self.ttl_s
        )

    def on_reconnected(self, connection: Connection, effect: e.Reconnected) -> None:
        """A client came with a reconnect token."""
        self._metrics.reconnects.labels(effect.outcome).inc()
        if effect.outcome in ("resumed", "repeated", "unchecked"):
            session = connection.session
            self._tell_owner(effect.client, session.session, session.presented[0])
        elif effect.outcome == "reused":
            _log.warning("reconnect.reused", client=effect.client, user=connection.user)
            self._tell_owner(effect.client, "")
        else:
            self._log.info(
                "reconnect.refused",
                kind=effect.outcome,
                client=effect.client,
                outcome=effect.outcome,
                reason=effect.reason,
            )

    def on_authenticated(self, connection: Connection) -> None:
        """A client connected."""
        self._registry.add(connection, connection.client, connection.user)
        # What the broker said may have been overtaken by a message of the bus.
        if connection.client in self._ended:
            connection.close_soon(Disconnects.STATE_INVALIDATED)
        elif connection.session.presented and self._is_revoked(connection.user):
            connection.close_soon(Disconnects.EXPIRED)
        self._metrics.connects.inc()
        _log.debug("client.connected", client=connection.client, user=connection.user)

    def _tell_owner(self, client: str, owner: str, before: str = "") -> None:
        """On every node, end the connection that a session had."""
        message = OwnerChanged(client=client, owner=owner, before=before, at=self._unix())
        self.on_owner_changed(message)
        self._bus.append_surely(message)

    def on_owner_changed(self, message: OwnerChanged) -> None:
        """A session has another owner, on this node or another; or it ended, where the owner is empty.

        A message that a broken link delayed may be older than the connection, which then stays: it has the
        session from the message's owner or a later one.
        """
        connection = self._registry.clients.get(message.client)
        if not message.owner:
            now = self._now()
            self._ended = {client: until for client, until in self._ended.items() if until > now}
            self._ended[message.client] = now + OVERTAKEN_S
            if connection is not None:
                connection.close(Disconnects.STATE_INVALIDATED)
            return
        detached = self._detached.get(message.client)
        if detached is not None and _displaces(message, detached.owner, detached.resumed_at):
            self._take(message.client)
        if connection is not None:
            session = connection.session
            if _displaces(message, session.session, session.resumed_at):
                connection.run(session.move())

    # Revocation

    def revoke_user(self, user: str) -> None:
        """Take no reconnect token of a user's that was made before. The broker knows of it already."""
        now = self._now()
        self._revoked = {each: until for each, until in self._revoked.items() if until > now}
        self._revoked[user] = now + self.ttl_s

    def revoke(self, connection: Connection) -> Future[None]:
        """Revoke every reconnect token that a client was given so far."""
        return self._broker.session_revoke(connection.user, connection.client, self.ttl_s)

    def _is_revoked(self, user: str) -> bool:
        return self._revoked.get(user, 0.0) > self._now()

    # Channels of a session

    def announce_join(self, connection: Connection, subscription: Subscription) -> None:
        """A client subscribed to a channel: tell the channel, unless it knows the client from before."""
        if subscription.announces and not subscription.is_back:
            self._remember(connection, subscription.channel, is_joined=True)
        self._presence.entered(connection.client, subscription)

    def announce_leave(self, connection: Connection, subscription: Subscription) -> None:
        """A client left a channel and its session goes on: tell the channel."""
        if subscription.announces:
            self._remember(connection, subscription.channel, is_joined=False)
        self._presence.left(connection.client, subscription)

    def _remember(self, connection: Connection, channel: str, *, is_joined: bool) -> None:
        """Have the broker remember what was announced: the client's reconnect token may be from before it."""
        if connection.session.chain is not None:
            self._tasks.forget(
                self._broker.session_announced(
                    connection.user, connection.client, channel, joined=is_joined, ttl_s=self.ttl_s
                )
            )

    # A client is gone

    def on_left(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription is over: others are told now, or once it is known whether the session goes on."""
        if connection.session.closed:
            self._left.setdefault(connection, []).append(subscription)
        else:
            self.announce_leave(connection, subscription)

    def on_closed(self, connection: Connection, disconnect: Disconnect) -> None:
        """The session of a connection is over."""
        self._metrics.disconnects.labels(disconnect.code).inc()
        session = connection.session
        if session.presented and not (session.heard or session.moved):
            self._tasks.forget(self._give_back(connection))
        subscriptions = self._left.pop(connection, [])
        if self._registry.clients.get(connection.client) is connection:
            self._registry.discard(connection, connection.client, connection.user)
            if not session.moved:
                subscriptions += [kept for kept in session.restorable.values() if kept.is_back]
                self._detach(connection, subscriptions, disconnect)
        _log.debug(
            "client.disconnected", client=connection.client, user=connection.user, code=disconnect.code
        )

    def expire_all(self) -> None:
        """The node ends: no session waits for its socket here any more."""
        for client in list(self._detached):
            if detached := self._take(client):
                self.expire(detached)

    def _detach(
        self, connection: Connection, subscriptions: list[Subscription], disconnect: Disconnect
    ) -> None:
        """A session has lost its socket. Where it may go on elsewhere, its grace begins."""
        session, grace_s = connection.session, self._settings.presence_grace_s
        detached = _DetachedSession(
            connection.user,
            connection.client,
            session.session,
            session.resumed_at,
            [each for each in subscriptions if each.presence or each.announces],
            disconnect,
            session.shared_state() if "disconnect" in self._callbacks else None,
            self._now() + grace_s,
            self,
        )
        may_return = session.chain is not None and disconnect.reconnect and not session.left
        if may_return and grace_s and self._state.phase != STOPPED:
            self._detached[detached.client] = detached
            self._timers.add(detached)
        elif session.chain is not None:
            self.expire(detached)
        else:
            self._say_goodbye(detached)

    def expire(self, detached: _DetachedSession) -> None:
        """A session has not come back, as far as this node knows."""
        self._take(detached.client)
        if not detached.subscriptions:
            self._say_goodbye(detached)
            return
        leaving = self._broker.session_leave(detached.user, detached.client, detached.owner, self.ttl_s)

        def done(future: Future[bool]) -> None:
            # An error counts too: whether the session goes on elsewhere cannot be known then.
            if self._tasks.outcome(future):
                self._say_goodbye(detached)

        leaving.add_done_callback(self._boundary.guard("session", done))
        self._tasks.last(leaving)

    def fail(self, detached: _DetachedSession, place: str, error: BaseException) -> None:
        """Expiring a session raised: its end is announced all the same."""
        self._boundary.failed(place, error, client=detached.client)
        self._take(detached.client)
        self._say_goodbye(detached)

    def _take(self, client: str) -> _DetachedSession | None:
        detached = self._detached.pop(client, None)
        if detached is not None:
            self._timers.discard(detached)
        return detached

    def _say_goodbye(self, detached: _DetachedSession) -> None:
        for subscription in detached.subscriptions:
            self._presence.left(detached.client, subscription)
        if "disconnect" in self._callbacks:
            reason = detached.disconnect
            event = DisconnectEvent(
                detached.client, detached.user, reason.code, reason.reason, state=detached.state
            )
            self._tasks.last(self._callbacks.call(event))

    def _give_back(self, connection: Connection) -> Future[Any]:
        """The client may not know that it was connected: what it came with is good again for a while."""
        return self._broker.session_leave(
            connection.user,
            connection.client,
            connection.session.session,
            self.ttl_s,
            before=connection.session.presented[0],
        )


def _displaces(message: OwnerChanged, socket: str, resumed_at: float) -> bool:
    """Whether a socket has lost its session to the owner that a message names.

    Args:
        socket: that had the session, as far as this node knows.
        resumed_at: Unix seconds since which it had the session.
    """
    return socket != message.owner and (socket == message.before or resumed_at <= message.at)
