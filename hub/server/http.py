"""HTTP under uvicorn, with every request bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import re
from asyncio import TimerHandle
from collections.abc import Callable
from email.utils import formatdate
from enum import Enum
from functools import partial
from typing import Any, Final

from hub.node.admission import READABLE, retry_after
from hub.protocol import handshake
from hub.protocol.heads import HEAD_BYTES_MAX, Refusal, too_large
from hub.server._uvicorn import Config, RefusedHeadError, RequestProtocol, ServerState
from hub.server.edge import Edge
from hub.server.upgrade import EARLY_BYTES_MAX, HandshakeProtocol

FRAMING_BYTES_MAX: Final = HEAD_BYTES_MAX
"""What may come in one piece that is no body: a head, the trailers of a body, the extensions of a chunk."""

BODY_PERIOD_S: Final = 20.0
"""How often the rate of a body is checked, and at most how long a body may take that brings nothing."""

BODY_BYTES_PER_S_MIN: Final = 512
"""The rate below which a body is too slow to wait for."""

LINGER_S: Final = 2.0
"""How long the rest of a request is read and thrown away after its answer. A socket that is closed with bytes
unread is reset, and the peer may lose the answer."""

REQUESTS_WAITING_MAX: Final = 32
"""Requests that may wait on one connection for the response of the one before."""

REFUSALS_MAX: Final = 32
"""Sockets that may wait for a polite refusal at a time."""

_REFUSAL_TIMEOUT_S: Final = 1.0

_ANSWER: Final = (
    "HTTP/1.1 {}\r\nDate: {}\r\n{}Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: {}\r\nConnection: close\r\n\r\n{}"
)


def _answer(status: str, body: str, headers: str = "", *, to_head: bool = False) -> bytes:
    """Return an answer. To HEAD it tells the length of a body, and has none (RFC 9110 section 9.3.2)."""
    shown = "" if to_head else body
    return _ANSWER.format(status, formatdate(usegmt=True), headers, len(body), shown).encode()


def _answer_to(refusal: Refusal, *, to_head: bool = False) -> bytes:
    return _answer(refusal.status, f"{refusal.text}\n", refusal.headers, to_head=to_head)


_READABLE: Final = "".join(f"{name}: {value}\r\n" for name, value in READABLE.items())


def _busy(*, to_head: bool = False) -> bytes:
    text, retry = "This node takes no connection now: retry later.\n", f"Retry-After: {retry_after()}\r\n"
    return _answer("503 Service Unavailable", text, f"{retry}{_READABLE}", to_head=to_head)


_UPGRADE: Final = re.compile(rb"\r\nupgrade: websocket\r\n", re.IGNORECASE)


def _is_handshake(data: bytes) -> bool:
    """Whether a request seems to be a WebSocket handshake, and is whole.

    In a reconnect storm most are. Refusing one without parsing it takes half the time.
    """
    return data.startswith(b"GET ") and data.endswith(b"\r\n\r\n") and _UPGRADE.search(data) is not None


_BODY_MALFORMED: Final = Refusal("400 Bad Request", "the framing of the body is too large")
_TOO_MANY: Final = Refusal("400 Bad Request", "too many requests wait for an earlier response")
_TOO_SLOW: Final = Refusal("408 Request Timeout", "the request did not come in time")


class _Phase(Enum):
    """What is expected from the peer next."""

    IDLE = "a new request, for as long as a connection is kept"
    HEAD = "the rest of a head"
    BODY = "the rest of a body, with its trailers"
    UPGRADE = "frames: the request was a WebSocket handshake, which waits for its turn"
    ENDED = "nothing: a last answer was or will be written, and what comes is thrown away"


class HubHTTPProtocol(RequestProtocol):
    """uvicorn's protocol of a connection, with limits on sockets, heads, bodies and trailers.

    A head has `handshake_timeout_s`. A body has to come at a rate, and the rest of it within `LINGER_S` once
    its request was answered.

    Args:
        config, server_state, app_state: uvicorn's.
        edge: of the server.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        edge: Edge,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.edge = edge
        self._phase = _Phase.IDLE
        self._timer: TimerHandle | None = None
        self._has_begun = False
        """Whether a part of the head came."""
        self._framing_bytes = 0
        """Bytes since the last piece of a request that was of use."""
        self._made_progress = False
        self._body_bytes = 0
        """Bytes of a body since its rate was checked."""
        self._early = b""
        """What came behind a WebSocket handshake that waits."""
        self._last_answer: bytes | None = None
        """What is written, and ends the connection, once the requests before it were answered."""
        self._is_refused = False

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.edge.connections_max:
            self._refuse(transport)
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        if self._is_refused:
            self.edge.refusals -= 1
            return
        try:
            super().connection_lost(exc)
        except Exception as error:
            self.edge.failed("http", error)

    def data_received(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception as error:
            self.edge.failed("http", error)
            self.transport.abort()

    def _receive(self, data: bytes) -> None:
        if self._phase is _Phase.ENDED:
            return
        if self._phase is _Phase.UPGRADE:
            self._keep_early(data)
            return
        if self._is_refused:
            self._answer_refused(data)
            return
        if self._phase is _Phase.IDLE and not self.is_answering:
            # Whatever comes begins a request, even a blank line, which the parser skips.
            self._expect_head()
        is_first = self.exchange is None and not self._framing_bytes
        if is_first and _is_handshake(data) and self.edge.reject(self.loop.time()):
            self._turn_away()
            return
        self._made_progress = False
        super().data_received(data)
        if self._phase is _Phase.BODY and self._timer is None:
            self._expect_body()
        if self._phase is _Phase.HEAD or self._phase is _Phase.BODY:
            self._framing_bytes = 0 if self._made_progress else self._framing_bytes + len(data)
            if self._framing_bytes > FRAMING_BYTES_MAX:
                is_head = self._phase is _Phase.HEAD
                self.on_refusal(
                    too_large(self.url if self._has_begun else b"") if is_head else _BODY_MALFORMED
                )

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._phase is not _Phase.HEAD:
            self._expect_head()
        self._has_begun = True
        super().on_message_begin()

    def on_head(self) -> None:
        if self.waiting_requests >= REQUESTS_WAITING_MAX:
            raise RefusedHeadError(_TOO_MANY)
        self._made_progress = True
        self._set_timer(None)
        self._phase = _Phase.BODY
        super().on_head()
        if self.edge.is_draining:
            self.forbid_keep_alive()  # so that a balancer sends its next request to another node
        self.redirect_close(self._close_after_response)

    def on_body(self, body: bytes) -> None:
        self._made_progress = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_body_end(self) -> None:
        self._made_progress = True
        self._phase = _Phase.IDLE
        super().on_body_end()
        if self._timer is not None and self.exchange is not None:
            self._set_timer(None)
            if not self.is_answering:
                self.await_next_request()

    # What the adapter calls

    def on_websocket(self, early: bytes) -> None:
        self._set_timer(None)
        self._phase = _Phase.UPGRADE
        self._early = early
        if self.is_answering:
            self.transport.pause_reading()
        else:
            self._begin_upgrade()

    def on_refusal(self, refusal: Refusal) -> None:
        self._set_timer(None)
        answer = _answer_to(refusal, to_head=self._is_reading_head_request)
        waits = self.is_answering
        if self._phase is _Phase.BODY and self.exchange is not None:
            waits = self.drop_last_request()
            if self.exchange.response_started:
                answer = b""  # the request has its answer, or a part of it
        self._phase = _Phase.ENDED
        if waits:
            self._last_answer = answer
        else:
            self._end(answer)

    @property
    def _is_reading_head_request(self) -> bool:
        """Whether the request that is being read has the method HEAD, as far as it came."""
        is_begun = self._phase is _Phase.BODY or (self._phase is _Phase.HEAD and self._has_begun)
        return is_begun and bool(self.url) and self.method == "HEAD"

    def on_response_complete(self) -> None:
        is_last = not self.waiting_requests
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._phase is not _Phase.IDLE:
            self.stop_keep_alive_timer()  # the next request has begun
        if self._phase is _Phase.BODY:
            self._set_timer(LINGER_S)
        elif is_last and self._phase is _Phase.UPGRADE:
            self._guard(self._begin_upgrade)
        elif is_last and self._last_answer is not None:
            self._end(self._last_answer)

    # Upgrades

    def _turn_away(self) -> None:
        self._set_timer(None)
        self.transport.write(_busy())
        self.transport.close()

    def _keep_early(self, data: bytes) -> None:
        """Keep what came before reading was paused."""
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX:
            self.transport.abort()

    def _begin_upgrade(self) -> None:
        """Let a handshake in, now or in its turn. Every request before it was answered."""
        edge = self.edge
        now = self.loop.time()
        if not edge.admit(now):
            self._turn_away()
        elif edge.queue.admit():
            self._upgrade()
        else:
            edge.queue.wait(partial(self._guard, self._upgrade), now)
            self.transport.pause_reading()

    def _guard(self, go_on: Callable[[], None]) -> None:
        """Go on with a handshake that waited. An exception ends this connection alone."""
        try:
            if not self.transport.is_closing():
                go_on()
        except Exception as error:
            self.edge.failed("http", error)
            self.transport.abort()

    def _upgrade(self) -> None:
        self.transport.resume_reading()
        read = handshake.read(self.headers, compresses=self.edge.compression)
        scope = self.websocket_scope()
        if isinstance(read, Refusal):
            self._end(_answer_to(read))
        elif scope is None:
            self._end(_answer_to(Refusal("400 Bad Request", "the URL cannot be read")))
        else:
            scope["subprotocols"] = read.subprotocols
            pending = HandshakeProtocol(
                self.transport, read, self.connections, self.tasks, self.edge, self._early
            )
            self.release()
            pending.start(self.app, scope)

    # Limits

    def _set_timer(self, delay_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay_s is None else self.loop.call_later(delay_s, self._on_timer)

    def _expect_head(self) -> None:
        self._phase = _Phase.HEAD
        self._has_begun = False
        self._framing_bytes = 0
        self._set_timer(self.edge.handshake_timeout_s)

    def _expect_body(self) -> None:
        """Watch over a body that did not come with its head."""
        self._body_bytes = 0
        self._set_timer(BODY_PERIOD_S)
        if self.awaits_continue:
            # If the answer comes first, the client may send the body or the next request: nobody can tell.
            self.forbid_keep_alive()

    def _on_timer(self) -> None:
        self._timer = None
        if self._phase is _Phase.BODY and self.is_answering:
            is_fast = self._body_bytes >= BODY_BYTES_PER_S_MIN * BODY_PERIOD_S
            if is_fast or self.is_reading_paused:
                self._body_bytes = 0
                self._set_timer(BODY_PERIOD_S)
                return
            self.on_refusal(_TOO_SLOW)
        elif self._phase is _Phase.HEAD and self._has_begun:
            self.on_refusal(_TOO_SLOW)
        else:
            self.transport.abort()

    def _close_after_response(self) -> None:
        """Close the connection, whose last response was written, once the peer could read it."""
        self.drop_waiting_requests()
        self._end(b"")

    def _end(self, answer: bytes) -> None:
        """Write a last answer, and read and throw away what still comes until the peer closes."""
        if self.transport.is_closing():
            return
        self._phase = _Phase.ENDED
        self._last_answer = None
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
        self._set_timer(LINGER_S)

    # Refusals of sockets over the cap

    def _refuse(self, transport: asyncio.Transport) -> None:
        self._is_refused = True
        self.transport = transport
        self.edge.reject_for("connections_max", self.edge.connections_max)
        self.edge.refusals += 1
        if self.edge.refusals > REFUSALS_MAX:
            self._answer_refused(b"")
            return
        # The answer waits for the request, since a socket that is closed with bytes unread is reset.
        self._set_timer(_REFUSAL_TIMEOUT_S)

    def _answer_refused(self, data: bytes) -> None:
        if not self.transport.is_closing():
            # An orchestrator that restarts nodes that do not answer must not restart a node for being full.
            is_probe = data.startswith(b"GET /livez ")
            busy = _busy(to_head=data.startswith(b"HEAD "))
            self.transport.write(_answer("200 OK", "This node is full.\n") if is_probe else busy)
            self.transport.close()
