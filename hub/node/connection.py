"""One client on a node: a transport, an outbox and a session, and the node that carries its effects out."""

from __future__ import annotations

import math
from asyncio import Future
from collections import deque
from typing import Any, Protocol

from hub.core.effects import Abandon, Authenticated, Close, Effect, Joined, Left, Operation, Run, Send
from hub.core.outbox import Outbox
from hub.core.session import Session
from hub.core.subscription import Subscription
from hub.node.counting import count_command, count_reply
from hub.node.transport import Transport
from hub.node.wheel import Wheel
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.messages import Reply
from hub.settings import Settings
from hub.telemetry import Metrics


class Host(Protocol):
    """What a connection needs of the node that it is on."""

    settings: Settings
    metrics: Metrics
    wheel: Wheel

    def now(self) -> float:
        """Monotonic seconds."""

    def execute(self, connection: Connection, operation: Operation) -> Future[Any]:
        """Begin an operation of a session."""

    def outcome(self, done: Future[Any]) -> Any:
        """What a session is told of an operation that is over."""

    def welcome(self, connection: Connection) -> None:
        """A client connected."""

    def join(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription stands."""

    def leave(self, connection: Connection, subscription: Subscription) -> None:
        """A subscription is over."""

    def abandon(self, connection: Connection, name: str) -> None:
        """A channel that was opened is not joined."""

    def part(self, connection: Connection, disconnect: Disconnect) -> None:
        """A session is over."""

    def forget(self, connection: Connection) -> None:
        """A socket is gone."""

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
        "reason",
        "session",
        "transport",
    )

    def __init__(self, node: Host, session: Session, transport: Transport) -> None:
        self.node = node
        self.session = session
        self.transport = transport
        self.encoding = transport.encoding
        self.reason: Disconnect | None = None
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
    def waiting_bytes(self) -> int:
        """What its outbox holds."""
        return self._outbox.size if self._outbox else 0

    # What the transport calls

    def on_message(self, data: bytes) -> None:
        metrics = self.node.metrics
        metrics.bytes_in.inc(len(data))
        now = self.node.now()
        self._working = True
        session = self.session
        for command in self.encoding.codec.decode(data):
            count_command(metrics, session.client, command)
            ping_sent = session.ping_sent
            self._carry_out(session.receive(command, now))
            if ping_sent is not None and session.ping_sent is None:
                metrics.ping_pong_seconds.observe(now - ping_sent)
            if session.closed:
                break
        self._working = False
        self._flush()
        self._reschedule()
        if self._reading and self.session.in_progress > self.node.settings.client.commands_max:
            self._reading = False
            self.transport.pause_reading()

    def on_write_paused(self) -> None:
        self._behind = True

    def on_write_resumed(self) -> None:
        self._behind = False
        outbox = self._outbox
        while outbox and not self._behind:
            self.transport.write(outbox.pop())
        if not self._behind:
            self._outbox = None

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
        self.node.metrics.bytes_out.inc(len(data))
        if not self._behind:
            self.transport.write(data)
            return
        if self._outbox is None:
            client = self.node.settings.client
            self._outbox = Outbox(client.outbox_bytes_max, client.outbox_messages_max)
        if not self._outbox.push(data):
            self.reason = Disconnects.SLOW
            # Not from here: whoever is writing may be going through the subscribers.
            self.node.close_soon(self, Disconnects.SLOW)

    def _carry_out(self, effects: list[Effect]) -> None:
        # In the order of the session's decisions: what comes of an operation at once stands behind them.
        pending = deque(effects)
        while pending:
            match pending.popleft():
                case Send(reply):
                    count_reply(self.node.metrics, reply)
                    self._unsent.append(self.encoding.codec.encode(reply))
                case Run(operation, ticket):
                    pending.extend(self._execute(operation, ticket))
                case Joined(subscription):
                    self.node.join(self, subscription)
                case Left(subscription):
                    self.node.leave(self, subscription)
                case Abandon(channel):
                    self.node.abandon(self, channel)
                case Authenticated():
                    self.node.welcome(self)
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
        self._outbox = None
        self.node.part(self, disconnect)
        self.transport.close(disconnect)
