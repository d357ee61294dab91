"""HTTP under uvicorn, with what keeps a crowd of half-open sockets from taking the server away."""

from __future__ import annotations

import asyncio
import time
from asyncio import TimerHandle
from dataclasses import dataclass, field
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from hub.telemetry import get_logger
from hub.websocket_protocol import PEERS

HEAD_BYTES_MAX: Final = 65_536

REFUSALS_MAX: Final = 32
"""Sockets that may wait for a polite refusal at a time."""

_REFUSAL_TIMEOUT_S: Final = 1.0
_REPORT_INTERVAL_S: Final = 10.0

_log = get_logger("hub.server")


def _response(status: bytes, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 %s\r\nRetry-After: 1\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
    )


_BUSY: Final = _response(b"503 Service Unavailable", b"This node has no room: retry later.\n")
_ALIVE: Final = _response(b"200 OK", b"This node is full.\n")
_HEAD_TOO_LARGE: Final = _response(b"431 Request Header Fields Too Large", b"")


@dataclass(slots=True)
class HTTPLimits:
    """What all connections of one server share.

    Args:
        connections_max: sockets open at once; who comes after them is answered with 503.
        handshake_timeout_s: seconds from a connection, or from the first byte of a later request on it, to
            the end of the request's head.
    """

    connections_max: int
    handshake_timeout_s: float
    refusals: int = field(default=0, init=False)
    _reported_at: float = field(default=float("-inf"), init=False)

    def report(self) -> None:
        """Log that the limit is reached: a line now and then, however many are refused."""
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_INTERVAL_S:
            self._reported_at = now
            _log.warning("server.limit", limit="connections_max", value=self.connections_max)


class HubHTTPProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a cap on connections and a time limit on the head of a request.

    Args:
        limits: those of the server that this connection is one of.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: HTTPLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self.logger = PEERS
        self.access_log = False
        self.deadline: TimerHandle | None = None
        self.head_bytes = 0
        self.refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.limits.connections_max:
            self._refuse(transport)
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        if self.refused:
            self.limits.refusals -= 1
            return
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.refused:
            self._answer_refused(data)
            return
        super().data_received(data)
        if self.deadline is not None:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        if self.deadline is None:
            self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_done()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The parser refers back here: without it nothing of the request outlives the upgrade.
        self.parser = None  # type: ignore[assignment]

    def _expect_head(self) -> None:
        self.head_bytes = 0
        self.deadline = self.loop.call_later(self.limits.handshake_timeout_s, self._head_late)

    def _head_done(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _head_late(self) -> None:
        self.deadline = None
        self.transport.abort()

    def _refuse(self, transport: asyncio.Transport) -> None:
        self.refused = True
        self.transport = transport
        self.limits.report()
        self.limits.refusals += 1
        if self.limits.refusals > REFUSALS_MAX:
            self._answer_refused(b"")
            return
        # The answer waits for the request: a socket that is closed with bytes unread is reset, and what was
        # not yet read on the other side may go with it.
        self.deadline = self.loop.call_later(_REFUSAL_TIMEOUT_S, self._head_late)

    def _answer_refused(self, data: bytes) -> None:
        if not self.transport.is_closing():
            # Who restarts nodes that do not answer must not restart one for being full.
            self.transport.write(_ALIVE if data.startswith(b"GET /livez ") else _BUSY)
            self.transport.close()
