"""What all sockets of clients share that talk straight to a receiver, whatever goes over them."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, Final

from hub.node.transport import Receiver

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer has to take our last word and end its side, before it is cut off."""

WRITE_BUFFER_BYTES: Final = 16_384
"""What may wait beside the kernel's buffer before a client counts as behind, and its outbox takes over."""


class ClientTransport(asyncio.Protocol):
    """A socket that is attached to a receiver, and tells it when it takes bytes and when it ends.

    Args:
        transport: under it.
        connections: the server's, of which this becomes one.
    """

    __slots__ = ("_abort", "_closing", "_connections", "_receiver", "_transport", "write")

    def __init__(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        self.write: Callable[[bytes], object] = transport.write
        self._transport = transport
        self._connections = connections
        self._receiver: Receiver | None = None
        self._closing = False
        self._abort: TimerHandle | None = None

    def _take_over(self) -> None:
        """Become the owner of the transport."""
        self._connections.add(self)
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    # What the event loop calls

    def eof_received(self) -> None:
        # The event loop closes the socket now, but only when all is flushed, and the peer may never read.
        self._close_up()
        self._cut_off_later()

    def pause_writing(self) -> None:
        if self._receiver is not None and not self._closing:
            self._receiver.on_write_paused()

    def resume_writing(self) -> None:
        if self._receiver is not None and not self._closing:
            self._receiver.on_write_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._end()

    # Inside

    def _close_up(self) -> None:
        """Have nothing more written."""
        if not self._closing:
            self._closing = True
            if self._receiver is not None:
                self._receiver.on_closing()

    def _cut_off_later(self) -> None:
        if self._abort is None:
            loop = asyncio.get_running_loop()
            self._abort = loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _end(self) -> None:
        self._close_up()
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_closed()
