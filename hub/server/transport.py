"""What the sockets of all clients share, whatever protocol they speak."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, Final

from hub.node.transport import Receiver

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer has to take the last message and end its side, before the socket is cut off."""

WRITE_BUFFER_BYTES: Final = 16_384
"""What may wait beside the kernel's buffer before a client counts as behind, and its outbox takes over."""

_PLACE: Final = "socket"


class ClientTransport(asyncio.Protocol):
    """A socket that is attached to a receiver, and tells it when it takes bytes and when it ends.

    An exception that a receiver raises is recorded, and ends this socket alone.

    Args:
        transport: the socket.
        connections: the server's, of which this becomes one.
        failed: records an exception, with the place where it was raised.
    """

    __slots__ = ("_abort", "_closing", "_connections", "_failed", "_receiver", "_transport", "write")

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self.write: Callable[[bytes], object] = transport.write
        self._transport = transport
        self._connections = connections
        self._failed = failed
        self._receiver: Receiver | None = None
        self._closing = False
        self._abort: TimerHandle | None = None

    def _take_over(self) -> None:
        """Become the protocol of the transport."""
        self._connections.add(self)
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    # What the event loop calls

    def eof_received(self) -> None:
        # The event loop closes the socket only when all is flushed, and the peer may never read.
        self._stop_writing()
        self._cut_off_later()

    def pause_writing(self) -> None:
        if self._receiver is not None and not self._closing:
            self._call(self._receiver.on_write_paused)

    def resume_writing(self) -> None:
        if self._receiver is not None and not self._closing:
            self._call(self._receiver.on_write_resumed)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._end()

    # Inside

    def _call(self, callback: Callable[[], None]) -> None:
        """Call the receiver. If the call raises, the socket is cut off."""
        try:
            callback()
        except Exception as error:
            self._failed(_PLACE, error)
            self._transport.abort()

    def _stop_writing(self) -> None:
        """Accept no more writes."""
        if not self._closing:
            self._closing = True
            if self._receiver is not None:
                self._call(self._receiver.on_closing)

    def _cut_off_later(self) -> None:
        if self._abort is None:
            loop = asyncio.get_running_loop()
            self._abort = loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _end(self) -> None:
        self._stop_writing()
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._call(receiver.on_closed)
