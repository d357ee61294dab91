"""A WebSocket after its handshake: frames in, whole messages to a receiver, and frames out as they are."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from hub.node.transport import Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import Encoding, WebSocketEncodings
from hub.protocol.frames import Opcode, encode, encode_close
from hub.protocol.reader import PINGS_MAX, TOO_MANY_PINGS, FrameFault, FrameReader
from hub.server.edge import Edge
from hub.server.transport import ClientTransport

PINGS_PER_S: Final = 10.0

_GOING_AWAY: Final = (b"", *(code.to_bytes(2, "big") for code in (1000, 1001)))
"""Close codes of a client that does not mean to come back: none, normal, and a page that is left."""

_SLICE_BYTES: Final = 16_384
"""What is parsed at a time: one chunk from the event loop can hold thirty thousand commands."""

_INTERNAL_ERROR: Final = 1011
_RESTART: Final = 1012


@dataclass(slots=True)
class PendingHandshake:
    """A handshake that is not over, as the protocol that runs it and the socket to come both see it.

    Args:
        transport: the socket.
        connections: the server's open connections.
        reader: of the frames to come.
        edge: of the server.
        early: bytes that the peer sent before the socket was attached.
        is_accepted: whether the app accepted the handshake.
        is_over: whether the connection ended before the socket was attached.
        is_attached: whether a receiver has the socket.
    """

    transport: asyncio.Transport
    connections: set[Any]
    reader: FrameReader
    edge: Edge
    early: bytes = b""
    is_accepted: bool = False
    is_over: bool = False
    is_attached: bool = False


class Socket(ClientTransport):
    """The WebSocket of one peer. It has no receiver before `attach`.

    Args:
        pending: the handshake that it comes from.
    """

    __slots__ = (
        "_edge",
        "_pending",
        "_ping_tokens",
        "_pinged_at",
        "_reader",
        "_reading_paused",
        "_unparsed",
        "_writing_paused",
    )

    def __init__(self, pending: PendingHandshake) -> None:
        super().__init__(pending.transport, pending.connections, pending.edge.failed)
        self._pending: PendingHandshake | None = pending
        self._edge = pending.edge
        self._reader = pending.reader
        self._unparsed = b""
        self._reading_paused = False
        self._writing_paused = False
        self._ping_tokens: float = PINGS_MAX
        self._pinged_at = 0.0

    def attach(self, receiver: Receiver) -> None:
        """Hand the socket to a receiver, after the ASGI `websocket.accept`.

        Args:
            receiver: gets what has come already before this returns, and the rest in the event loop.
        """
        pending = self._pending
        assert pending is not None, "a socket is attached once"
        assert pending.is_accepted, "a socket is attached after it was accepted"
        self._pending = None
        self._receiver = receiver
        self._closing = pending.is_over or self._transport.is_closing()
        pending.is_attached = True
        if pending.is_over:
            asyncio.get_running_loop().call_soon(self._end)
            return
        self._connections.discard(self._transport.get_protocol())
        self._take_over()
        if pending.early:
            self.data_received(pending.early)

    @property
    def peers_close(self) -> bytes | None:
        """The payload of the peer's close frame, once it came."""
        return self._reader.close

    # What the receiver calls

    def end(self, code: int, reason: str) -> None:
        """Send a close frame and pass on no more messages. A peer that stays is cut off in a second.

        Args:
            code: 1000 to 4999.
            reason: at most 123 bytes of UTF-8.
        """
        if not self._closing:
            self._send_close(code, reason)

    def pause_reading(self) -> None:
        """Read nothing more from the peer. Messages of the last few kilobytes that were read still come."""
        if not self._reading_paused and not self._closing:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the peer again, first what was read before the pause."""
        if not self._reading_paused:
            return
        self._reading_paused = False
        unparsed, self._unparsed = self._unparsed, b""
        if unparsed:
            self.data_received(unparsed)
        if not self._reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """End the connection. uvicorn calls this at its end."""
        self.end(_RESTART, "the server ends")

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        try:
            if len(data) <= _SLICE_BYTES and not self._reading_paused:
                self._parse(data)
                return
            for start in range(0, len(data), _SLICE_BYTES):
                if self._reading_paused:
                    self._unparsed += data[start:]
                    return
                self._parse(data[start : start + _SLICE_BYTES])
        except Exception as error:
            self._failed("socket", error)
            self._end_for_error()

    def _parse(self, data: bytes) -> None:
        reader = self._reader
        if reader.close is not None or reader.fault is not None:
            return
        messages = reader.receive(data)
        if messages and not self._closing:
            assert self._receiver is not None
            self._receiver.on_messages(messages)
        if reader.pings and not self._closing:
            self._answer(reader.pings)
        if reader.fault is not None:
            self._end_for_fault(reader.fault)
        elif reader.close is not None:
            self._on_close_frame(reader.close)

    def _answer(self, pings: list[bytes]) -> None:
        now = time.monotonic()
        gained = (now - self._pinged_at) * PINGS_PER_S
        self._ping_tokens = min(PINGS_MAX, self._ping_tokens + gained) - len(pings)
        self._pinged_at = now
        if self._ping_tokens < 0:
            self._end_for_fault(TOO_MANY_PINGS)
        elif not self._writing_paused:
            # A peer that does not read gets no pongs: they would be kept for it without a bound.
            self._transport.write(b"".join([encode(Opcode.PONG, payload) for payload in pings]))

    def _on_close_frame(self, payload: bytes) -> None:
        """The peer closes, or confirms a close. It sends nothing more, so the socket can be closed."""
        if not self._closing:
            if payload[:2] in _GOING_AWAY and self._receiver is not None:
                self._receiver.on_left()
            self._end_writing(encode(Opcode.CLOSE, payload))
        self._transport.close()

    def _end_for_fault(self, fault: FrameFault) -> None:
        """End the connection because the peer broke the protocol."""
        if not self._closing:
            self._edge.log_fault(fault)
            self._send_close(fault.code, fault.reason)
            if self._transport.can_write_eof() and not self._transport.is_closing():
                self._transport.write_eof()

    def _end_for_error(self) -> None:
        """End the connection because of a failure of this side."""
        self.end(_INTERNAL_ERROR, "internal error")

    def _send_close(self, code: int, reason: str) -> None:
        """Write the close frame, and make sure that the socket ends.

        What comes after it is read and thrown away: a socket that is closed with bytes unread is reset, and
        the peer would lose the close frame.
        """
        self._end_writing(encode_close(code, reason))

    def _end_writing(self, last: bytes) -> None:
        self._stop_writing()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._cut_off_later()
        if not self._transport.is_closing():
            self._transport.write(last)

    def pause_writing(self) -> None:
        self._writing_paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self._writing_paused = False
        super().resume_writing()

    def _stop_writing(self) -> None:
        """Accept no more writes, and parse nothing more."""
        self._unparsed = b""
        super()._stop_writing()


class ClientSocket(Socket):
    """The WebSocket of a client of the hub: a `hub.node.transport.Transport`.

    Args:
        pending: as above.
        encodings: that the client can be written to in.
        shares_compressed: whether the client takes the compressed frames that all others take.
    """

    __slots__ = ("encoding", "name")

    def __init__(
        self, pending: PendingHandshake, encodings: WebSocketEncodings, *, shares_compressed: bool
    ) -> None:
        super().__init__(pending)
        self.encoding: Encoding = encodings.compressed if shares_compressed else encodings.frames
        self.name = "websocket"

    def close(self, disconnect: Disconnect) -> None:
        """End the connection, and tell the client why."""
        self.end(disconnect.code, disconnect.reason)

    def shutdown(self) -> None:
        """End the connection. uvicorn calls this at its end, on the clients that the drain left."""
        self.close(Disconnects.SHUTDOWN)

    def _end_for_error(self) -> None:
        self.close(Disconnects.INTERNAL_ERROR)
