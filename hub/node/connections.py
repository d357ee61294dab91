"""The connections of a node: accepting them, and giving each its turn."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from hub.core.effects import Effect
from hub.core.session.session import Session
from hub.core.session.state import Context
from hub.node.admission import Admission
from hub.node.boundary import Boundary
from hub.node.bus_messages import Relay
from hub.node.connection import Connection, Shared
from hub.node.environment import Clock
from hub.node.outboxes import Outboxes
from hub.node.timers import TimerWheel
from hub.node.transport import Transport
from hub.protocol.codes import Disconnects
from hub.settings import Settings
from hub.telemetry import Metrics

TURN_S: Final = 0.004
"""How long commands that had to wait are taken in one turn of the event loop, of all connections together."""


class Connections:
    """All connections of a node.

    Args:
        settings: limits.
        context: what all sessions share.
        admission: counts connections by address.
        boundary: records what is raised.
        timers: look at sessions by their deadlines.
        outboxes: bound what waits for slow clients.
        metrics: count messages.
        clock: of the node.
        flush: lets the broker's calls of this turn leave.
        carry_out: carries out what a session decided.
        drained: is told of a connection whose socket takes bytes again.
    """

    def __init__(
        self,
        settings: Settings,
        context: Context,
        admission: Admission,
        boundary: Boundary,
        timers: TimerWheel,
        outboxes: Outboxes,
        metrics: Metrics,
        clock: Clock,
        *,
        flush: Callable[[], None],
        carry_out: Callable[[Connection, list[Effect]], None],
        drained: Callable[[Connection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = clock.now
        self._context = context
        self._admission = admission
        self._all: set[Connection] = set()
        self._emulated: dict[str, Connection] = {}
        """By session, the connections whose commands come in requests of their own."""
        self._waiting: dict[Connection, None] = {}
        """Connections with commands that wait for a later turn, in order."""
        self._shared = Shared(
            settings.client,
            settings.channels,
            metrics,
            boundary,
            timers,
            outboxes,
            clock.now,
            flush,
            carry_out,
            self._later,
            drained,
            self._gone,
        )

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._all)

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
        now = self._now()
        # One read of the system's randomness, which costs more than all else here.
        digits = secrets.token_hex(36)
        session = Session(
            self._context,
            client=digits[:32],
            session=digits[32:64],
            headers=headers if "connect" in self._context.hooks else {},
            now=now,
            jitter=int(digits[64:], 16) / 2**32,
            one_way=one_way,
        )
        connection = Connection(self._shared, session, transport)
        self._all.add(connection)
        self._admission.entered(connection, address)
        if emulated:
            self._emulated[session.session] = connection
        return connection

    def take(self, session: str, data: bytes) -> bool:
        """Take a message of a client whose connection carries none. Returns whether it is on this node."""
        connection = self._emulated.get(session)
        if connection is None:
            return False
        if connection.waiting_commands > self._shared.client.commands_max:
            # A socket would not be read from for now; requests come all the same.
            connection.close(Disconnects.TOO_MANY_REQUESTS)
        else:
            connection.on_messages((data,))
        return True

    def on_relay(self, message: Relay) -> None:
        """Another node got a message of a client that is here."""
        self.take(message.session, message.data)

    def _later(self, connection: Connection) -> None:
        if not self._waiting:
            self._loop.call_soon(self._turn)
        self._waiting[connection] = None

    def _turn(self) -> None:
        ends_at = self._loop.time() + TURN_S
        before, self._waiting = list(self._waiting), {}
        count = 0
        while count < len(before) and self._loop.time() < ends_at:
            before[count].go_on()
            count += 1
        again = self._waiting
        self._waiting = {**dict.fromkeys(before[count:]), **again}
        if before[count:] and not again:
            self._loop.call_soon(self._turn)

    def _gone(self, connection: Connection) -> None:
        """A socket is gone."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)
        if self._emulated.get(connection.session.session) is connection:
            del self._emulated[connection.session.session]
        self._admission.left(connection)
