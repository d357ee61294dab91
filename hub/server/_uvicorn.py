"""The only module that imports uvicorn, and the only one that knows its internals.

The rest of `hub.server` uses the classes below by their own names. `INTERNALS` lists every attribute of
uvicorn that they rely on; `tests/unit/test_uvicorn_adapter.py` names the one that an upgrade removed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn import Config
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from hub.errors import HubError, StartupError
from hub.protocol import heads
from hub.server.signals import catching
from hub.telemetry import LIMIT_LOG_PERIOD_S, get_logger

__all__ = [
    "INTERNALS",
    "PEERS",
    "ASGIReceiveEvent",
    "ASGISendEvent",
    "ClientDisconnected",
    "Config",
    "Exchange",
    "RefusedHeadError",
    "RequestProtocol",
    "ServerState",
    "UvicornServer",
    "make_config",
]

INTERNALS: Final[dict[type, tuple[str, ...]]] = {
    uvicorn.Server: (
        *(
            "capture_signals",
            "config",
            "force_exit",
            "handle_exit",
            "run",
            "serve",
            "server_state",
            "shutdown",
        ),
        *("should_exit", "started", "startup"),
    ),
    LifespanOn: ("startup_failed",),
    Config: ("http_protocol_class", "load", "loaded", "loaded_app", "ws_protocol_class"),
    ServerState: ("connections", "default_headers", "tasks", "total_requests"),
    HttpToolsProtocol: (
        *("_unset_keepalive_if_required", "access_log", "app", "asgi_version", "client", "connection_lost"),
        *("connection_made", "connections", "cycle", "data_received", "expect_100_continue", "flow"),
        *("headers", "logger", "loop", "on_body", "on_headers_complete", "on_message_begin"),
        *("on_message_complete", "on_response_complete", "parser", "pipeline", "root_path", "scheme"),
        *("scope", "server", "server_state", "shutdown", "tasks", "timeout_keep_alive"),
        *("timeout_keep_alive_handler", "timeout_keep_alive_task", "transport", "url"),
    ),
    RequestResponseCycle: (
        *("chunked_encoding", "disconnected", "expected_content_length", "keep_alive", "message_event"),
        *("response_complete", "response_started", "scope", "send", "transport"),
        "waiting_for_100_continue",
    ),
    FlowControl: ("pause_reading", "read_paused", "resume_reading", "write_paused"),
}
"""The attributes of uvicorn's classes, and of their instances, that this module reads, sets or overrides."""

Exchange: TypeAlias = RequestResponseCycle
"""One request and its response."""

PEERS: Final = logging.getLogger("hub.server.peers")
"""Logs what uvicorn says of single peers. Below warnings that is a line or more for each connection, with the
query strings and the tokens in them."""
PEERS.setLevel(logging.WARNING)

_log = get_logger("hub.server")


class _OncePerPeriod(logging.Filter):
    """Drops a warning that was logged in the last `LIMIT_LOG_PERIOD_S`: a peer causes each at will."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        now = time.monotonic()
        if now < self._logged_at.get(str(record.msg), -LIMIT_LOG_PERIOD_S) + LIMIT_LOG_PERIOD_S:
            return False
        self._logged_at[str(record.msg)] = now
        return True


PEERS.addFilter(_OncePerPeriod())


def make_config(
    app: Any,
    protocol: Callable[..., asyncio.Protocol],
    *,
    trusted_proxies: list[str],
    backlog: int,
    keep_alive_s: float,
    grace_s: int,
) -> Config:
    """Configure uvicorn for a hub.

    Args:
        app: the ASGI app.
        protocol: makes the `RequestProtocol` of a connection. It upgrades to WebSockets itself.
        trusted_proxies: addresses and networks whose `X-Forwarded-For` is believed.
        backlog: connections that wait in the kernel to be accepted.
        keep_alive_s: seconds that a connection is kept for another request.
        grace_s: seconds that requests in progress get at the end.
    """
    return Config(
        app,
        loop="uvloop",
        # uvicorn only calls it, as it would a class.
        http=cast("type[asyncio.Protocol]", protocol),
        ws=asyncio.Protocol,  # never made: None would turn every upgrade away
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        forwarded_allow_ips=trusted_proxies,
        server_header=False,
        backlog=backlog,
        timeout_keep_alive=cast("int", keep_alive_s),  # uvicorn only hands it to the event loop
        timeout_graceful_shutdown=grace_s,
    )


class _Lifespan:
    """Remembers what the lifespan of an app raised at its start, and keeps uvicorn from logging it cut.

    Args:
        app: the ASGI app.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_without_traceback(message: Any) -> None:
            # Starlette puts the traceback of what was raised into the message. `start.failed` logs it.
            is_failed = message["type"] == "lifespan.startup.failed"
            await send({"type": message["type"]} if is_failed else message)

        if scope["type"] != "lifespan":  # a connection that came in the moment of the start
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send_without_traceback)
        except BaseException as error:
            self.error = error
            raise


class UvicornServer(uvicorn.Server):
    """uvicorn's server, with its signals and its failures turned into calls and exceptions of the hub's.

    Args:
        config: from `make_config`.
    """

    signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
    """The signals that `on_signal` gets."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._starting: asyncio.Task[None] | None = None

    def on_signal(self, sig: int) -> None:
        """Act on a signal, in a signal handler."""
        raise NotImplementedError

    def stop_listening(self) -> None:
        """Close the listening sockets, and continue to serve the clients that are connected."""
        for server in self.servers:
            server.close()

    def end(self, *, at_once: bool = False) -> None:
        """End `serve` soon, even if the app has not started yet.

        Args:
            at_once: whether to wait for nothing, not even the lifespan of the app.
        """
        self.force_exit = at_once
        self.should_exit = True
        if self._starting is not None:
            self.lifespan.startup_failed = True  # so that it does not log the cancellation as a failure
            self._starting.cancel()

    @property
    def is_ending(self) -> bool:
        """Whether `end` was called."""
        return self.should_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, and accept connections.

        Raises:
            StartupError: the app did not start.
        """
        self._starting = asyncio.create_task(self._start(sockets))
        try:
            await self._starting
        except asyncio.CancelledError:
            if not self.should_exit:
                raise
        finally:
            self._starting = None
            if not self.started:
                for sock in sockets or []:
                    sock.close()

    async def _start(self, sockets: list[socket.socket] | None) -> None:
        lifespan = _Lifespan(self.config.loaded_app)
        self.config.loaded_app = lifespan
        try:
            await super().startup(sockets)
        except SystemExit:
            # uvicorn's answer to a lifespan that failed.
            error = lifespan.error
            name = type(error).__name__
            known = isinstance(error, HubError)
            _log.error("start.failed", reason=str(error) if known else f"{name}: {error}", exc_info=error)
            # What the app raised may hold a secret, which the log hides.
            reason = str(error) if known else f"its lifespan raised {name}: the log says why"
            raise StartupError(f"the app did not start: {reason}") from None
        finally:
            self.config.loaded_app = lifespan.app

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with catching(self.handle_exit, *self.signals):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.on_signal(sig)


class RefusedHeadError(Exception):
    """A callback of the parser refuses the request.

    Args:
        refusal: the answer.
    """

    def __init__(self, refusal: heads.Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class RequestProtocol(HttpToolsProtocol):
    """uvicorn's protocol of one HTTP connection, with the steps of a request as methods to override.

    The parser calls `on_message_begin`, `on_header`, `on_headers_complete`, `on_body` and
    `on_message_complete`. A subclass may use the attributes `app`, `connections`, `headers`, `loop`, `scope`,
    `tasks`, `transport` and `url`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = PEERS
        self.access_log = False
        self._is_in_head = False
        self._is_handshake = False
        self._running: Exchange | None = None
        """The request whose response comes next. uvicorn knows the last request, and those that wait."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._running is not None:
            self._tell_gone(self._running)
        self.drop_waiting_requests()
        super().connection_lost(exc)
        self._forget_requests()

    # What a subclass decides

    def on_head(self) -> None:
        """The head of a request came, which is served.

        Raises:
            RefusedHeadError: it is not served.
        """
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle
        if self.is_http_1_0:
            self.cycle.__class__ = _UnchunkedExchange  # uvicorn makes the exchange, and knows one class

    def on_body_end(self) -> None:
        """A request came to its end."""
        super().on_message_complete()

    def on_websocket(self, early: bytes) -> None:
        """The head of a WebSocket handshake came.

        Args:
            early: what came behind the head. It is not HTTP.
        """
        raise NotImplementedError

    def on_refusal(self, refusal: heads.Refusal) -> None:
        """What came is not HTTP, or a method of this class raised `RefusedHeadError`. Parsing stops.

        Args:
            refusal: what to answer.
        """
        raise NotImplementedError

    def on_response_complete(self) -> None:
        """A response was written."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        self._running = following or self._running

    # What a subclass may ask

    @property
    def exchange(self) -> Exchange | None:
        """The request that came last, and its response."""
        return self.cycle

    @property
    def method(self) -> str:
        """The method of the request that is being read, once its target has begun."""
        return str(self.parser.get_method().decode("ascii"))

    @property
    def is_http_1_0(self) -> bool:
        """Whether the request that is being read is HTTP/1.0, which knows neither chunks nor expectations."""
        return self.parser.get_http_version() == "1.0"

    @property
    def is_answering(self) -> bool:
        """Whether a response is under way or awaited."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waiting_requests(self) -> int:
        """Requests that wait for the response of the one before."""
        return len(self.pipeline)

    @property
    def is_reading_paused(self) -> bool:
        """Whether nothing is read because the app has not taken what was."""
        return self.flow.read_paused

    @property
    def is_writing_paused(self) -> bool:
        """Whether the peer has to read before more is written."""
        return self.flow.write_paused

    def resume_reading(self) -> None:
        """Read on, where reading was paused."""
        self.flow.resume_reading()

    def is_streaming(self, exchange: Exchange) -> bool:
        """Whether the head of a response went straight to the socket, and the body may do so too."""
        return (
            self.cycle is exchange  # else the client has sent another request behind it
            and exchange.response_started
            and exchange.chunked_encoding is True
            and not (exchange.response_complete or exchange.disconnected or self.transport.is_closing())
        )

    def forbid_keep_alive(self) -> None:
        """Close the connection after the response to the last request, and say so in its head."""
        self.cycle.keep_alive = False

    @property
    def awaits_continue(self) -> bool:
        """Whether the client sends the body only once it is told to continue."""
        return self.cycle.waiting_for_100_continue

    def redirect_close(self, close: Callable[[], None]) -> None:
        """Have the last response call `close` where it would close the transport."""
        self.cycle.transport = cast("asyncio.Transport", _Transport(self.transport, close))

    def stop_keep_alive_timer(self) -> None:
        """Set no limit to the time until more comes."""
        self._unset_keepalive_if_required()

    def await_next_request(self) -> None:
        """Keep the connection for another request, for the time that uvicorn's settings give it."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def drop_last_request(self) -> bool:
        """Tell the app that the client of the last request is gone.

        Returns:
            Whether the request waited for an earlier response, and the app has not seen it.
        """
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            return True
        self._tell_gone(cycle)
        return False

    def drop_waiting_requests(self) -> None:
        """Forget the requests that wait for an earlier response."""
        self.pipeline.clear()

    def _forget_requests(self) -> None:
        """Drop the references to requests, which refer back here, so that no cycle keeps them."""
        self.cycle = self._running = None  # type: ignore[assignment]

    @staticmethod
    def _tell_gone(cycle: Exchange) -> None:
        """Tell the app that the client of a request is gone."""
        if not cycle.response_complete:
            cycle.disconnected = True
            # Else the app's next `receive` writes to a side that is closed.
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()

    def release(self) -> None:
        """Give the socket to another protocol. This object and all of the request can then be freed."""
        self.connections.discard(self)
        if self.cycle is not None:
            self.cycle.disconnected = True
        self._forget_requests()
        self._unset_keepalive_if_required()
        self.parser = None  # type: ignore[assignment]  # it refers back here

    def websocket_scope(self) -> dict[str, Any] | None:
        """The ASGI scope of a handshake, without subprotocols; None where the URL cannot be read."""
        try:
            url = httptools.parse_url(self.url)
            raw_path = url.path or b"/"
            path = unquote(raw_path.decode("ascii"))
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            return None
        return {
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self.scheme == "https" else "ws",
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + path,
            "raw_path": self.root_path.encode() + raw_path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": self.scope["state"],
        }

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._unset_keepalive_if_required()
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    behind = data[upgrade.args[0] :]
                    if self._is_handshake:
                        self.on_websocket(behind)
                        return
                    data = self._head_without_upgrade() + behind
                    self.parser = _make_parser(self)
        except httptools.HttpParserError as error:
            self.on_refusal(self._refusal_of(error))

    # What the parser calls

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer that became a header would pass for one that the app may rely on (RFC 9110 section 6.5.1).
        if self._is_in_head:
            name = name.lower()
            # The parser leaves the whitespace behind a value, which is no part of it (RFC 9110 section 5.5).
            value = value.rstrip(b" \t")
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        method, version = self.method, self.parser.get_http_version()
        if (refusal := heads.check(method, version, self.url, self.headers)) is not None:
            raise RefusedHeadError(refusal)
        if (split := heads.absolute(self.url)) is not None:
            authority, self.url = split
            self.headers[:] = [(b"host", authority), *(line for line in self.headers if line[0] != b"host")]
        if self.is_http_1_0:
            self.expect_100_continue = False
        if self.parser.should_upgrade():
            self._is_handshake = heads.is_handshake(method, version, self.headers)
        else:
            self.on_head()

    def on_message_complete(self) -> None:
        # The parser skips the body of a request that asks for an upgrade, so the request is not over.
        if not self.parser.should_upgrade():
            self.on_body_end()

    def _head_without_upgrade(self) -> bytes:
        """The head of the last request, for which the parser reads a body."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join((method + b" " + self.url + b" HTTP/" + version, *lines, b"", b""))

    def _refusal_of(self, error: httptools.HttpParserError) -> heads.Refusal:
        """The answer to what the parser did not take.

        Raises:
            Exception: a callback of the parser raised it.
        """
        cause = error.__context__
        if isinstance(cause, RefusedHeadError):
            return cause.refusal
        if cause is not None and not isinstance(cause, (httptools.HttpParserError, UnicodeError)):
            raise cause
        self.logger.warning("Invalid HTTP request received.")
        status = "505 HTTP Version Not Supported" if str(error) in _OTHER_VERSIONS else "400 Bad Request"
        return heads.Refusal(status, f"this is not an HTTP/1.1 request: {error}")


_OTHER_VERSIONS: Final = ("Invalid HTTP version", "Pause on PRI/Upgrade")
"""What the parser says of another version of HTTP, such as the preface of HTTP/2."""


def _make_parser(protocol: RequestProtocol) -> httptools.HttpRequestParser:
    """A parser as uvicorn makes it: data after a request with `Connection: close` is ignored."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class _UnchunkedExchange(RequestResponseCycle):
    """A request in HTTP/1.0: a response of unknown length ends with the connection (RFC 9112 section 6.3)."""

    _has_length = True

    async def send(self, message: ASGISendEvent) -> None:
        """Send an event of the ASGI specification."""
        if message["type"] == "http.response.start":
            lines = [(name.lower(), value) for name, value in message.get("headers", ())]
            self._has_length = any(name == b"content-length" for name, _ in lines)
            if not self._has_length:
                self.chunked_encoding = False
                message["headers"] = [line for line in lines if line[0] != b"transfer-encoding"]
        elif message["type"] == "http.response.body" and not self._has_length:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class _Transport:
    """What a response may do to the transport, with another way to close it."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close
