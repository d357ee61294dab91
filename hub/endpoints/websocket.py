"""`/connection/websocket`: a client's connection over a WebSocket."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import CloseCode

from hub.node.admission import retry_after
from hub.node.node import Node
from hub.node.transport import EXTENSION, Receiver
from hub.protocol.codes import Disconnect
from hub.protocol.encoding import JSON, SUBPROTOCOLS, WebSocketEncodings
from hub.telemetry import get_logger

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer may take to read what is left, and the close, before it is cut off."""

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_log = get_logger("hub.websocket")


class WebSocketEndpoint:
    """The ASGI app of the endpoint.

    Args:
        node: that holds the connections.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            response = PlainTextResponse("this is a WebSocket endpoint: connect with ws:// or wss://\n", 426)
            await response(scope, receive, send)
            return
        websocket = WebSocket(scope, receive, send)
        refusal = self._refusal(websocket)
        if refusal:
            await _deny(websocket, refusal)
            return
        offered = websocket.scope["subprotocols"]
        subprotocol = next((name for name in offered if name in SUBPROTOCOLS), None)
        encodings = SUBPROTOCOLS[subprotocol] if subprotocol else JSON
        claim = scope.get("extensions", {}).get(EXTENSION)
        direct = claim(encodings) if claim is not None else None
        await websocket.accept(subprotocol)
        headers, address = _headers(websocket), _address(websocket)
        if direct is not None:
            direct.attach(self._node.accept(direct, headers, address))
            return
        transport = ASGITransport(websocket, encodings, self._node.settings.client.message_bytes_max)
        await transport.run(self._node.accept(transport, headers, address))

    def _refusal(self, websocket: WebSocket) -> PlainTextResponse | None:
        """Why this handshake is answered with an HTTP error, where it is."""
        if _has_token(websocket.scope["query_string"]):
            _log.warning("client.token_in_url", path=websocket.url.path)
            return PlainTextResponse(
                "a token in the URL would be logged: send it in the connect command\n", 400
            )
        origins = websocket.headers.getlist("origin")
        settings = self._node.settings
        host = websocket.headers.get("host", "")
        if not all(
            is_allowed(origin, host, settings.client.allowed_origins, dev=settings.dev) for origin in origins
        ):
            _log.warning("origin.refused", origin=origins[0])
            return PlainTextResponse("this origin is not in client.allowed_origins\n", 403)
        if reason := self._node.refusal(_address(websocket)):
            text = f"this node takes no connection now ({reason}): retry later\n"
            return PlainTextResponse(text, 503, {"Retry-After": retry_after()})
        return None


async def _deny(websocket: WebSocket, response: Response) -> None:
    """Refuse a handshake; a server that cannot send the response answers 403 by itself."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
    else:
        await websocket.close()


def is_allowed(origin: str, host: str, allowed: tuple[str, ...], *, dev: bool) -> bool:
    """Whether a page may connect: one of the same host, one on the list, in development a local one.

    Compared to the letter, since a browser writes an origin in one way only (RFC 6454 section 6.2).

    Args:
        origin: the Origin header.
        host: the Host header of the same request.
        allowed: origins, or `*` for all.
        dev: whether the hub is in development mode.
    """
    if "*" in allowed or origin in allowed:
        return True
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
        return False
    if parts.netloc == host:
        return True
    return dev and parts.netloc.rpartition(":")[0 if ":" in parts.netloc else 2] in _LOCAL


def _has_token(query: bytes) -> bool:
    return any(
        "token" in name.lower()
        or "jwt" in name.lower()
        or (value.startswith("eyJ") and value.count(".") == 2)
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    )


def _headers(websocket: WebSocket) -> Headers:
    return Headers(raw=list(websocket.headers.raw))


def _address(websocket: WebSocket) -> str:
    return websocket.client.host if websocket.client else ""


class ASGITransport:
    """A `Transport` over plain ASGI, for a server that is not the hub's own.

    While one send is under way the connection is told to wait, so that its outbox bounds a slow client.

    Args:
        websocket: accepted.
        encodings: of the subprotocol that it was accepted with.
        message_bytes_max: a longer message ends the connection; the server may hold more before it is seen.
    """

    name = "websocket"

    def __init__(self, websocket: WebSocket, encodings: WebSocketEncodings, message_bytes_max: int) -> None:
        self.encoding = encodings.messages
        self._websocket = websocket
        self._message_bytes_max = message_bytes_max
        self._to_send: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._closing: tuple[int, str] | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    async def run(self, receiver: Receiver) -> None:
        """Serve the connection until it ends."""
        self._receiver = receiver
        self._sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        tasks = (receiving, self._sending)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            # With nothing awaited: a server that cancels this may do so at each await.
            for task in tasks:
                task.cancel()
            receiver.on_closed()
            if self._cut_off:
                self._cut_off.cancel()

    def write(self, data: bytes) -> None:
        if self._closing is None:
            self._to_send.append(data)
            self._wake.set()
            self._receiver.on_write_paused()

    def close(self, disconnect: Disconnect) -> None:
        self._close(disconnect.code, disconnect.reason)

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    def _close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = code, reason
            self._wake.set()
            # A peer that does not read would keep the last send waiting for ever.
            loop = asyncio.get_running_loop()
            self._cut_off = loop.call_later(CLOSE_TIMEOUT_S, self._sending.cancel)

    async def _receive(self) -> None:
        while True:
            await self._readable.wait()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            data = message["bytes"] if text is None else text.encode()
            if len(data) > self._message_bytes_max:
                self._close(CloseCode.MESSAGE_TOO_BIG, "message too big")
            elif self._closing is None:
                self._receiver.on_messages((data,))

    async def _send(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._to_send:
                    await self._send_message(self._to_send.popleft())
                if self._closing:
                    await self._websocket.close(*self._closing)
                    return
                self._receiver.on_write_resumed()
        except (WebSocketDisconnect, RuntimeError):
            return  # the peer is gone

    async def _send_message(self, data: bytes) -> None:
        if self.encoding.codec.is_text:
            await self._websocket.send_text(data.decode())
        else:
            await self._websocket.send_bytes(data)
