"""Responses that go on under uvicorn: its request and head, and then a socket that a connection writes to.

Until an endpoint attaches a receiver, this is uvicorn's own protocol and any ASGI app works on it as ever.
From then on a message costs no task, and all that the request held is let go.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from hub.node.transport import EXTENSION, Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.streaming import JSON_LINES, LAST_CHUNK, farewell
from hub.server.http import HTTPLimits, HubHTTPProtocol
from hub.server.transport import ClientTransport


class StreamingHTTPProtocol(HubHTTPProtocol):
    """The hub's protocol, with a `ClientStream` on offer in the ASGI scope of each request."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            # The scope's type does not know of extensions.
            scope = cast("dict[str, Any]", self.scope)
            scope["extensions"] = {EXTENSION: partial(ClientStream, self, self.cycle)}

    def on_response_complete(self) -> None:
        self._withdraw()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._withdraw()

    def detach(self) -> None:
        """Let go of the socket: the app's return then ends nothing, and this object goes with it."""
        self.connections.discard(self)
        self.cycle.disconnected = True
        self.parser = None  # type: ignore[assignment]  # it refers back here
        self._withdraw()

    def _withdraw(self) -> None:
        """Take the offer out of the scope, which would refer back here."""
        if self.scope is not None:
            cast("dict[str, Any]", self.scope).pop("extensions", None)


class ClientStream(ClientTransport):
    """The response of one client: a `hub.node.transport.Transport` that is nobody's until `attach`.

    Args:
        http: the protocol that the request came to.
        cycle: of the request.
    """

    __slots__ = ("_cycle", "_http", "_limits", "encoding", "name")

    def __init__(self, http: StreamingHTTPProtocol, cycle: RequestResponseCycle) -> None:
        super().__init__(http.transport, http.connections)
        self.name = ""
        self.encoding = JSON_LINES.chunks
        self._http: StreamingHTTPProtocol | None = http
        self._cycle: RequestResponseCycle | None = cycle
        self._limits: HTTPLimits = http.limits

    async def is_welcome(self) -> bool:
        """Whether the server takes one more connection now. A crowd's wait here for their turn, in order."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        now = loop.time()
        if not limits.admits(now):
            return False
        if limits.queue.admit():
            return True
        turn: asyncio.Future[None] = loop.create_future()

        def go() -> None:
            if not turn.done():
                turn.set_result(None)

        limits.queue.wait(go, now)
        await turn
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the head of the response went straight to the socket, and the body may do so too.

        What stands between the server and the endpoint may have held it back, or the client be gone.
        """
        http, cycle = self._http, self._cycle
        return (
            http is not None
            and cycle is not None
            and http.cycle is cycle  # else the client has sent another request behind this one
            and cycle.response_started
            and cycle.chunked_encoding is True
            and not (cycle.response_complete or cycle.disconnected or http.transport.is_closing())
        )

    def attach(self, receiver: Receiver) -> None:
        """Hand the socket to a receiver. The endpoint returns then.

        Args:
            receiver: is called in the event loop.
        """
        http = self._http
        assert http is not None, "a stream is attached once"
        assert self.is_ready, "a stream is attached after its head was sent"
        self._http = self._cycle = None
        self._receiver = receiver
        http.detach()
        self._take_over()
        if http.flow.write_paused:
            receiver.on_write_paused()
        if http.flow.read_paused:
            self._transport.resume_reading()

    # What the connection calls

    def close(self, disconnect: Disconnect) -> None:
        """Send a disconnect push and the end of the body. A peer that does not read them is cut off."""
        if not self._closing:
            self._close_up()
            self._transport.write(farewell(self.encoding, disconnect) + LAST_CHUNK)
            self._transport.close()
            self._cut_off_later()

    def pause_reading(self) -> None:
        """What the client sends comes by requests of their own."""

    def resume_reading(self) -> None:
        """As `pause_reading`."""

    def shutdown(self) -> None:
        """What uvicorn calls at its end, on those whom the drain left."""
        self.close(Disconnects.SHUTDOWN)

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Nothing has a place behind the request. It is read all the same: so the end of the peer is seen."""
