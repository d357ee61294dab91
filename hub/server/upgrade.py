"""WebSocket handshakes: the app decides, and the socket goes to a connection of the hub or to any other app.

An endpoint of the hub claims the socket and attaches a connection: a message then costs no queue and no task,
and all that the handshake held is freed. Any other app gets ASGI events.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from functools import partial
from http.client import responses
from typing import Any, Final
from weakref import proxy

from hub.node.transport import EXTENSION
from hub.protocol.encoding import JSON, WebSocketEncodings
from hub.protocol.handshake import Handshake
from hub.protocol.heads import Headers
from hub.protocol.reader import FrameReader
from hub.server._uvicorn import PEERS, ASGIReceiveEvent, ASGISendEvent, ClientDisconnected
from hub.server.asgi_websocket import LOST, NORMAL, AppWebSocket, misplaced
from hub.server.edge import Edge
from hub.server.transport import CLOSE_TIMEOUT_S
from hub.server.websocket import ClientSocket, PendingHandshake, Socket

EARLY_BYTES_MAX: Final = 65_536
"""What a peer may send before its handshake was answered and its socket attached."""

_FAILED: Final = 1011

_USUAL: Final = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"}


class HandshakeProtocol(asyncio.Protocol):
    """The protocol of a WebSocket from the request until a receiver is attached.

    Args:
        transport: that the request came over.
        handshake: the client's half.
        connections, tasks: the server's.
        edge: of the server.
        early: what came behind the request.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        handshake: Handshake,
        connections: set[Any],
        tasks: set[asyncio.Task[None]],
        edge: Edge,
        early: bytes = b"",
    ) -> None:
        self._transport = transport
        self._handshake = handshake
        self._connections = connections
        self._tasks = tasks
        inflates = handshake.compression is not None
        reader = FrameReader(edge.message_bytes_max, edge.fragments_max, inflates=inflates)
        self._pending = PendingHandshake(transport, connections, reader, edge, early)
        self._connect_told = False
        self._ended = asyncio.Event()
        self._claimed = False
        self._denial: tuple[int, Headers] | None = None
        self._body = b""
        self._app_socket: AppWebSocket | None = None
        self._abort: asyncio.TimerHandle | None = None

    def start(self, app: Any, scope: dict[str, Any]) -> None:
        """Ask the app.

        Args:
            app: the ASGI app.
            scope: of the ASGI specification, without its extensions.
        """
        self._connections.add(self)
        self._transport.set_protocol(self)
        # The offer must not keep the scope that it is in: the cycle would outlive the handshake.
        claim = partial(HandshakeProtocol._claim, proxy(self))
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: claim}
        task = asyncio.get_running_loop().create_task(self._run(app, scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _claim(self, encodings: WebSocketEncodings = JSON) -> ClientSocket:
        """Return the socket for a connection of the hub, which is attached after `websocket.accept`.

        Args:
            encodings: of the subprotocol that it will be accepted with.
        """
        self._claimed = True
        return ClientSocket(self._pending, encodings, shares_compressed=self._shares_compressed)

    @property
    def _shares_compressed(self) -> bool:
        agreed = self._handshake.compression
        return agreed is not None and agreed.is_shared

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            # The app raises it too, such as from a task of its own that was cancelled.
            self._leave(_FAILED)
            raise
        except Exception:
            PEERS.exception("an app failed on a WebSocket")
            self._leave(_FAILED)
        else:
            self._leave(NORMAL)

    def _leave(self, code: int) -> None:
        """End what the app left open."""
        pending = self._pending
        if self._app_socket is not None:
            self._app_socket.end(code)
        elif not pending.is_accepted and not pending.is_over:
            self._refuse(500, (), b"the app did not answer\n")
        elif not pending.is_attached:
            self._transport.close()

    # What the app calls

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next event of the ASGI specification."""
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        if self._app_socket is not None:
            return await self._app_socket.receive()
        await self._ended.wait()
        return {"type": "websocket.disconnect", "code": LOST, "reason": None}

    async def send(self, message: ASGISendEvent) -> None:
        """Carry out an event of the ASGI specification.

        Raises:
            ClientDisconnected: the peer is gone.
            RuntimeError: ASGI has no place for this event now.
        """
        if self._app_socket is not None:
            await self._app_socket.send(message)
        elif self._pending.is_over:
            raise ClientDisconnected
        elif message["type"] == "websocket.accept" and self._is_undecided:
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif message["type"] == "websocket.close" and self._is_undecided:
            self._refuse(403, (), b"the app refused the connection\n")
        elif message["type"] == "websocket.http.response.start" and not self._pending.is_accepted:
            self._denial = message["status"], message.get("headers", ())
        elif message["type"] == "websocket.http.response.body" and self._denial is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                self._refuse(*self._denial, self._body)
        else:
            raise misplaced(message)

    @property
    def _is_undecided(self) -> bool:
        """Whether the app has still to decide."""
        return not self._pending.is_accepted and self._denial is None

    def _accept(self, subprotocol: str | None, headers: Headers) -> None:
        self._pending.is_accepted = True
        self._transport.write(self._handshake.accept(subprotocol, headers))
        if not self._claimed:
            self._app_socket = AppWebSocket(Socket(self._pending), compresses=self._shares_compressed)

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        self._pending.is_over = True
        self._ended.set()
        self._transport.write(_response(status, headers, body))
        # What comes still is read and thrown away: a socket that is closed with bytes unread is reset.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._abort = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    # What the event loop calls, and uvicorn

    def data_received(self, data: bytes) -> None:
        pending = self._pending
        if not pending.is_over:
            pending.early += data
            if len(pending.early) > EARLY_BYTES_MAX:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort is not None:
            self._abort.cancel()
        self._connections.discard(self)
        self._pending.is_over = True
        self._ended.set()

    def shutdown(self) -> None:
        """End the connection. uvicorn calls this at its end."""
        if self._pending.is_accepted:
            self._transport.close()
        elif not self._pending.is_over:
            self._refuse(503, (), b"the server ends\n")


def _response(status: int, headers: Headers, body: bytes) -> bytes:
    """A response that ends the connection."""
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    lines = {name.lower(): f"{name}: {value}" for name, value in _USUAL.items()}
    lines["date"] = f"Date: {formatdate(usegmt=True)}"
    lines["content-length"] = f"Content-Length: {len(body)}"
    for name, _ in given:
        lines.pop(name.lower(), None)
    status_line = f"HTTP/1.1 {status} {responses.get(status, '')}"
    head = [status_line, *(f"{name}: {value}" for name, value in given), *lines.values()]
    return "\r\n".join((*head, "\r\n")).encode("latin-1") + body
