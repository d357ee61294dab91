"""Responses that go on: the request and its head are uvicorn's, and then a connection writes to the socket.

Until an endpoint attaches a receiver, any ASGI app works as usual. From then on a message costs no task, and
all that the request held is freed.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast
from weakref import ref

from hub.node.transport import EXTENSION, Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.streaming import JSON_LINES, LAST_CHUNK, farewell
from hub.server._uvicorn import Exchange
from hub.server.edge import Edge
from hub.server.http import HubHTTPProtocol
from hub.server.transport import ClientTransport


class StreamingHTTPProtocol(HubHTTPProtocol):
    """The hub's protocol, which offers a `ClientStream` in the ASGI scope of each request."""

    def on_head(self) -> None:
        super().on_head()
        exchange = self.exchange
        if exchange is not None and exchange.scope is self.scope:
            # The scope's type does not know of extensions.
            scope = cast("dict[str, Any]", self.scope)
            # The offer must not keep what refers to the scope: the cycle would outlive the request.
            scope["extensions"] = {EXTENSION: partial(_claim, ref(self), ref(exchange))}

    def detach(self) -> None:
        """Let go of the socket: the app's return then ends nothing, and this object is freed."""
        self._set_timer(None)
        self.release()


def _claim(http: ref[StreamingHTTPProtocol], exchange: ref[Exchange]) -> ClientStream | None:
    """Return the response of a request for a connection of the hub; None after the request is over."""
    protocol, request = http(), exchange()
    return None if protocol is None or request is None else ClientStream(protocol, request)


class ClientStream(ClientTransport):
    """The response of one client: a `hub.node.transport.Transport`, which has no receiver before `attach`.

    Args:
        http: the protocol that the request came to.
        exchange: the request.
    """

    __slots__ = ("_edge", "_exchange", "_http", "encoding", "name")

    def __init__(self, http: StreamingHTTPProtocol, exchange: Exchange) -> None:
        super().__init__(http.transport, http.connections, http.edge.failed)
        self.name = ""
        self.encoding = JSON_LINES.chunks
        self._http: StreamingHTTPProtocol | None = http
        self._exchange: Exchange | None = exchange
        self._edge: Edge = http.edge

    async def admit(self) -> bool:
        """Wait for the turn of one more connection. Under load, callers are admitted first in, first out.

        Returns:
            Whether the server takes the connection.
        """
        loop = asyncio.get_running_loop()
        edge = self._edge
        now = loop.time()
        if not edge.admit(now):
            return False
        if edge.queue.admit():
            return True
        turn: asyncio.Future[None] = loop.create_future()

        def go() -> None:
            if not turn.done():
                turn.set_result(None)

        edge.queue.wait(go, now)
        await turn
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the head of the response went straight to the socket, and the body may do so too.

        A middleware may have held the head back, or the client may be gone.
        """
        http, exchange = self._http, self._exchange
        return http is not None and exchange is not None and http.is_streaming(exchange)

    def attach(self, receiver: Receiver) -> None:
        """Hand the socket to a receiver. The endpoint returns then.

        Args:
            receiver: is called in the event loop.
        """
        http = self._http
        assert http is not None, "a stream is attached once"
        assert self.is_ready, "a stream is attached after its head was sent"
        self._http = self._exchange = None
        self._receiver = receiver
        http.detach()
        self._take_over()
        if http.is_writing_paused:
            receiver.on_write_paused()
        http.resume_reading()

    # What the connection calls

    def close(self, disconnect: Disconnect) -> None:
        """Send a disconnect push and the end of the body. A peer that does not read them is cut off."""
        if not self._closing:
            self._stop_writing()
            self._transport.write(farewell(self.encoding, disconnect) + LAST_CHUNK)
            self._transport.close()
            self._cut_off_later()

    def pause_reading(self) -> None:
        """Do nothing: what the client sends comes by requests of their own."""

    def resume_reading(self) -> None:
        """Do nothing, as `pause_reading`."""

    def shutdown(self) -> None:
        """End the connection. uvicorn calls this at its end, on the clients that the drain left."""
        self.close(Disconnects.SHUTDOWN)

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Throw away what comes behind the request. It is read so that the end of the peer is seen."""
