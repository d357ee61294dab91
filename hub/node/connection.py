"""One client on a node: a transport, an outbox and a session, and the node that carries its effects out."""

from __future__ import annotations

import math
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from hub.core.channel.registry import Channel
from hub.core.channel.subscription import Subscription
from hub.core.effects import (
    AnnounceLeave,
    Authenticated,
    CancelSubscribe,
    Close,
    Effect,
    Operation,
    Reconnected,
    Run,
    Send,
    Subscribed,
    Unsubscribed,
)
from hub.core.outbox import Outbox
from hub.core.session.session import Session
from hub.core.session.state import REPLY_ROOM_BYTES
from hub.node.metrics import count_command, count_dropped, count_reply
from hub.node.outboxes import Outboxes
from hub.node.timers import TimerWheel
from hub.node.transport import Transport
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import Encoding
from hub.protocol.messages import PING, Reply
from hub.settings import Settings
from hub.telemetry import Metrics


class Batch:
    """Publications of one channel that leave together, in one encoding.

    Args:
        channel: its name, and what becomes of them for a client that is behind.
        encoding: what they are encoded in.
        encoded: one or more, in order.
    """

    __slots__ = ("_each", "channel", "data", "encoded", "encoding")

    def __init__(self, channel: Channel[Any], encoding: Encoding, encoded: list[bytes]) -> None:
        self.channel: Final = channel
        self.encoding: Final = encoding
        self.encoded: Final = encoded
        self.data: Final = encoding.pack(encoded)
        self._each: list[bytes] | None = None

    @property
    def each(self) -> list[bytes]:
        """The same, packed one by one, for those for whom some may be given up."""
        if self._each is None:
            self._each = [self.encoding.pack([encoded]) for encoded in self.encoded]
        return self._each


class Host(Protocol):
    """What a connection needs of the node that it is on."""

    settings: Settings
    metrics: Metrics
    wheel: TimerWheel
    outboxes: Outboxes

    def now(self) -> float:
        """Monotonic seconds."""

    def execute(self, connection: Connection, operation: Operation) -> Future[Any]:
        """Begin an operation of a session."""

    def flush(self) -> None:
        """Let operations that were begun leave the node: no more are begun together with them."""

    def outcome(self, done: Future[Any]) -> Any:
        """What a session is told of an operation that is over."""

    def welcome(self, connection: Connection) -> None:
        """A client connected."""

    def reconnected(self, connection: Connection, back: Reconnected) -> None:
        """A client came with a reconnect token."""

    def join(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription stands."""

    def leave(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription is over."""

    def announce_leave(self, connection: Connection, subscription: Subscription) -> None:
        """A client left a channel and its session goes on: tell the channel."""

    def abandon(self, connection: Connection, name: str) -> None:
        """A channel that was opened is not joined."""

    def part(self, connection: Connection, disconnect: Disconnect) -> None:
        """A session is over."""

    def forget(self, connection: Connection) -> None:
        """A socket is gone."""

    def resumed(self, connection: Connection) -> None:
        """A socket that was behind takes bytes again, and all that waited for it was written."""

    def close_soon(self, connection: Connection, disconnect: Disconnect) -> None:
        """End a connection, but not from here."""


class Connection:
    """A client's connection: what a transport calls, and what the node calls.

    It writes at once while the socket takes it. Only a connection that is behind has an outbox.

    Args:
        node: that carries out what the session decides.
        session: the client's.
        transport: the socket it is on, accepted.
    """

    __slots__ = (
        "_behind",
        "_due",
        "_outbox",
        "_reading",
        "_unsent",
        "_working",
        "encoding",
        "node",
        "ready",
        "reason",
        "session",
        "transport",
    )

    def __init__(self, node: Host, session: Session, transport: Transport) -> None:
        self.node = node
        self.session = session
        self.transport = transport
        self.encoding = transport.encoding
        self.ready: Callable[[bytes], object] | None = transport.write
        """Takes what comes next, while nothing waits before it; else None, and it goes to `deliver`."""
        self.reason: Disconnect | None = None
        """Why the connection ends. What is written then is ignored."""
        self._outbox: Outbox | None = None
        self._behind = False
        self._reading = True
        self._working = False
        self._unsent: list[bytes] = []
        self._due = math.inf
        self._reschedule()

    @property
    def client(self) -> str:
        """Id of the connection."""
        return self.session.client

    @property
    def user(self) -> str:
        """The user that it is authenticated as."""
        return self.session.user

    @property
    def deadline(self) -> float:
        """When the session must be looked at next."""
        return self.session.deadline

    @property
    def is_backlogged(self) -> bool:
        """Whether the socket takes no more for now, or is at its end."""
        return self._behind or self.reason is not None

    @property
    def waiting_bytes(self) -> int:
        """What its outbox holds."""
        return self._outbox.size if self._outbox else 0

    # What the transport calls

    def on_messages(self, messages: Sequence[bytes]) -> None:
        metrics = self.node.metrics
        now = self.node.now()
        self._working = True
        self.ready = None
        session = self.session
        session.heard = session.connected
        for message in messages:
            if session.closed:
                break
            metrics.bytes_in += len(message)
            for command in self.encoding.codec.decode(message):
                count_command(metrics, session.client, command)
                ping_sent = session.ping_sent
                self._carry_out(session.receive(command, now))
                if ping_sent is not None and session.ping_sent is None:
                    metrics.ping_pong_seconds.observe(now - ping_sent)
                if session.closed:
                    break
        if session.in_progress:
            self.node.flush()
        self._working = False
        self._flush()
        self._look_ready()
        self._reschedule()
        if self._reading and self.session.in_progress > self.node.settings.client.commands_max:
            self._reading = False
            self.transport.pause_reading()

    def on_write_paused(self) -> None:
        self._behind = True
        self.ready = None

    def on_write_resumed(self) -> None:
        self._behind = False
        outbox = self._outbox
        while outbox and not self._behind:
            data = outbox.pop()
            self.node.outboxes.grew(-len(data))
            self.transport.write(data)
        if not self._behind:
            self._drop_outbox()
            self._look_ready()
            self.session.reply_room = REPLY_ROOM_BYTES
            self.node.resumed(self)

    def on_left(self) -> None:
        self.session.left = True

    def on_closing(self) -> None:
        if self.reason is None:
            self.reason = Disconnects.CONNECTION_CLOSED
        self._drop_outbox()
        self.ready = None

    def on_closed(self) -> None:
        self.run(self.session.disconnect(Disconnects.CONNECTION_CLOSED))
        self.node.forget(self)

    # What the node calls

    def tick(self, now: float) -> None:
        """Look at the session: its deadline has come."""
        self._due = math.inf
        self.run(self.session.tick(now))

    def run(self, effects: list[Effect]) -> None:
        """Carry out what the session decided, and send what comes of it."""
        self._carry_out(effects)
        if not self._working:
            self._flush()
            self._reschedule()

    def close(self, disconnect: Disconnect) -> None:
        """End the connection, and tell the client why."""
        self.run(self.session.disconnect(disconnect))

    def write(self, data: bytes) -> None:
        """Send packed bytes behind everything that was sent before. Never waits for the client."""
        if self._unsent:
            self._flush()
        self._write(data)

    def deliver(self, batch: Batch) -> None:
        """Send publications behind everything that was sent before, where `ready` is None."""
        if self._unsent:
            self._flush()
        if self.reason is not None:
            return
        if not self._behind:
            self.transport.write(batch.data)
            return
        outbox = self._have_outbox()
        before = outbox.size
        channel = batch.channel
        fits = True
        match channel.slow_reader:
            case "disconnect":
                fits = outbox.push(batch.data)
            case "drop_oldest":
                for data in batch.each:
                    outbox.offer(channel.name, data)
            case "latest":
                outbox.dropped[channel.name] += len(batch.encoded) - 1
                fits = outbox.replace(channel.name, batch.each[-1])
        self._account(outbox, before, fits=fits)

    def give_up(self) -> None:
        """End the connection, since it reads too slowly. What waits for it goes at once."""
        self.reason = Disconnects.SLOW
        self._drop_outbox()
        # Not from here: whoever is writing may be going through the subscribers.
        self.node.close_soon(self, Disconnects.SLOW)

    def send(self, reply: Reply) -> None:
        """Send one reply behind everything that was sent before."""
        self._unsent.append(self.encoding.codec.encode(reply))
        if not self._working:
            self._flush()

    # Inside

    def _flush(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._write(self.encoding.pack(unsent))

    def _write(self, data: bytes) -> None:
        if self.reason is not None:
            return
        self.node.metrics.bytes_out += len(data)
        if not self._behind:
            self.transport.write(data)
            return
        outbox = self._have_outbox()
        before = outbox.size
        fits = outbox.push(data)
        self._account(outbox, before, fits=fits)

    def _have_outbox(self) -> Outbox:
        if self._outbox is None:
            client = self.node.settings.client
            self._outbox = Outbox(client.outbox_bytes_max, client.outbox_messages_max)
            self.node.outboxes.behind.add(self)
        return self._outbox

    def _drop_outbox(self) -> None:
        if self._outbox is not None:
            self.node.outboxes.behind.discard(self)
            self.node.outboxes.grew(-self._outbox.size)
            self._outbox = None

    def _account(self, outbox: Outbox, before: int, *, fits: bool) -> None:
        if outbox.dropped:
            count_dropped(self.node.metrics, self.node.settings.channels, outbox.dropped)
            outbox.dropped.clear()
        self.node.outboxes.grew(outbox.size - before)
        if not fits:
            self.give_up()

    def _look_ready(self) -> None:
        if self.reason is None and not self._behind and not self._working:
            self.ready = self.transport.write

    def _carry_out(self, effects: list[Effect]) -> None:
        # In the order of the session's decisions: what comes of an operation at once goes behind them.
        for effect in effects:
            match effect:
                case Send(reply):
                    count_reply(self.node.metrics, reply)
                    if reply is PING:
                        self.write(self.encoding.ping)
                    else:
                        self._unsent.append(self.encoding.codec.encode(reply))
                case Run(operation, ticket):
                    effects += self._execute(operation, ticket)
                case Subscribed(subscription):
                    if self.session.reply_room < REPLY_ROOM_BYTES:
                        self._flush()
                        if not self._behind:
                            self.session.reply_room = REPLY_ROOM_BYTES
                    self.node.join(self, subscription)
                case Unsubscribed(subscription):
                    self.node.leave(self, subscription)
                case AnnounceLeave(subscription):
                    self.node.announce_leave(self, subscription)
                case CancelSubscribe(channel):
                    self.node.abandon(self, channel)
                case Authenticated():
                    self.node.welcome(self)
                case Reconnected():
                    self.node.reconnected(self, effect)
                case Close(disconnect):
                    self._end(disconnect)

    def _execute(self, operation: Operation, ticket: int) -> list[Effect]:
        """Begin an operation. Returns what comes of it, where that is known at once."""
        outcome = self.node.execute(self, operation)
        if outcome.done():
            return self.session.resume(ticket, self.node.outcome(outcome), self.node.now())
        outcome.add_done_callback(lambda done: self._resume(done, ticket))
        return []

    def _resume(self, outcome: Future[Any], ticket: int) -> None:
        if outcome.cancelled():
            return
        self.run(self.session.resume(ticket, self.node.outcome(outcome), self.node.now()))
        if not self._reading and self.session.in_progress <= self.node.settings.client.commands_max:
            self._reading = True
            self.transport.resume_reading()

    def _reschedule(self) -> None:
        if self.session.deadline < self._due and not self.session.closed:
            self._due = self.session.deadline
            self.node.wheel.add(self)

    def _end(self, disconnect: Disconnect) -> None:
        self._flush()
        self.reason = disconnect
        self.ready = None
        self._drop_outbox()
        self.node.part(self, disconnect)
        self.transport.close(disconnect)
