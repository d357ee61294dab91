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

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from hub.node.transport import EXTENSION, Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import JSON_COMPRESSED, JSON_FRAMES, Encoding
from hub.protocol.frames import WINDOW_BITS
from hub.telemetry import get_logger

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer has to take our close frame and end its side, before it is cut off."""

PINGS_PER_S: Final = 10.0
PINGS_BURST: Final = 20.0

WRITE_BUFFER_BYTES: Final = 16_384
"""What may wait beside the kernel's buffer before a client counts as behind, and its outbox takes over."""

_SLICE_BYTES: Final = 4096
"""What the parser is given at a time: one read can hold forty thousand pings, and it answers them all."""

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
        self.logger = PEERS
        self.conn.logger = PEERS
        self.conn.debug = False
        if config.ws_per_message_deflate:
            # With no context takeover one compressed message serves all, and an idle client holds no window.
            self.conn.available_extensions = [ServerPerMessageDeflateFactory(True, True)]

    def data_received(self, data: bytes) -> None:
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
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = ClientSocket(self)

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


def _shares_compressed(conn: ServerProtocol) -> bool:
    """Whether the peer takes compressed frames that refer to no other, whoever else gets them."""
    return any(
        isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits == WINDOW_BITS
        for extension in conn.extensions
    )


class ClientSocket(asyncio.Protocol):
    """The WebSocket of one client: a `hub.node.transport.Transport` that was never accepted until `attach`.

    Args:
        handshake: the protocol that accepts it.
    """

    __slots__ = (
        "_abort",
        "_closing",
        "_conn",
        "_connections",
        "_fragments",
        "_handshake",
        "_held",
        "_is_text",
        "_limits",
        "_messages",
        "_ping_tokens",
        "_pinged_at",
        "_reading_paused",
        "_receiver",
        "_transport",
        "_writing_paused",
        "encoding",
        "name",
        "write",
    )

    def __init__(self, handshake: HubWebSocketProtocol) -> None:
        self.encoding: Encoding = JSON_COMPRESSED if _shares_compressed(handshake.conn) else JSON_FRAMES
        self.name = "websocket"
        self._handshake: HubWebSocketProtocol | None = handshake
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport = handshake.transport
        self.write: Callable[[bytes], object] = handshake.transport.write
        self._conn: ServerProtocol = handshake.conn
        self._connections: set[Any] = handshake.connections
        self._limits = handshake.limits
        self._fragments: list[bytes] = []
        self._messages: list[bytes] = []
        self._is_text = True
        self._held = b""
        self._closing = False
        self._reading_paused = False
        self._writing_paused = False
        self._abort: TimerHandle | None = None
        self._ping_tokens = PINGS_BURST
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
        self._fragments = handshake.frames
        self._is_text = handshake.curr_msg_data_type == "text"
        paused, lost = handshake.read_paused, handshake.disconnected
        self._closing = lost or handshake.close_sent or self._transport.is_closing()
        queue = handshake.queue
        loop = handshake.loop
        handshake.detach()
        if lost:
            loop.call_soon(self._end)
            return
        self._connections.add(self)
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        while not queue.empty() and not self._closing:
            event = cast("dict[str, Any]", queue.get_nowait())
            if event["type"] == "websocket.receive":
                text: str | None = event.get("text")
                receiver.on_messages((event["bytes"] if text is None else text.encode(),))
        if paused and not self._reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    # What the connection calls

    def close(self, disconnect: Disconnect) -> None:
        """Send a close frame and hear no more messages. A peer that stays is cut off in a second."""
        if self._closing:
            return
        # The parser may be ahead of the messages that it found, and have closed already.
        if self._conn.state is State.OPEN:
            self._conn.send_close(disconnect.code, disconnect.reason)
        self._say_last(self._conn.data_to_send())

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
        for start in range(0, len(data), _SLICE_BYTES):
            if self._reading_paused:
                self._held += data[start:]
                return
            self._conn.receive_data(data[start : start + _SLICE_BYTES])
            for frame in self._conn.events_received():
                self._on_frame(cast(Frame, frame))
            if self._conn.parser_exc is None:
                self._answer()
            self._hand_over()
            if self._conn.parser_exc is not None:
                self._answer()

    def _hand_over(self) -> None:
        """Give the receiver what has come."""
        if self._messages and not self._closing:
            messages, self._messages = self._messages, []
            assert self._receiver is not None
            self._receiver.on_messages(messages)

    def _answer(self) -> None:
        """Write what the parser has to say: pongs, the echo of a close, or why it gave up."""
        output = self._conn.data_to_send()
        failure = self._conn.parser_exc
        if self._closing:
            return
        if failure is not None:
            close = self._conn.close_sent
            _log.info("client.fault", code=close.code if close else 0, reason=str(failure))
            self._say_last(output)
        elif output and not self._writing_paused:
            # A peer that does not read gets no pongs: they would be kept for it without a bound.
            self._transport.write(b"".join(output))

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.CLOSE:
            self._on_close_frame()
        elif self._closing:
            return
        elif opcode is Opcode.PING:
            self._on_ping()
        elif opcode is Opcode.CONT:
            self._on_fragment(frame)
        elif opcode is not Opcode.PONG:
            self._is_text = opcode is Opcode.TEXT
            if frame.fin:
                self._on_message(cast(bytes, frame.data))
            else:
                self._fragments = [cast(bytes, frame.data)]

    def _on_fragment(self, frame: Frame) -> None:
        self._fragments.append(cast(bytes, frame.data))
        if len(self._fragments) > self._limits.fragments_max:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        elif frame.fin:
            data = b"".join(self._fragments)
            self._fragments = []
            self._on_message(data)

    def _on_message(self, data: bytes) -> None:
        if self._is_text and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "text is not UTF-8")
                return
        self._messages.append(data)

    def _on_ping(self) -> None:
        now = time.monotonic()
        gained = (now - self._pinged_at) * PINGS_PER_S
        self._ping_tokens = min(PINGS_BURST, self._ping_tokens + gained) - 1
        self._pinged_at = now
        if self._ping_tokens < 0:
            self._fail(CloseCode.POLICY_VIOLATION, "too many pings")

    def _on_close_frame(self) -> None:
        """The peer closes, or agrees that we do: nothing is to come from it, so the socket can go."""
        self._hand_over()
        output = self._conn.data_to_send()
        if not self._closing:
            self._say_last(output)
        self._transport.close()

    def _fail(self, code: int, reason: str) -> None:
        """End the connection for a fault of the peer's."""
        self._hand_over()
        if self._closing:
            return
        _log.info("client.fault", code=int(code), reason=reason)
        self._conn.data_to_send()
        self._conn.fail(code, reason)
        self._say_last(self._conn.data_to_send())

    def _say_last(self, output: list[bytes]) -> None:
        """Write the last bytes, and see to it that the socket ends.

        It is read on, and what comes thrown away: to close a socket with bytes unread resets it, and the peer
        would lose the close frame.
        """
        self._close_up()
        self._fragments = []
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._cut_off_later()
        if self._transport.is_closing():
            return
        self._transport.write(b"".join(output))
        # An empty chunk is the parser's sign that nothing follows.
        if b"" in output and self._transport.can_write_eof():
            self._transport.write_eof()

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
        self._messages = []
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
