"""One node: runs what sessions decide, and delivers what the broker brings."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from asyncio import Future
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from hub.broker.base import Broker, BrokerCallbacks, BrokerState, HistoryPolicy, Resumption
from hub.core import effects as e
from hub.core.channel.deltas import Deltas
from hub.core.channel.registry import Registry
from hub.core.channel.subscription import Subscription
from hub.core.hooks import DisconnectEvent, Event
from hub.core.overload import Step
from hub.core.rates import Rates
from hub.core.rules import Rules
from hub.core.session.session import Session
from hub.core.session.state import Context
from hub.core.tokens import Invalid, UnknownKey
from hub.errors import BrokerError
from hub.node.admission import Addresses
from hub.node.authenticator import Authenticator, Verdict, reconnect_tokens
from hub.node.backfill import Backfill
from hub.node.boundary import Boundary
from hub.node.callbacks import Handler, ask
from hub.node.connection import Connection
from hub.node.fanout import Fanout
from hub.node.followers import Streams
from hub.node.grace import Departed, DisconnectGrace
from hub.node.outboxes import Outboxes
from hub.node.overload import OverloadMonitor
from hub.node.queue import Door
from hub.node.timers import TimerWheel
from hub.node.transport import Transport
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Errors, Unsubscribes
from hub.settings import ChannelOptions, Settings
from hub.telemetry import LIMIT_LOG_PERIOD_S, LimitLog, Metrics, RateLimitedLog, get_logger

PRESENCE_TTL_S: Final = 60.0
"""How long presence outlives the node that stopped renewing it."""

PRESENCE_PERIOD_S: Final = 25.0
"""How often a node renews the presence of its clients."""

STOPPED: Final = "stopped"
"""The state of a node that has not started, or has ended. The others are `telemetry.STATES`."""

_SERVING: Final = "serving"
_DRAINING: Final = "draining"

COMPARE_PERIOD_S: Final = 25.0
"""How often, on average, a node compares the positions of its idle channels with the broker's."""

CLOCKS_S: Final = 60.0
"""How far the clocks of nodes may be apart: sessions are remembered so much longer than tokens are good."""

OVERTAKEN_S: Final = 10.0
"""How long a node remembers that a session ended: the word may come before the broker's answer of before."""

_PRESENCE_STEP: Final = 1_000
_COMPARE_STEP: Final = 500

_T = TypeVar("_T")
_log = get_logger("hub.node")


class Node:
    """The connections of one process, and their way to the other nodes.

    Args:
        settings: limits, channels and keys.
        broker: how nodes reach each other.
        handlers: of the app, by event: connect, subscribe, publish, rpc, message, disconnect.
        metrics: what is counted.
        version: of the hub, told to clients.

    Raises:
        SettingsError: a key in the settings is none.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        handlers: Mapping[str, Handler],
        metrics: Metrics,
        version: str,
    ) -> None:
        self.id: Final = secrets.token_hex(8)
        self.version: Final = version
        self.settings = settings
        self.broker = broker
        self.metrics = metrics
        self.boundary = Boundary(metrics)
        self.rules = Rules(settings.channels, settings.client.channel_bytes_max)
        self.registry: Registry[Connection] = Registry()
        self.connections: set[Connection] = set()
        self.sessions: dict[str, Connection] = {}
        """By session, the connections whose commands come in requests of their own."""
        self.wheel = TimerWheel()
        self.lingering = DisconnectGrace(self.wheel)
        self.outboxes = Outboxes(settings.client.outboxes_bytes_max)
        self.deltas = Deltas()
        self.fanout = Fanout(metrics, self.deltas)
        self.streams = Streams(broker, self._deliver, self._broken)
        self.backfill = Backfill(self.streams, self.deltas, metrics, self._go_live, self._tell_broken)
        self.addresses = Addresses(settings.server)
        self.door = Door(settings.server.handshakes_max)
        self.load = OverloadMonitor(settings, self.outboxes, metrics, self._show_state)
        self.started_at = time.time()
        self.link = BrokerState.CONNECTED
        self.hear: Callable[[bytes, str], None] = _ignore
        self.tell_over: Callable[[str, str], Future[int]] | None = None
        self._phase = STOPPED
        self._revoked: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._limit_log = LimitLog()
        self._log = RateLimitedLog(_log)
        self._failure_told_at = -math.inf
        self._handlers = handlers
        self._auth = Authenticator(settings.client)
        self._opening: dict[Connection, set[str]] = {}
        self._left: dict[Connection, list[Subscription]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._farewells: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            StartupError: the broker cannot work as it is configured.
        """
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.context = Context(
            self.settings.client,
            Rates(self.settings.client),
            self.rules,
            frozenset(self._handlers),
            self.id,
            self.version,
            self.deltas,
            reconnect_tokens(self.settings, self.broker),
        )
        if self.context.reconnect is None:
            _log.warning("reconnect.no_keys")
        self.fanout.start()
        self.streams.start()
        self.wheel.start()
        await self._auth.start()
        await self.broker.start(self.id, self._callbacks())
        self._spawn(self._renew_presence())
        self._spawn(self._compare_positions())
        self.load.start()
        self._phase = _SERVING
        self._show_state()
        if self.settings.client.insecure:
            _log.warning("hub.insecure")

    async def stop(self) -> None:
        """End every connection that is left, and what runs in the background."""
        self._phase = STOPPED
        self.load.stop()
        await self.end_clients()
        self.wheel.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._auth.stop()
        await self.broker.stop()

    async def end_clients(self) -> None:
        """End every connection that is left, and wait for the app's disconnect handlers."""
        for connection in list(self.connections):
            connection.close(Disconnects.SHUTDOWN)
        for departed in self.lingering.take_all():
            self._lapse(departed)
        while self._farewells:
            await asyncio.wait(self._farewells)

    def begin_draining(self) -> None:
        """Take nobody in any more. The drain sends those away who are there."""
        self._phase = _DRAINING
        self._show_state()

    @property
    def state(self) -> str:
        """The named state: one of `telemetry.STATES`, or `STOPPED`."""
        if self._phase != _SERVING:
            return self._phase
        if self.load.step:
            return "overloaded"
        return "healthy" if self.link is BrokerState.CONNECTED else "degraded"

    def _show_state(self) -> None:
        if self._phase != STOPPED:
            self.metrics.state.state(self.state)

    @property
    def is_serving(self) -> bool:
        """Whether new connections are welcome. With the broker away they are: no other node fares better."""
        return (
            self._phase == _SERVING
            and self.load.step < Step.ADMISSION
            and self.link is not BrokerState.NOT_RECEIVING
        )

    def on_state(self, state: BrokerState, reason: str) -> None:
        self.link = state
        self._show_state()
        if state is BrokerState.CONNECTED:
            _log.info("broker.link", state=state.value, reason=reason)
        else:
            _log.warning("broker.link", state=state.value, reason=reason)

    def refusal(self, address: str) -> str:
        """Why one more connection is not taken: the node's state or a limit; empty where it is.

        Args:
            address: of the peer; empty where it has none.
        """
        if not self.is_serving:
            reason = self.state
        elif self.addresses.has_room(address):
            return ""
        else:
            reason = "connections_per_address_max"
            self._limit_log.met(reason, self.settings.server.connections_per_address_max)
        self.metrics.refusals.labels(reason).inc()
        return reason

    def accept(
        self,
        transport: Transport,
        headers: Mapping[str, str],
        address: str = "",
        *,
        one_way: bool = False,
        emulated: bool = False,
    ) -> Connection:
        """A socket was accepted: begin its session. The transport calls what is returned from now on.

        Args:
            transport: the socket.
            headers: of its handshake.
            address: of the peer; empty where it has none.
            one_way: whether the client sends nothing but its connect command.
            emulated: whether what it sends after that comes in requests of their own, to `take`.
        """
        now = self.now()
        session = Session(
            self.context,
            client=secrets.token_hex(16),
            session=secrets.token_hex(16),
            headers=headers if "connect" in self._handlers else {},
            now=now,
            unix_offset_s=time.time() - now,
            jitter=secrets.randbelow(1024) / 1024,
            one_way=one_way,
        )
        connection = Connection(self, session, transport)
        self.connections.add(connection)
        self.addresses.entered(connection, address)
        if emulated:
            self.sessions[session.session] = connection
        return connection

    def take(self, session: str, data: bytes) -> bool:
        """Take a message of a client whose connection carries none. Returns whether it is on this node."""
        connection = self.sessions.get(session)
        if connection is None:
            return False
        if connection.session.in_progress > self.settings.client.commands_max:
            # A socket would not be read from for now; requests come all the same.
            connection.close(Disconnects.TOO_MANY_REQUESTS)
        else:
            connection.on_messages((data,))
        return True

    # What a connection needs done

    def execute(self, connection: Connection, operation: e.Operation) -> Future[Any]:
        """Begin an operation of a session."""
        match operation:
            case e.Publish():
                return self.publish(
                    operation.channel,
                    operation.data,
                    info=operation.info,
                    tags=operation.tags,
                    skip_history=operation.skip_history,
                )
            case e.Open():
                return self._open(connection, operation)
            case e.OpenAll(opens):
                return self._all([self._open(connection, each) for each in opens])
            case e.ReadHistory(channel, limit, since, reverse):
                return self.broker.history(channel, since=since, limit=limit, reverse=reverse)
            case e.ReadPresence(channel):
                return self.broker.presence(channel)
            case e.Verify():
                return self._verify(connection, operation)
            case e.Ask(event):
                return self._spawn(self.ask(event))
            case e.Enter():
                return self._enter()
            case e.Admit(user, client):
                return self._known(self._admit(user, client))
            case e.Resume(user, client, owners, owner):
                if self._is_revoked(user):
                    return self._known(Resumption("revoked"))
                return self.broker.session_resume(user, client, owners, owner, self.session_ttl_s)

    def flush(self) -> None:
        self.broker.flush()

    def _enter(self) -> Future[Disconnect | None]:
        if (refusal := self._closed()) or self.door.connects.passes():
            return self._known(refusal)
        turn: Future[Disconnect | None] = self._loop.create_future()
        if not self.door.connects.wait(lambda: turn.set_result(None), self.now()):
            self.metrics.refusals.labels("handshakes_max").inc()
            self._limit_log.met("handshakes_max", self.settings.server.handshakes_max)
            return self._known(Disconnects.TOO_MANY_REQUESTS)
        return turn

    def _closed(self) -> Disconnect | None:
        """What a client is told where the node takes nobody in."""
        if self._phase == _DRAINING:
            return Disconnects.SHUTDOWN
        return Disconnects.TOO_MANY_REQUESTS if self.load.step >= Step.ADMISSION else None

    def _admit(self, user: str, client: str) -> Disconnect | None:
        if refusal := self._closed():
            return refusal
        most = self.settings.client.connections_per_user_max
        present = self.registry.users.get(user, {})
        if most and user and len(present) - (client in present) >= most:
            self._limit_log.met("connections_per_user_max", most)
            return Disconnects.CONNECTION_LIMIT
        return None

    def _verify(self, connection: Connection, operation: e.Verify) -> Future[Any]:
        verdict = self._auth.check(operation)
        if isinstance(verdict, UnknownKey):
            return self._spawn(self._verify_later(connection, operation))
        self._note_verdict(connection, verdict)
        return self._known(verdict)

    async def _verify_later(self, connection: Connection, operation: e.Verify) -> Verdict:
        verdict = await self._auth.check_later(operation)
        self._note_verdict(connection, verdict)
        return verdict

    def _note_verdict(self, connection: Connection, verdict: Verdict) -> None:
        """Count and log a token that was refused."""
        if isinstance(verdict, Invalid):
            self.metrics.refusals.labels("token").inc()
            self._log.info("client.token_refused", client=connection.client, reason=verdict.reason)

    def outcome(self, done: Future[Any]) -> Any:
        """What a session is told of an operation that is over: its result, or an error to answer with."""
        failure = done.exception()
        if failure is None:
            return done.result()
        self.metrics.broker_errors.inc()
        if isinstance(failure, BrokerError):
            self._tell_failure(str(failure))
        else:
            _log.error("broker.failed", reason=repr(failure), exc_info=failure)
        return Errors.INTERNAL

    def _tell_failure(self, reason: str) -> None:
        """Log what the broker could not do: now and then, and not while `broker.link` has said why."""
        now = self.now()
        if self.link is BrokerState.CONNECTED and now >= self._failure_told_at + LIMIT_LOG_PERIOD_S:
            self._failure_told_at = now
            _log.warning("broker.failed", reason=reason)

    # Sessions that go on

    @property
    def session_ttl_s(self) -> float:
        """How long what is known of a session is of use: as long as a token of it may be good on any node."""
        return self.settings.client.reconnect.ttl_s + CLOCKS_S

    def reconnected(self, connection: Connection, back: e.Reconnected) -> None:
        """A client came with a reconnect token."""
        self.metrics.reconnects.labels(back.outcome).inc()
        if back.outcome in ("resumed", "repeated", "unchecked"):
            self._over(back.client, connection.session.session)
        elif back.outcome == "reused":
            _log.warning("reconnect.reused", client=back.client, user=connection.user)
            self._over(back.client, "")
        else:
            self._log.info(
                "reconnect.refused",
                kind=back.outcome,
                client=back.client,
                outcome=back.outcome,
                reason=back.reason,
            )

    def _over(self, client: str, owner: str) -> None:
        """On every node, end the connection that a session had."""
        self.session_over(client, owner)
        if self.tell_over:
            self._background(self.tell_over(client, owner))

    def session_over(self, client: str, owner: str) -> None:
        """End the connection that a session had here.

        Args:
            client: id of the session's client.
            owner: the socket that has the session now; empty where it ended.
        """
        connection = self.registry.clients.get(client)
        if not owner:
            now = self.now()
            self._ended = {each: until for each, until in self._ended.items() if until > now}
            self._ended[client] = now + OVERTAKEN_S
            if connection is not None:
                connection.close(Disconnects.STATE_INVALIDATED)
            return
        self.lingering.take(client)
        if connection is not None and connection.session.session != owner:
            connection.run(connection.session.move())

    def revoke(self, user: str) -> None:
        """Take no reconnect token of a user's that was made before. The broker knows of it already."""
        now = self.now()
        self._revoked = {each: until for each, until in self._revoked.items() if until > now}
        self._revoked[user] = now + self.session_ttl_s

    def revoke_session(self, connection: Connection) -> None:
        """Take no token that a client was given so far."""
        self._background(self.broker.session_revoke(connection.user, connection.client, self.session_ttl_s))

    def _is_revoked(self, user: str) -> bool:
        return self._revoked.get(user, 0.0) > self.now()

    def welcome(self, connection: Connection) -> None:
        """A client connected."""
        self.registry.add(connection)
        # What the broker said may have been overtaken.
        if connection.client in self._ended:
            self.close_soon(connection, Disconnects.STATE_INVALIDATED)
        elif connection.session.presented and self._is_revoked(connection.user):
            self.close_soon(connection, Disconnects.EXPIRED)
        self.metrics.connects.inc()
        _log.debug("client.connected", client=connection.client, user=connection.user)

    def join(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription stands: send what was missed or held back, then go on live."""
        channel = self.registry.channels[subscription.channel]
        held = channel.opening.pop(connection)
        self._opened(connection, subscription.channel)
        self.registry.subscriptions += 1
        for publication in held:
            if publication.offset == 0 or (
                publication.offset > subscription.offset and not subscription.is_backlogged
            ):
                subscription.offset += publication.offset > 0
                if single := subscription.single(publication):
                    connection.send(m.Reply(push=m.Push(channel=channel.name, pub=single)))
        if subscription.is_backlogged:
            channel.behind[connection] = subscription
            self.backfill.begin(connection, subscription)
        else:
            self._go_live(connection, subscription)
        if subscription.presence:
            self._background(self._add_presence(channel.name, connection.client, subscription))
        if subscription.announces and not subscription.is_back:
            self._background(self.broker.publish_join(channel.name, subscription.info))

    def _go_live(self, connection: Connection, subscription: Subscription) -> None:
        channel = self.registry.channels[subscription.channel]
        channel.behind.pop(connection, None)
        self.fanout.flush(channel.group(connection, subscription))
        channel.add(connection, subscription)
        position = m.StreamPosition(subscription.offset, subscription.epoch)
        if subscription.has_position and not self.streams.is_current(channel.name, position):
            # The stream broke after the client's position was read: it was in no group to be told.
            self._loop.call_soon(self._tell_broken, connection, channel.name)

    def leave(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription is over: send what was published until now, and nothing after it."""
        channel = self.registry.channels[subscription.channel]
        if connection in channel.behind:
            self.backfill.end(connection, channel.name)
        else:
            self.fanout.flush(channel.group(connection, subscription))
        channel.remove(connection, subscription)
        self.registry.subscriptions -= 1
        if connection.session.closed:
            self._left.setdefault(connection, []).append(subscription)
        else:
            self.depart(connection.client, subscription)
        self._release(channel.name)

    def depart(self, client: str, subscription: Subscription) -> None:
        """A client is not in a channel any more: those who are there are told."""
        if subscription.presence:
            self._background(self.broker.presence_remove(subscription.channel, client))
        if subscription.announces:
            self._background(self.broker.publish_leave(subscription.channel, subscription.info))

    def abandon(self, connection: Connection, name: str) -> None:
        """A channel that was opened is not joined."""
        channel = self.registry.channels.get(name)
        if channel and channel.opening.pop(connection, None) is not None:
            self._opened(connection, name)
            self._release(name)

    def part(self, connection: Connection, disconnect: Disconnect) -> None:
        """A session is over."""
        for name in list(self._opening.get(connection, ())):
            self.abandon(connection, name)
        self.wheel.discard(connection)
        self.metrics.disconnects.labels(disconnect.code).inc()
        session = connection.session
        if session.presented and not (session.heard or session.moved):
            self._background(self._give_back(connection))
        subscriptions = self._left.pop(connection, [])
        if self.registry.clients.get(connection.client) is connection:
            self.registry.discard(connection)
            if not session.moved:
                subscriptions += [kept for kept in session.kept.values() if kept.is_back]
                self._departed(connection, subscriptions, disconnect)
        _log.debug(
            "client.disconnected", client=connection.client, user=connection.user, code=disconnect.code
        )

    def _departed(
        self, connection: Connection, subscriptions: list[Subscription], disconnect: Disconnect
    ) -> None:
        """A session has lost its socket: it lingers where it may go on elsewhere."""
        session, grace_s = connection.session, self.settings.client.reconnect.presence_grace_s
        departed = Departed(
            connection.user,
            connection.client,
            session.session,
            [each for each in subscriptions if each.presence or each.announces],
            disconnect,
            self.now() + grace_s,
            self._lapse,
        )
        may_return = session.chain is not None and disconnect.reconnect and not session.left
        if may_return and grace_s and self._phase != STOPPED:
            self.lingering.add(departed)
        elif session.chain is not None:
            self._lapse(departed)
        else:
            self._say_goodbye(departed)

    def _lapse(self, departed: Departed) -> None:
        """A session has not come back, as far as this node knows."""
        self.lingering.take(departed.client)
        if not departed.subscriptions:
            self._say_goodbye(departed)
            return
        self._last_word(self._leave_session(departed))

    async def _leave_session(self, departed: Departed) -> None:
        leaving = self.broker.session_leave(
            departed.user, departed.client, departed.owner, self.session_ttl_s
        )
        await asyncio.wait([leaving])
        if self.outcome(leaving):  # an error, too: whether it goes on elsewhere cannot be known
            self._say_goodbye(departed)

    def _say_goodbye(self, departed: Departed) -> None:
        for subscription in departed.subscriptions:
            self.depart(departed.client, subscription)
        if "disconnect" in self._handlers:
            reason = departed.disconnect
            event = DisconnectEvent(departed.client, departed.user, reason.code, reason.reason)
            self._last_word(self.ask(event))

    def _last_word(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have a node that ends wait for this."""
        task = self._spawn(work)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    def _give_back(self, connection: Connection) -> Future[bool]:
        """The client may not know that it was connected: what it came with is good again for a while."""
        return self.broker.session_leave(
            connection.user,
            connection.client,
            connection.session.session,
            self.session_ttl_s,
            before=connection.session.presented[0],
        )

    def forget(self, connection: Connection) -> None:
        """A socket is gone."""
        self.connections.discard(connection)
        if self.sessions.get(connection.session.session) is connection:
            del self.sessions[connection.session.session]
        self.addresses.left(connection)

    def resumed(self, connection: Connection) -> None:
        """A socket that was behind takes bytes again."""
        self.backfill.resume(connection)

    def close_soon(self, connection: Connection, disconnect: Disconnect) -> None:
        """End a connection at the next turn of the loop."""
        self._loop.call_soon(connection.close, disconnect)

    # Channels

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
        """Publish to a channel that is well named and configured."""
        options = self.rules.find(channel)
        assert isinstance(options, ChannelOptions)
        if self.link is not BrokerState.CONNECTED and options.when_degraded == "local":
            self._deliver(channel, m.Publication(data, info, 0, tags))
            return self._known(m.StreamPosition())
        return self.broker.publish(
            channel,
            data,
            info=info,
            tags=tags,
            history=None if skip_history else _history(options),
            idempotency_key=idempotency_key,
            delta=bool(options.allowed_delta_types) and (delta or options.delta_publish),
        )

    def on_publication(self, channel: str, publication: m.Publication, epoch: str) -> None:
        self.streams.arrived(channel, publication, epoch)

    def on_bus(self, message: bytes, entry: str) -> None:
        self.hear(message, entry)

    def on_ignored(self, reason: str) -> None:
        self._tell_failure(reason)

    def _callbacks(self) -> BrokerCallbacks:
        guard = self.boundary.guard
        return BrokerCallbacks(
            publication=guard("publication", self.on_publication),
            join=guard("join", self.on_join),
            leave=guard("leave", self.on_leave),
            bus=guard("bus", self.on_bus),
            caught_up=guard("caught_up", self.on_caught_up),
            gap=guard("gap", self.on_gap),
            state=guard("state", self.on_state),
            ignored=guard("ignored", self.on_ignored),
        )

    def on_caught_up(self) -> None:
        self.fanout.caught_up()

    def on_gap(self) -> None:
        self.streams.doubt()

    def _deliver(self, channel: str, publication: m.Publication) -> None:
        subscribers = self.registry.channels.get(channel)
        if subscribers is not None:
            self.fanout.publish(subscribers, publication)

    def _broken(self, channel: str) -> None:
        """Publications of the channel are gone for good: those who follow its position are told."""
        subscribers = self.registry.channels.get(channel)
        for connection, subscription in list(subscribers.members()) if subscribers else ():
            if subscription.has_position:
                self._tell_broken(connection, channel)

    def _tell_broken(self, connection: Connection, channel: str) -> None:
        connection.run(connection.session.unsubscribe(channel, Unsubscribes.INSUFFICIENT_STATE, self.now()))

    def on_join(self, channel: str, info: m.ClientInfo) -> None:
        subscribers = self.registry.channels.get(channel)
        if subscribers is not None and not self.load.step:
            self.fanout.tell(subscribers, m.Push(channel=channel, join=m.Join(info)))

    def on_leave(self, channel: str, info: m.ClientInfo) -> None:
        subscribers = self.registry.channels.get(channel)
        if subscribers is not None and not self.load.step:
            self.fanout.tell(subscribers, m.Push(channel=channel, leave=m.Leave(info)))

    def _open(self, connection: Connection, operation: e.Open) -> Future[Any]:
        options = self.rules.options(operation.channel)
        assert options is not None
        channel = self.registry.channel(operation.channel, options.slow_reader)
        channel.opening[connection] = []
        self._opening.setdefault(connection, set()).add(channel.name)
        self.streams.follow(channel.name, options.history_size)
        return self.streams.open(channel.name, operation.since)

    def _opened(self, connection: Connection, name: str) -> None:
        opening = self._opening[connection]
        opening.discard(name)
        if not opening:
            del self._opening[connection]

    def _release(self, name: str) -> None:
        if self.registry.release(self.registry.channels[name]):
            self._background(self.streams.unfollow(name))

    async def _compare_positions(self) -> None:
        """Find what was lost on the way to channels where nothing came after it."""
        while True:
            await asyncio.sleep(COMPARE_PERIOD_S * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            names = self.streams.idle()
            for start in range(0, len(names), _COMPARE_STEP):
                with suppress(BrokerError):
                    self.streams.compare(await self.broker.positions(names[start : start + _COMPARE_STEP]))

    # Presence

    def _add_presence(self, channel: str, client: str, subscription: Subscription) -> Future[None]:
        return self.broker.presence_add(channel, client, subscription.info, PRESENCE_TTL_S)

    async def _renew_presence(self) -> None:
        while True:
            await asyncio.sleep(PRESENCE_PERIOD_S * (2 if self.load.step else 1))
            renewed = 0
            for connection in list(self.connections):
                for subscription in list(connection.session.subscriptions.values()):
                    if subscription.presence:
                        self._background(
                            self._add_presence(subscription.channel, connection.client, subscription)
                        )
                        renewed += 1
                if renewed >= _PRESENCE_STEP:
                    renewed = 0
                    await asyncio.sleep(0)

    async def ask(self, event: Event) -> Any:
        """What the app answers to an event that it handles."""
        return await ask(self._handlers, event)

    # Futures

    def _known(self, result: _T) -> Future[_T]:
        future: Future[_T] = self._loop.create_future()
        future.set_result(result)
        return future

    def _all(self, futures: list[Future[Any]]) -> Future[list[Any]]:
        """The outcomes of all; at once where all are known."""
        if all(future.done() for future in futures):
            return self._known([self.outcome(future) for future in futures])

        async def gather() -> list[Any]:
            await asyncio.wait(futures)
            return [self.outcome(future) for future in futures]

        return self._spawn(gather())

    def _spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _background(self, future: Future[Any]) -> None:
        """Let an operation go on whose outcome nobody waits for; a failure is logged."""
        if future.done():
            self.outcome(future)
        else:
            future.add_done_callback(self.outcome)


def _history(options: ChannelOptions) -> HistoryPolicy | None:
    if not options.history_size:
        return None
    return HistoryPolicy(options.history_size, options.history_ttl_s)


def _ignore(message: bytes, entry: str) -> None:
    """What a node hears of others that has no peers."""
