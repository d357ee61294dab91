"""A WebSocket for an ASGI app other than the hub's endpoints: it gets the events of the specification."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from hub.protocol.frames import Opcode, encode, encode_compressed
from hub.protocol.reader import Binary
from hub.server._uvicorn import ASGIReceiveEvent, ASGISendEvent, ClientDisconnected
from hub.server.websocket import Socket

LOST: Final = 1006
"""The close code of a connection that ended without a close frame."""

NORMAL: Final = 1000

_NO_CODE: Final = 1005


def misplaced(message: ASGISendEvent) -> RuntimeError:
    """The error of an app that sent an event where ASGI has no place for it."""
    return RuntimeError(f"an app sent {message['type']} where an ASGI WebSocket has no place for it")


class AppWebSocket:
    """The receiver of a socket whose messages an ASGI app reads and writes itself.

    Args:
        socket: of a handshake that was accepted. The constructor attaches it.
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
        """Return the next message, or the disconnect event where there will be none."""
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
        """Send a message, and wait while the peer does not read; or close the socket.

        Raises:
            ClientDisconnected: the peer is gone.
            RuntimeError: ASGI has no place for this event now.
        """
        if message["type"] not in ("websocket.send", "websocket.close") or self._ended_by_app:
            raise misplaced(message)
        if self._is_over:
            raise ClientDisconnected
        if message["type"] == "websocket.close":
            self.end(message.get("code", NORMAL), message.get("reason") or "")
            return
        text = message.get("text")
        if text is not None:
            self._socket.write(self._encode(Opcode.TEXT, text.encode()))
        else:
            self._socket.write(self._encode(Opcode.BINARY, message["bytes"] or b""))
        await self._writable.wait()

    def end(self, code: int, reason: str = "") -> None:
        """Close the socket, if it is open."""
        self._socket.end(code, reason)
        self._ended_by_app = True

    def _disconnect(self) -> ASGIReceiveEvent:
        payload = self._socket.peers_close
        if payload is None:
            code, reason = LOST, ""
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
