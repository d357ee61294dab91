"""WebSockets under uvicorn: its handshake, and then a socket of ours that talks straight to a connection.

Until an endpoint attaches a receiver, this is uvicorn's own protocol and any ASGI app works on it as ever.
From then on a message costs no queue, no task and no pause, and all that the handshake held is let go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol

from hub.node.transport import EXTENSION, Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import JSON, Encoding, WebSocketEncodings
from hub.protocol.frames import WINDOW_BITS, Opcode, encode, encode_close
from hub.protocol.reader import PINGS_MAX, TOO_MANY_PINGS, Fault, FrameReader
from hub.telemetry import get_logger

_LEAVING: Final = (b"", *(code.to_bytes(2, "big") for code in (1000, 1001)))
"""Close codes of a client that does not mean to come back: none, normal, and a page that is left."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer has to take our close frame and end its side, before it is cut off."""

PINGS_PER_S: Final = 10.0

WRITE_BUFFER_BYTES: Final = 16_384
"""What may wait beside the kernel's buffer before a client counts as behind, and its outbox takes over."""

EARLY_BYTES_MAX: Final = 65_536
"""What a peer may send before its handshake was answered and its socket attached."""

_SLICE_BYTES: Final = 16_384
"""What is read at a time: one chunk from the event loop can hold thirty thousand commands."""

_log = get_logger("hub.server")

PEERS: Final = logging.getLogger("hub.server.peers")
"""What uvicorn and websockets say of single peers. Below warnings that is a line or more for each connection
and each frame, with the query strings and the tokens in them."""
PEERS.setLevel(logging.WARNING)
# uvicorn takes every handshake that an app refuses for a fault of the app's, and in a crowd these are many.
PEERS.addFilter(lambda record: "without completing handshake" not in record.getMessage())


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """What one message may be.

    Args:
        message_bytes_max: its size, after inflation where it came compressed.
        fragments_max: frames that it may come in.
    """

    message_bytes_max: int
    fragments_max: int


class HubWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with a `ClientSocket` on offer in the ASGI scope.

    Args:
        limits: what one message may be, once a receiver is attached.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: WebSocketLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self.claimed = False
        self.early = b""
        """What the peer sent before it is known who reads it."""
        self.logger = PEERS
        self.conn.logger = PEERS
        self.conn.debug = False
        if config.ws_per_message_deflate:
            # With no context takeover one compressed message serves all, and an idle client holds no window.
            self.conn.available_extensions = [ServerPerMessageDeflateFactory(True, True)]

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and (self.claimed or not self.handshake_complete):
            self.early += data
            if len(self.early) > EARLY_BYTES_MAX:
                self.transport.abort()
            return
        super().data_received(data)
        if not self.handshake_initiated:
            # A head that uvicorn's HTTP parser let pass and the WebSocket one did not makes no event, and so
            # would leave the socket open for ever.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:
            # The scope's type lists the extensions of the ASGI specification alone.
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self.claim

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.early and self.handshake_complete and not self.claimed:
            early, self.early = self.early, b""
            super().data_received(early)

    def claim(self, encodings: WebSocketEncodings = JSON) -> ClientSocket:
        """Keep what the peer sends from now on for a receiver, which is attached after `websocket.accept`.

        Args:
            encodings: of the subprotocol that it will be accepted with.
        """
        self.claimed = True
        del cast("dict[str, Any]", self.scope["extensions"])[EXTENSION]  # it refers back here
        return ClientSocket(self, encodings)

    def detach(self) -> None:
        """Let go of the socket: the app's return then closes nothing, and this object goes with it."""
        self.connections.discard(self)
        self.transport = _Released()
        self.disconnected = True


class _Released(asyncio.Transport):
    """What a protocol holds whose socket has another owner now."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass


def _deflate(conn: ServerProtocol) -> PerMessageDeflate | None:
    """The compression that was negotiated, where one was."""
    return next((each for each in conn.extensions if isinstance(each, PerMessageDeflate)), None)


class ClientSocket(asyncio.Protocol):
    """The WebSocket of one client: a `hub.node.transport.Transport` that was never accepted until `attach`.

    Args:
        handshake: the protocol that accepts it.
        encodings: that the client can be written to in.
    """

    __slots__ = (
        "_abort",
        "_closing",
        "_connections",
        "_handshake",
        "_held",
        "_ping_tokens",
        "_pinged_at",
        "_reader",
        "_reading_paused",
        "_receiver",
        "_transport",
        "_writing_paused",
        "encoding",
        "name",
        "write",
    )

    def __init__(self, handshake: HubWebSocketProtocol, encodings: WebSocketEncodings) -> None:
        deflate = _deflate(handshake.conn)
        # A compressed frame refers to no other, and so serves all but those who want a smaller window.
        shares_compressed = deflate is not None and deflate.local_max_window_bits == WINDOW_BITS
        self.encoding: Encoding = encodings.compressed if shares_compressed else encodings.frames
        self.name = "websocket"
        self._handshake: HubWebSocketProtocol | None = handshake
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport = handshake.transport
        self.write: Callable[[bytes], object] = handshake.transport.write
        self._connections: set[Any] = handshake.connections
        self._reader = FrameReader(
            handshake.limits.message_bytes_max,
            handshake.limits.fragments_max,
            inflates=deflate is not None,
        )
        self._held = b""
        self._closing = False
        self._reading_paused = False
        self._writing_paused = False
        self._abort: TimerHandle | None = None
        self._ping_tokens: float = PINGS_MAX
        self._pinged_at = 0.0

    def attach(self, receiver: Receiver) -> None:
        """Hand the socket to a receiver, after the ASGI `websocket.accept`. The endpoint returns then.

        Args:
            receiver: gets what has come already before this returns, and the rest in the event loop.
        """
        handshake = self._handshake
        assert handshake is not None, "a socket is attached once"
        assert handshake.handshake_complete, "a socket is attached after it was accepted"
        self._handshake = None
        self._receiver = receiver
        lost = handshake.disconnected
        self._closing = lost or handshake.close_sent or self._transport.is_closing()
        handshake.detach()
        if lost:
            handshake.loop.call_soon(self._end)
            return
        self._connections.add(self)
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if handshake.early:
            self.data_received(handshake.early)

    # What the connection calls

    def close(self, disconnect: Disconnect) -> None:
        """Send a close frame and hear no more messages. A peer that stays is cut off in a second."""
        if not self._closing:
            self._say_last(disconnect.code, disconnect.reason)

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
        """What uvicorn calls at its end, on those whom the drain left."""
        self.close(Disconnects.SHUTDOWN)

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

    def _cut_off_later(self) -> None:
        if self._abort is None:
            loop = asyncio.get_running_loop()
            self._abort = loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def eof_received(self) -> None:
        # The event loop closes the socket now, but only when all is flushed, and the peer may never read.
        self._close_up()
        self._cut_off_later()

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self._receiver is not None and not self._closing:
            self._receiver.on_write_paused()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._receiver is not None and not self._closing:
            self._receiver.on_write_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._end()

    def _close_up(self) -> None:
        """Have nothing more written, and nothing more read."""
        self._held = b""
        if not self._closing:
            self._closing = True
            if self._receiver is not None:
                self._receiver.on_closing()

    def _end(self) -> None:
        self._close_up()
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_closed()
