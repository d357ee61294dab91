"""HTTP under uvicorn, with what keeps a crowd of half-open sockets from taking the server away."""

from __future__ import annotations

import asyncio
import re
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from hub.node.admission import READABLE, AcceptRate, retry_after
from hub.node.node import Node
from hub.node.queue import AdmissionQueue, AdmissionTurns
from hub.protocol import handshake
from hub.server.upgrade import PEERS, HubWebSocketProtocol
from hub.settings import ServerSettings
from hub.telemetry import LimitLog

HEAD_BYTES_MAX: Final = 65_536

REFUSALS_MAX: Final = 32
"""Sockets that may wait for a polite refusal at a time."""

_REFUSAL_TIMEOUT_S: Final = 1.0

_ANSWER: Final = (
    "HTTP/1.1 {}\r\n{}Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: {}\r\nConnection: close\r\n\r\n{}"
)


def _answer(status: str, body: str = "", headers: str = "") -> bytes:
    return _ANSWER.format(status, headers, len(body), body).encode()


_READABLE: Final = "".join(f"{name}: {value}\r\n" for name, value in READABLE.items())


def _busy() -> bytes:
    text = "This node takes no connection now: retry later.\n"
    return _answer("503 Service Unavailable", text, f"Retry-After: {retry_after()}\r\n{_READABLE}")


_UPGRADE: Final = re.compile(rb"\r\nupgrade: websocket\r\n", re.IGNORECASE)


def _is_handshake(data: bytes) -> bool:
    """Whether a request is, at first sight, a WebSocket handshake and whole.

    A crowd's are. To turn one away without parsing it takes half the time.
    """
    return data.startswith(b"GET ") and data.endswith(b"\r\n\r\n") and _UPGRADE.search(data) is not None


_ALIVE: Final = _answer("200 OK", "This node is full.\n")
_HEAD_TOO_LARGE: Final = _answer("431 Request Header Fields Too Large")


class HTTPLimits:
    """What all connections of one server share.

    Args:
        server: the limits.
        connections_max: sockets open at once, in place of the one in `server`.
        node: whose state decides whether WebSockets are welcome; None where there is none.
    """

    def __init__(self, server: ServerSettings, connections_max: int, node: Node | None = None) -> None:
        self.connections_max = connections_max
        self.handshake_timeout_s = server.handshake_timeout_s
        self.handshakes_max = server.handshakes_max
        self.accepts_per_s = server.accepts_per_s
        self.rate = AcceptRate(server.accepts_per_s)
        self._turns = AdmissionTurns(server.handshakes_max)
        self.refusals = 0
        self._node = node
        self._log = LimitLog()

    @property
    def queue(self) -> AdmissionQueue:
        """Where handshakes wait: that of the node's present life."""
        return (self._turns if self._node is None else self._node.admission.turns).handshakes

    def turns_away(self, now: float) -> bool:
        """Whether no handshake is welcome now. Each that is refused is counted."""
        if self._node is not None and not self._node.is_serving:
            self._count(self._node.state)
        elif self.queue.should_reject(now):
            self.met("handshakes_max", self.handshakes_max)
        else:
            return False
        return True

    def admits(self, now: float) -> bool:
        """Whether one more handshake may go on, at once or after it waited in the line.

        Refused here it costs a quarter of what the app takes.
        """
        if self.turns_away(now):
            return False
        if not self.rate.admit(now):
            self.met("accepts_per_s", self.accepts_per_s)
            return False
        return True

    def met(self, limit: str, value: float) -> None:
        """Somebody met a limit, and is answered with 503."""
        self._log.met(limit, value)
        self._count(limit)

    def _count(self, reason: str) -> None:
        if self._node is not None:
            self._node.metrics.refusals.labels(reason).inc()


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
        is_first = self.deadline is not None and not self.head_bytes
        if is_first and _is_handshake(data) and self.limits.turns_away(self.loop.time()):
            self._head_done()
            self._turn_away()
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
        limits = self.limits
        now = self.loop.time()
        if not limits.admits(now):
            self._turn_away()
        elif limits.queue.admit():
            self._upgrade()
        else:
            limits.queue.wait(self._upgrade_late, now)
            self.transport.pause_reading()  # what follows the head belongs to the WebSocket

    def _turn_away(self) -> None:
        self.transport.write(_busy())
        self.transport.close()

    def _upgrade_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._upgrade()

    def _upgrade(self) -> None:
        request = self.scope
        method, version = request["method"], request["http_version"]
        compresses = self.config.ws_per_message_deflate
        read = handshake.read(method, version, self.headers, compresses=compresses)
        try:
            url = httptools.parse_url(self.url)
            raw_path = url.path or b"/"
            path = unquote(raw_path.decode("ascii"))
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            read = handshake.Refusal("400 Bad Request", "the URL cannot be read")
        if isinstance(read, handshake.Refusal):
            self.transport.write(_answer(read.status, f"{read.text}\n", read.headers))
            self.transport.close()
            return
        scope = {
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": version,
            "scheme": "wss" if self.scheme == "https" else "ws",
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + path,
            "raw_path": self.root_path.encode() + raw_path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "subprotocols": read.subprotocols,
            "state": request["state"],
        }
        self.connections.discard(self)
        make = cast("Callable[[Config, ServerState], HubWebSocketProtocol]", self.ws_protocol_class)
        make(self.config, self.server_state).start(self.transport, read, scope)
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
        self.limits.met("connections_max", self.limits.connections_max)
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
            self.transport.write(_ALIVE if data.startswith(b"GET /livez ") else _busy())
            self.transport.close()
