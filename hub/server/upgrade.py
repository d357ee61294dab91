"""WebSockets under uvicorn, from a handshake that was read on: to a connection of the hub, or to any app.

An endpoint of the hub claims the socket and attaches a connection: a message costs no queue, no task and no
pause then, and all that the handshake held is let go. Another app gets messages one at a time, as ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http.client import responses
from typing import Any, Final

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from hub.node.transport import EXTENSION
from hub.protocol.encoding import JSON, WebSocketEncodings
from hub.protocol.frames import Opcode, encode, encode_compressed
from hub.protocol.handshake import Handshake, Headers
from hub.protocol.reader import Binary, FrameReader
from hub.server.websocket import ClientSocket, Socket

EARLY_BYTES_MAX: Final = 65_536
"""What a peer may send before its handshake was answered and its socket attached."""

_LOST: Final = 1006
_NO_CODE: Final = 1005
_NORMAL: Final = 1000
_FAILED: Final = 1011

_USUAL: Final = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"}

PEERS: Final = logging.getLogger("hub.server.peers")
"""What uvicorn says of single peers. Below warnings that is a line or more for each connection, with the
query strings and the tokens in them."""
PEERS.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """What one message may be.

    Args:
        message_bytes_max: its size, after inflation where it came compressed.
        fragments_max: frames that it may come in.
    """

    message_bytes_max: int
    fragments_max: int


class HubWebSocketProtocol(asyncio.Protocol):
    """A WebSocket until it is attached: its handshake is read, and the app decides.

    Args:
        config, server_state: uvicorn's.
        limits: what one message may be.
    """

    def __init__(self, config: Config, server_state: ServerState, *, limits: WebSocketLimits) -> None:
        self.connections: set[Any] = server_state.connections
        self.early = b""
        """What the peer sent before it is known who reads it."""
        self.is_accepted = False
        self.is_over = False
        """Whether it ended before the socket was attached."""
        self.transport: asyncio.Transport
        self._app = config.loaded_app
        self._tasks = server_state.tasks
        self._limits = limits
        self._handshake: Handshake
        self._connect_told = False
        self._ended = asyncio.Event()
        self._claimed = self._released = False
        self._denial: tuple[int, Headers] | None = None
        self._body = b""
        self._app_socket: AppWebSocket | None = None

    def start(self, transport: asyncio.Transport, handshake: Handshake, scope: dict[str, Any]) -> None:
        """Ask the app.

        Args:
            transport: that the request came over.
            handshake: the client's half.
            scope: of the ASGI specification, without its extensions.
        """
        self.transport = transport
        self._handshake = handshake
        self.connections.add(self)
        transport.set_protocol(self)
        # It refers back here, so the app alone keeps it.
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: partial(self._claim, scope)}
        task = asyncio.get_running_loop().create_task(self._run(scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _claim(self, scope: dict[str, Any], encodings: WebSocketEncodings = JSON) -> ClientSocket:
        """Have a socket that is attached to a connection after `websocket.accept`.

        Args:
            scope: which no longer offers it.
            encodings: of the subprotocol that it will be accepted with.
        """
        self._claimed = True
        del scope["extensions"][EXTENSION]
        return ClientSocket(self, encodings, shares_compressed=self._shares_compressed)

    @property
    def _shares_compressed(self) -> bool:
        agreed = self._handshake.compression
        return agreed is not None and agreed.is_shared

    def reader(self) -> FrameReader:
        limits = self._limits
        inflates = self._handshake.compression is not None
        return FrameReader(limits.message_bytes_max, limits.fragments_max, inflates=inflates)

    def release(self) -> None:
        self._released = True
        self.connections.discard(self)

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            PEERS.exception("an app failed on a WebSocket")
            self._leave(_FAILED)
        else:
            self._leave(_NORMAL)

    def _leave(self, code: int) -> None:
        """End what the app left open."""
        if self._app_socket is not None:
            self._app_socket.end(code)
        elif not self.is_accepted and not self.is_over:
            self._refuse(500, (), b"the app did not answer\n")
        elif not self._released:
            self.transport.close()

    # What the app calls

    async def receive(self) -> ASGIReceiveEvent:
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        if self._app_socket is not None:
            return await self._app_socket.receive()
        await self._ended.wait()
        return {"type": "websocket.disconnect", "code": _LOST, "reason": None}

    async def send(self, message: ASGISendEvent) -> None:
        if self._app_socket is not None:
            await self._app_socket.send(message)
        elif self.is_over:
            raise ClientDisconnected
        elif message["type"] == "websocket.accept" and self._is_undecided:
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif message["type"] == "websocket.close" and self._is_undecided:
            self._refuse(403, (), b"the app refused the connection\n")
        elif message["type"] == "websocket.http.response.start" and not self.is_accepted:
            self._denial = message["status"], message.get("headers", ())
        elif message["type"] == "websocket.http.response.body" and self._denial is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                self._refuse(*self._denial, self._body)
        else:
            raise _misplaced(message)

    @property
    def _is_undecided(self) -> bool:
        """Whether the app has still to decide."""
        return not self.is_accepted and self._denial is None

    def _accept(self, subprotocol: str | None, headers: Headers) -> None:
        self.is_accepted = True
        self.transport.write(self._handshake.accept(subprotocol, headers))
        if not self._claimed:
            self._app_socket = AppWebSocket(Socket(self), compresses=self._shares_compressed)

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        self.is_over = True
        self._ended.set()
        self.transport.write(_response(status, headers, body))
        self.transport.close()

    # What the event loop calls, and uvicorn

    def data_received(self, data: bytes) -> None:
        if not self.is_over:
            self.early += data
            if len(self.early) > EARLY_BYTES_MAX:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.is_over = True
        self._ended.set()

    def shutdown(self) -> None:
        """What uvicorn calls at its end."""
        if self.is_accepted:
            self.transport.close()
        elif not self.is_over:
            self._refuse(503, (), b"the server ends\n")


def _misplaced(message: ASGISendEvent) -> RuntimeError:
    return RuntimeError(f"an app sent {message['type']} where an ASGI WebSocket has no place for it")


def _response(status: int, headers: Headers, body: bytes) -> bytes:
    """A response that ends the connection."""
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    lines = {name.lower(): f"{name}: {value}" for name, value in _USUAL.items()}
    lines["content-length"] = f"Content-Length: {len(body)}"
    for name, _ in given:
        lines.pop(name.lower(), None)
    status_line = f"HTTP/1.1 {status} {responses.get(status, '')}"
    head = [status_line, *(f"{name}: {value}" for name, value in given), *lines.values()]
    return "\r\n".join((*head, "\r\n")).encode("latin-1") + body


class AppWebSocket:
    """The receiver of a socket that an ASGI app keeps for itself.

    Args:
        socket: of a handshake that was accepted. It is attached here.
        compresses: whether the peer takes compressed frames.
    """

    def __init__(self, socket: Socket, *, compresses: bool) -> None:
        self._socket = socket
        self._encode = encode_compressed if compresses else encode
        self._messages: deque[bytes] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_over = False
        self._ended_by_app = False
        socket.attach(self)

    # What the app calls

    async def receive(self) -> ASGIReceiveEvent:
        """The next message, or that there will be none."""
        if not self._messages and not self._is_over:
            self._socket.resume_reading()
            await self._readable.wait()
        if not self._messages:
            return self._disconnect()
        message = self._messages.popleft()
        if not self._messages and not self._is_over:
            self._readable.clear()
        if isinstance(message, Binary):
            return {"type": "websocket.receive", "bytes": message}
        return {"type": "websocket.receive", "text": message.decode()}

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message, and wait while the peer does not read; or close."""
        if message["type"] not in ("websocket.send", "websocket.close") or self._ended_by_app:
            raise _misplaced(message)
        if self._is_over:
            raise ClientDisconnected
        if message["type"] == "websocket.close":
            self.end(message.get("code", _NORMAL), message.get("reason") or "")
            return
        text = message.get("text")
        if text is not None:
            self._socket.write(self._encode(Opcode.TEXT, text.encode()))
        else:
            self._socket.write(self._encode(Opcode.BINARY, message["bytes"] or b""))
        await self._writable.wait()

    def end(self, code: int, reason: str = "") -> None:
        """Close the socket, where it is open."""
        self._socket.end(code, reason)
        self._ended_by_app = True

    def _disconnect(self) -> ASGIReceiveEvent:
        payload = self._socket.peers_close
        if payload is None:
            code, reason = _LOST, ""
        else:
            code = int.from_bytes(payload[:2], "big") or _NO_CODE
            reason = payload[2:].decode()
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    # What the socket calls

    def on_messages(self, messages: Sequence[bytes]) -> None:
        self._messages += messages
        self._readable.set()
        self._socket.pause_reading()

    def on_write_paused(self) -> None:
        self._writable.clear()

    def on_write_resumed(self) -> None:
        self._writable.set()

    def on_left(self) -> None:
        pass

    def on_closing(self) -> None:
        self._is_over = True
        self._readable.set()
        self._writable.set()

    def on_closed(self) -> None:
        pass
