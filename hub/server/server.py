"""The server under the hub: uvicorn, bounded at its edge, and drained from the moment of the signal."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from starlette.applications import Starlette

from hub.app import create_app
from hub.errors import StartupError
from hub.node.node import Node
from hub.server.http import REFUSALS_MAX, HTTPLimits
from hub.server.stream import StreamingHTTPProtocol
from hub.server.supervisor import Supervisor, catching, meant
from hub.server.upgrade import HubWebSocketProtocol, WebSocketLimits
from hub.settings import Settings
from hub.telemetry import configure_logging, get_logger

_log = get_logger("hub.server")

BACKLOG: Final = 4096
"""Connections that wait to be accepted: a crowd that reconnects comes all at once."""

ACCEPTS_PER_TURN: Final = 8
"""Connections accepted in one turn of the event loop. It takes one from each listener, so there are as many
on one socket: else a crowd waits in the kernel's queue, for seconds, where nobody can be refused."""

_FILES_KEPT: Final = 2 * REFUSALS_MAX
"""Descriptors that clients cannot have: for the process itself, and for those that are being refused."""

_COLLECT_EVERY: Final = (700, 1, 3_000)
"""Objects made and not freed until the young are looked at, and how many such looks until the older are. The
young are few: some thousands, as of a crowd that comes, take tens of milliseconds."""

_GRACE_S: Final = 2
"""Seconds that requests in progress get at the end, after the drain."""


def make_config(app: Any, settings: Settings, *, node: Node | None = None) -> uvicorn.Config:
    """uvicorn's configuration for a hub.

    Args:
        app: the ASGI app.
        settings: their limits become the protocols'.
        node: whose state decides whether WebSockets are welcome, those of the app too; None for always.
    """
    client = settings.client
    server = settings.server
    http_limits = HTTPLimits(server, _connections_max(server.connections_max), node)
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=_protocol(StreamingHTTPProtocol, http_limits),
        ws=_protocol(HubWebSocketProtocol, WebSocketLimits(client.message_bytes_max, client.fragments_max)),
        ws_per_message_deflate=settings.server.compression,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        forwarded_allow_ips=list(server.trusted_proxies),
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _protocol(
    kind: Callable[..., asyncio.Protocol], limits: HTTPLimits | WebSocketLimits
) -> type[asyncio.Protocol]:
    # uvicorn only ever calls it, as it would a class.
    return cast("type[asyncio.Protocol]", partial(kind, limits=limits))


def _connections_max(wanted: int) -> int:
    """How many sockets to hold: as many as were asked for, and never so many that no descriptor is left."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return wanted or 1 << 30
    room = max(1, min(files_max * 9 // 10, files_max - _FILES_KEPT))
    return min(wanted, room) if wanted else room


def raise_file_limit() -> None:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as exc:
            _log.warning("server.limit", limit="open files", value=soft, reason=str(exc))


def spare_collections() -> None:
    """Make full garbage collections rare: each looks at all that every client holds, for tens of milliseconds
    where there are a thousand of them. What is in no cycle, and a connection is in none, is freed without."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_EVERY)


def listen(host: str, port: int, *, user_timeout_s: float = 0.0, is_shared: bool = False) -> socket.socket:
    """Bind a listening socket.

    Args:
        host: an address of this machine, or its name.
        port: 0 for one that is free.
        user_timeout_s: seconds after which the kernel gives up a connection whose peer acknowledges nothing;
            0 for the kernel's own default of many minutes.
        is_shared: whether other processes listen there too, and the kernel deals connections out.

    Raises:
        StartupError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=is_shared)
    except OSError as exc:
        raise StartupError(_why_not(host, port, exc)) from None
    # Accepted sockets inherit both. asyncio knows TCP by a protocol number that `create_server` does not set.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if user_timeout_s and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout_s * 1000))
    sock.setblocking(False)
    return sock


def _why_not(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"{host}:{port} is taken by another program: choose another port with --port or HUB_PORT"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to listen on {host}:{port}: choose a port over 1023 with --port or HUB_PORT"
    if exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
        return f"{host} is no address of this machine: choose one with --host or HUB_SERVER__HOST"
    return f"cannot listen on {host}:{port}: {exc.strerror or exc}"


class HubServer(uvicorn.Server):
    """uvicorn's server, which drains before it ends.

    SIGTERM drains over `server.drain_window_s`, SIGINT with everybody at once; a second signal, or
    `server.drain_timeout_s`, ends the drain. Until then it listens, and tells who comes that it is not ready.
    SIGHUP drains so that a new process may take over.

    Args:
        config: from `make_config`.
        settings: where to listen, and how long to drain.
        drain: asks the clients to leave, over as many seconds as it is told, and returns when they have.
        greet: called with the port once the server listens.
        is_succeeded: whether at SIGHUP another process listens at the same socket already: it gets whoever
            comes from then on.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        drain: Callable[[float], Awaitable[None]] | None = None,
        greet: Callable[[int], None] | None = None,
        *,
        is_succeeded: bool = False,
    ) -> None:
        super().__init__(config)
        self.port = 0
        self.restarts = False
        """Whether it ends to begin anew."""
        self._settings = settings
        self._drain = drain
        self._greet = greet
        self._is_succeeded = is_succeeded
        self._drain_task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until `should_exit` is set.

        Args:
            sockets: those to accept on, bound already; None binds the settings' address.

        Raises:
            StartupError: the address cannot be had, or the app did not start.
        """
        sockets = sockets or [bind(self._settings)]
        self.port = sockets[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        await super().serve([*sockets, *(sockets[0].dup() for _ in range(ACCEPTS_PER_TURN - 1))])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            # uvicorn's answer to a lifespan that failed, after it logged why.
            for sock in sockets or []:
                sock.close()
            raise StartupError("the app did not start: the log says why") from None
        _log.info("hub.started", host=self._settings.server.host, port=self.port, dev=self._settings.dev)
        if self._greet is not None:
            self._greet(self.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("hub.stopping")
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals(), catching(self.handle_exit, signal.SIGHUP):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain at the first signal, end it at the second, and wait for nothing at the third."""
        sig = meant(sig)
        if self.started and self._loop is not None and not self.should_exit:
            self._loop.call_soon_threadsafe(self.leave, sig)
        elif sig != signal.SIGHUP:
            self.force_exit = self.should_exit
            self.should_exit = True

    def leave(self, sig: int) -> None:
        """Do what a signal asks for."""
        if self._drain_task is None:
            self.restarts = sig == signal.SIGHUP
            if self.restarts and self._is_succeeded:
                for server in self.servers:
                    server.close()
            window_s = 0.0 if sig == signal.SIGINT else self._settings.server.drain_window_s
            self._drain_task = asyncio.create_task(self._run_drain(window_s))
        elif self.restarts and sig != signal.SIGHUP:
            self.restarts = False  # it drains on, and then ends for good
        elif sig != signal.SIGHUP:
            self._drain_task.cancel()

    async def _run_drain(self, window_s: float) -> None:
        try:
            if self._drain is not None:
                async with asyncio.timeout(self._settings.server.drain_timeout_s):
                    await self._drain(window_s)
        except Exception:
            # A drain that fails must not keep the server up: its supervisor would kill it.
            _log.exception("drain.failed")
        finally:
            self.should_exit = True


def bind(settings: Settings) -> socket.socket:
    """Listen at the settings' address.

    Raises:
        StartupError: it cannot be had.
    """
    client, server = settings.client, settings.server
    return listen(
        server.host,
        server.port,
        user_timeout_s=client.stall_timeout_s,
        is_shared=server.workers > 1,
    )


def run(
    app: Starlette,
    settings: Settings,
    *,
    sockets: list[socket.socket] | None = None,
    greet: Callable[[int], None] | None = None,
    restart: Callable[[], None] | None = None,
) -> bool:
    """Serve an app that a hub was installed in, with the hub's own edge, until a signal ends it.

    Args:
        app: a Starlette or FastAPI app, whose `state.hub` is the hub.
        settings: the hub's.
        sockets: those to accept on, which a supervisor holds; None binds the settings' address.
        greet: called with the port once the server listens.
        restart: what the API's `drain` with `restart` calls; None does as SIGHUP.

    Returns:
        Whether it ended at SIGHUP, to begin anew.

    Raises:
        StartupError: it cannot start.
    """
    raise_file_limit()
    spare_collections()
    hub = app.state.hub
    server = HubServer(
        make_config(app, settings, node=hub.node),
        settings,
        hub.drain,
        greet,
        is_succeeded=sockets is not None,
    )
    hub.restart_with(restart or partial(server.leave, signal.SIGHUP))
    server.run(sockets or [bind(settings)])
    return server.restarts


def serve(load: Callable[[], Settings]) -> None:
    """Run a hub as an app of its own, until a signal ends it; with several workers, a process for each.

    Args:
        load: reads the settings, again where workers are replaced.

    Raises:
        SettingsError: a setting is wrong.
        StartupError: it cannot start.
    """
    settings = load()
    configure_logging(settings.dev)
    server = settings.server
    if server.workers == 1:
        greet = partial(_greet, server.host) if settings.dev else None
        if run(create_app(settings), settings, greet=greet):
            # The same process, so that whoever started it sees none of this; its code and settings are new.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can do that again
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - its own command line
        return
    listen(server.host, server.port).close()  # to say it here, and once, where the port is taken
    if settings.dev:
        _greet(server.host, server.port)
    Supervisor(server.workers, _work, load, bind).run()


def _work(settings: Settings, sock: socket.socket, ready: Event) -> None:
    configure_logging(settings.dev)
    run(
        create_app(settings),
        settings,
        sockets=[sock],
        greet=lambda port: ready.set(),
        # All workers are replaced, one after another: an operator cannot tell them apart by their port.
        restart=partial(os.kill, os.getppid(), signal.SIGHUP),
    )


def _greet(host: str, port: int) -> None:
    print(f"The chat page is at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
