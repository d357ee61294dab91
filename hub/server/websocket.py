"""A WebSocket after its handshake: frames in, to whoever is attached, and bytes out as they are."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, Protocol

from hub.node.transport import Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import Encoding, WebSocketEncodings
from hub.protocol.frames import Opcode, encode, encode_close
from hub.protocol.reader import PINGS_MAX, TOO_MANY_PINGS, Fault, FrameReader
from hub.server.transport import ClientTransport
from hub.telemetry import get_logger

PINGS_PER_S: Final = 10.0

_LEAVING: Final = (b"", *(code.to_bytes(2, "big") for code in (1000, 1001)))
"""Close codes of a client that does not mean to come back: none, normal, and a page that is left."""

_SLICE_BYTES: Final = 16_384
"""What is read at a time: one chunk from the event loop can hold thirty thousand commands."""

_RESTART: Final = 1012

_log = get_logger("hub.server")


class Opening(Protocol):
    """The handshake that comes before a socket."""

    transport: asyncio.Transport
    connections: set[Any]
    early: bytes
    is_accepted: bool
    is_over: bool

    def reader(self) -> FrameReader:
        """Makes what reads the peer's frames."""

    def release(self) -> None:
        """The transport has another owner now."""


class Socket(ClientTransport):
    """The WebSocket of one peer: nobody's until `attach`.

    Args:
        opening: the handshake that it comes from.
    """

    __slots__ = (
        "_held",
        "_opening",
        "_ping_tokens",
        "_pinged_at",
        "_reader",
        "_reading_paused",
        "_writing_paused",
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening.transport, opening.connections)
        self._opening: Opening | None = opening
        self._reader = opening.reader()
        self._held = b""
        self._reading_paused = False
        self._writing_paused = False
        self._ping_tokens: float = PINGS_MAX
        self._pinged_at = 0.0

    def attach(self, receiver: Receiver) -> None:
        """Hand the socket to a receiver, after the ASGI `websocket.accept`.

        Args:
            receiver: gets what has come already before this returns, and the rest in the event loop.
        """
        opening = self._opening
        assert opening is not None, "a socket is attached once"
        assert opening.is_accepted, "a socket is attached after it was accepted"
        self._opening = None
        self._receiver = receiver
        self._closing = opening.is_over or self._transport.is_closing()
        opening.release()
        if opening.is_over:
            asyncio.get_running_loop().call_soon(self._end)
            return
        self._take_over()
        if opening.early:
            self.data_received(opening.early)

    @property
    def peers_close(self) -> bytes | None:
        """The payload of the peer's close frame, once it came."""
        return self._reader.close

    # What the receiver calls

    def end(self, code: int, reason: str) -> None:
        """Send a close frame and hear no more messages. A peer that stays is cut off in a second.

        Args:
            code: 1000 to 4999.
            reason: at most 123 bytes of UTF-8.
        """
        if not self._closing:
            self._say_last(code, reason)

    def pause_reading(self) -> None:
        """Take nothing more from the peer. Messages of the last few kilobytes that were read still come."""
        if not self._reading_paused and not self._closing:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take from the peer again, first what had been read already."""
        if not self._reading_paused:
            return
        self._reading_paused = False
        held, self._held = self._held, b""
        if held:
            self.data_received(held)
        if not self._reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """What uvicorn calls at its end."""
        self.end(_RESTART, "the server ends")

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        if len(data) <= _SLICE_BYTES and not self._reading_paused:
            self._take(data)
            return
        for start in range(0, len(data), _SLICE_BYTES):
            if self._reading_paused:
                self._held += data[start:]
                return
            self._take(data[start : start + _SLICE_BYTES])

    def _take(self, data: bytes) -> None:
        reader = self._reader
        if reader.is_over:
            return
        messages = reader.receive(data)
        if messages and not self._closing:
            assert self._receiver is not None
            self._receiver.on_messages(messages)
        if reader.pings and not self._closing:
            self._answer(reader.pings)
        if reader.fault is not None:
            self._fail(reader.fault)
        elif reader.close is not None:
            self._on_close_frame(reader.close)

    def _answer(self, pings: list[bytes]) -> None:
        now = time.monotonic()
        gained = (now - self._pinged_at) * PINGS_PER_S
        self._ping_tokens = min(PINGS_MAX, self._ping_tokens + gained) - len(pings)
        self._pinged_at = now
        if self._ping_tokens < 0:
            self._fail(TOO_MANY_PINGS)
        elif not self._writing_paused:
            # A peer that does not read gets no pongs: they would be kept for it without a bound.
            self._transport.write(b"".join([encode(Opcode.PONG, payload) for payload in pings]))

    def _on_close_frame(self, payload: bytes) -> None:
        """The peer closes, or agrees that we do: nothing is to come from it, so the socket can go."""
        if not self._closing:
            if payload[:2] in _LEAVING and self._receiver is not None:
                self._receiver.on_left()
            self._end_writing(encode(Opcode.CLOSE, payload))
        self._transport.close()

    def _fail(self, fault: Fault) -> None:
        """End the connection for a fault of the peer's."""
        if not self._closing:
            _log.info("client.fault", code=fault.code, reason=fault.reason)
            self._say_last(fault.code, fault.reason)
            if self._transport.can_write_eof() and not self._transport.is_closing():
                self._transport.write_eof()

    def _say_last(self, code: int, reason: str) -> None:
        """Write the close frame, and see to it that the socket ends.

        It is read on, and what comes thrown away: to close a socket with bytes unread resets it, and the peer
        would lose the close frame.
        """
        self._end_writing(encode_close(code, reason))

    def _end_writing(self, last: bytes) -> None:
        self._close_up()
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

    def _close_up(self) -> None:
        """Have nothing more written, and nothing more read."""
        self._held = b""
        super()._close_up()


class ClientSocket(Socket):
    """A client's: a `hub.node.transport.Transport`.

    Args:
        opening: as above.
        encodings: that the client can be written to in.
        shares_compressed: whether it takes the compressed frames that all others take.
    """

    __slots__ = ("encoding", "name")

    def __init__(self, opening: Opening, encodings: WebSocketEncodings, *, shares_compressed: bool) -> None:
        super().__init__(opening)
        self.encoding: Encoding = encodings.compressed if shares_compressed else encodings.frames
        self.name = "websocket"

    def close(self, disconnect: Disconnect) -> None:
        self.end(disconnect.code, disconnect.reason)

    def shutdown(self) -> None:
        """What uvicorn calls at its end, on those whom the drain left."""
        self.close(Disconnects.SHUTDOWN)
