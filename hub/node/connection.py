"""One client on a node: a transport, an outbox and a session, whose effects are carried out above."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hub.core.effects import Effect
from hub.core.session.session import Session
from hub.core.session.state import REPLY_ROOM_BYTES
from hub.node.backlog import Backlog
from hub.node.batch import Batch
from hub.node.boundary import Boundary
from hub.node.metrics import count_command
from hub.node.outboxes import Outboxes
from hub.node.timers import TimerWheel
from hub.node.transport import Transport
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import Encoding
from hub.protocol.messages import Command, Fault, Reply
from hub.settings import ChannelOptions, ClientSettings
from hub.telemetry import Metrics

TURN_S: Final = 0.002
"""How long one client's commands are taken in one turn of the event loop, until others have theirs."""

LOOK_EVERY: Final = 4
"""Commands taken between two looks at the clock."""

UNSENT_BYTES_MAX: Final = 65_536
"""Replies are written once they come to this, so that a client that does not read is noticed."""


@dataclass(slots=True)
class Shared:
    """What the connections of a node have in common.

    Args:
        client: limits of clients.
        channels: options by namespace, for the metric of dropped publications.
        now: monotonic seconds.
        flush: lets the broker's calls of this turn leave.
        carry_out: carries out what a session decided, for a connection.
        later: calls `go_on` of a connection in a later turn of the event loop.
        drained: is told of a connection whose socket takes bytes again.
        gone: is told of a connection whose socket is gone.
    """

    client: ClientSettings
    channels: Mapping[str, ChannelOptions]
    metrics: Metrics
    boundary: Boundary
    timers: TimerWheel
    outboxes: Outboxes
    now: Callable[[], float]
    flush: Callable[[], None]
    carry_out: Callable[[Connection, list[Effect]], None]
    later: Callable[[Connection], None]
    drained: Callable[[Connection], None]
    gone: Callable[[Connection], None]


class Connection:
    """A client's connection: what a transport calls, and what the node calls.

    It writes at once while the socket takes it; only a connection that is backlogged has an outbox. It takes
    commands one by one: while the client has too many under way, has a large reply under way, or does not
    read, the rest of what came waits and nothing more is read.

    Args:
        shared: what it has in common with the others of its node.
        session: the client's.
        transport: the socket it is on, accepted.
    """

    __slots__ = (
        "_backlog",
        "_backlogged",
        "_commands",
        "_due",
        "_reading",
        "_shared",
        "_unsent",
        "_unsent_bytes",
        "_working",
        "encoding",
        "ready",
        "reason",
        "session",
        "transport",
    )

    def __init__(self, shared: Shared, session: Session, transport: Transport) -> None:
        self._shared = shared
        self.session = session
        self.transport = transport
        self.encoding: Encoding = transport.encoding
        self.ready: Callable[[bytes], object] | None = transport.write
        """Takes what comes next, while nothing waits before it; else None, and it goes to `deliver`."""
        self.reason: Disconnect | None = None
        """Why the connection ends. What is written from then on is ignored."""
        self._backlog: Backlog | None = None
        self._backlogged = False
        self._commands: deque[Command | Fault] | None = None
        """Commands that came and were not taken; None for none, since an empty deque takes 600 bytes."""
        self._reading = True
        self._working = False
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._due = math.inf
        self.reschedule()

    @property
    def client(self) -> str:
        """Id of the client."""
        return self.session.client

    @property
    def user(self) -> str:
        """The user that the client is authenticated as."""
        return self.session.user

    @property
    def deadline(self) -> float:
        """When the session must be looked at next, in monotonic seconds."""
        return self.session.deadline

    @property
    def is_backlogged(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._backlogged

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the socket to take more."""
        return self._backlog.size if self._backlog else 0

    @property
    def waiting_commands(self) -> int:
        """Commands that came and were not taken yet."""
        return len(self._commands) if self._commands else 0

    # What the transport calls

    def on_messages(self, messages: Sequence[bytes]) -> None:
        try:
            metrics, decode = self._shared.metrics, self.encoding.codec.decode
            self.session.heard = self.session.connected
            commands = self._commands
            if commands is None:
                commands = self._commands = deque()
            for message in messages:
                metrics.bytes_in += len(message)
                commands.extend(decode(message))
            if self._reading:
                self._take_commands()
        except BaseException as error:
            self.fail("socket", error)

    def on_write_paused(self) -> None:
        self._backlogged = True
        self.ready = None

    def on_write_resumed(self) -> None:
        try:
            self._drain()
        except BaseException as error:
            self.fail("socket", error)

    def on_left(self) -> None:
        self.session.left = True

    def on_closing(self) -> None:
        if self.reason is None:
            self.reason = Disconnects.CONNECTION_CLOSED
        self._drop_backlog()
        self.ready = None

    def on_closed(self) -> None:
        try:
            self.run(self.session.disconnect(Disconnects.CONNECTION_CLOSED))
        except Exception as error:
            self._shared.boundary.failed("socket", error, client=self.client)
        finally:
            self._shared.gone(self)

    # What the node calls

    def tick(self, now: float) -> None:
        """Look at the session: its deadline has come."""
        self._due = math.inf
        self.run(self.session.tick(now))

    def run(self, effects: list[Effect]) -> None:
        """Carry out what the session decided, and send what comes of it."""
        self._shared.carry_out(self, effects)
        if not self._working:
            self.flush()
            self.reschedule()

    def resume(self, ticket: int, outcome: Any) -> None:
        """Tell the session the outcome of an operation, and go on with commands that waited for it."""
        try:
            self.run(self.session.resume(ticket, outcome, self._shared.now()))
        except BaseException as error:
            self.fail("operation", error)
        if self._commands and not self._working:
            self._shared.later(self)

    def go_on(self) -> None:
        """Take more of the commands that wait."""
        try:
            self._take_commands()
        except BaseException as error:
            self.fail("socket", error)

    def close(self, disconnect: Disconnect) -> None:
        """End the connection, and tell the client why."""
        self.run(self.session.disconnect(disconnect))

    def fail(self, place: str, error: BaseException) -> None:
        """Something raised for this client: record it, and end this connection alone."""
        shared = self._shared
        shared.boundary.failed(place, error, client=self.client)
        self._working = False
        self._commands = None
        try:
            self.close(Disconnects.INTERNAL_ERROR)
        except Exception as failure:
            shared.boundary.failed(place, failure, client=self.client)
            self.reason = Disconnects.INTERNAL_ERROR
            self.ready = None
        self.transport.close(Disconnects.INTERNAL_ERROR)

    def write(self, data: bytes) -> None:
        """Send packed bytes behind everything that was sent before. Never waits for the client."""
        if self._unsent:
            self.flush()
        self._write(data)

    def deliver(self, batch: Batch) -> None:
        """Send publications behind everything that was sent before, where `ready` is None."""
        if self._unsent:
            self.flush()
        if self.reason is not None:
            return
        if not self._backlogged:
            self.transport.write(batch.data)
            return
        if not self._have_backlog().add(batch):
            self.give_up()

    def give_up(self) -> None:
        """End the connection, since it reads too slowly. What waits for it goes at once."""
        self.reason = Disconnects.SLOW
        self._drop_backlog()
        self.close_soon(Disconnects.SLOW)  # not now: the caller may be going through the subscribers

    def close_soon(self, disconnect: Disconnect) -> None:
        """End the connection in the next turn of the event loop."""
        self._shared.boundary.soon("socket", self.close, disconnect)

    def send(self, reply: Reply) -> None:
        """Send one reply behind everything that was sent before."""
        self.add(reply)
        if not self._working:
            self.flush()

    def add(self, reply: Reply) -> None:
        """Send one reply with the next `flush`."""
        data = self.encoding.codec.encode(reply)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def flush(self) -> None:
        """Write the replies that were added."""
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._unsent_bytes = 0
            self._write(self.encoding.pack(unsent))

    def end(self, disconnect: Disconnect) -> None:
        """The session is over: write what was added, and nothing from then on."""
        self.flush()
        self.reason = disconnect
        self.ready = None
        self._commands = None
        self._drop_backlog()
        self._shared.timers.discard(self)

    def reschedule(self) -> None:
        """Have the timer look at the session by its deadline."""
        if self.session.deadline < self._due and not self.session.closed:
            self._due = self.session.deadline
            self._shared.timers.add(self)

    # Inside

    def _take_commands(self) -> None:
        """Take commands in their order, until none is left, the client has to wait, or the turn was long."""
        shared, session, commands = self._shared, self.session, self._commands
        if commands is None:
            return
        metrics, carry_out = shared.metrics, shared.carry_out
        now = shared.now()
        ends_at = now + TURN_S
        self._working = True
        # While replies gather, publications that are due must go behind them.
        self.ready = None
        count = 0
        flows = session.flows
        while commands and not session.closed:
            if (flows and self._must_wait(commands[0])) or (self._backlogged and self._is_full()):
                break
            command = commands.popleft()
            if isinstance(command, Command) and command.publish is not None:
                metrics.received["publish"] += 1
            else:
                count_command(metrics, command)
            ping_sent = session.ping_sent
            carry_out(self, session.receive(command, now))
            if ping_sent is not None and session.ping_sent is None:
                metrics.ping_pong_seconds.observe(now - ping_sent)
            if self._unsent_bytes > UNSENT_BYTES_MAX:
                self.flush()
                if self._backlogged:
                    break
            count += 1
            if commands and count % LOOK_EVERY == 0 and shared.now() > ends_at:
                shared.later(self)
                break
        if flows:
            shared.flush()
        self._working = False
        if self._unsent:
            self.flush()
        if self.reason is None and not self._backlogged:
            self.ready = self.transport.write
        if session.deadline < self._due:
            self.reschedule()
        if not commands:
            self._commands = None
        if commands or not self._reading or flows:
            self._look_reading()
        elif session.is_held:
            session.is_held = False

    def _is_full(self) -> bool:
        """Whether enough waits for a client that does not read."""
        return self._backlog is not None and self._backlog.size > UNSENT_BYTES_MAX

    def _must_wait(self, command: Command | Fault) -> bool:
        """Whether a command waits for what the client has under way."""
        session = self.session
        if session.in_progress >= self._shared.client.commands_max:
            return True
        # Replies to reads may be large: a client has one of them under way at a time.
        return bool(session.reads) and isinstance(command, Command) and _is_read(command)

    def _look_reading(self) -> None:
        """Read from the socket while no command waits."""
        session = self.session
        if session.closed:
            return
        session.is_held = bool(self._commands) and not self._backlogged
        if self._reading:
            if self._commands or session.in_progress > self._shared.client.commands_max:
                self._reading = False
                self.transport.pause_reading()
        elif not self._commands:
            self._reading = True
            self.transport.resume_reading()

    def _drain(self) -> None:
        """The socket takes bytes again: write what waits for it."""
        self._backlogged = False
        backlog = self._backlog
        while backlog and not self._backlogged:
            self.transport.write(backlog.pop())
        if self._backlogged:
            return
        self._drop_backlog()
        self._look_ready()
        self.session.reply_room = REPLY_ROOM_BYTES
        self._shared.drained(self)
        if self._commands:
            self._shared.later(self)

    def _write(self, data: bytes) -> None:
        if self.reason is not None:
            return
        self._shared.metrics.bytes_out += len(data)
        if not self._backlogged:
            self.transport.write(data)
            return
        if not self._have_backlog().push(data):
            self.give_up()

    def _have_backlog(self) -> Backlog:
        if self._backlog is None:
            shared = self._shared
            self._backlog = Backlog(
                shared.client, shared.channels, shared.metrics, shared.outboxes, self.give_up
            )
        return self._backlog

    def _drop_backlog(self) -> None:
        if self._backlog is not None:
            self._backlog.drop()
            self._backlog = None

    def _look_ready(self) -> None:
        if self.reason is None and not self._backlogged and not self._working:
            self.ready = self.transport.write


def _is_read(command: Command) -> bool:
    return (command.history or command.presence or command.presence_stats) is not None
