"""The server under a hub: it accepts a reconnect storm, and drains from the moment of the signal."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from hub.errors import HubError
from hub.node.node import Node
from hub.server import _uvicorn
from hub.server._uvicorn import Config, UvicornServer
from hub.server.edge import Edge
from hub.server.lifeline import Lifeline
from hub.server.listener import BACKLOG, bind
from hub.server.signals import meaning_of
from hub.server.stream import StreamingHTTPProtocol
from hub.settings import Settings
from hub.telemetry import get_logger

_log = get_logger("hub.server")

ACCEPTS_PER_TURN: Final = 8
"""Connections accepted in one turn of the event loop. It accepts one from each listener, so the server has as
many listeners on one socket. Otherwise a storm waits in the kernel's queue for seconds, and nobody can be
refused there."""

_GRACE_S: Final = 2
"""Seconds that requests in progress get at the end, after the drain."""


def make_config(app: Any, settings: Settings, *, nodes: Sequence[Node] = ()) -> Config:
    """Configure uvicorn for an app with hubs.

    Args:
        app: the ASGI app.
        settings: with the limits of the edge.
        nodes: of the hubs in the app.
    """
    return _uvicorn.make_config(
        app,
        partial(StreamingHTTPProtocol, edge=Edge(settings, nodes)),
        trusted_proxies=list(settings.server.trusted_proxies),
        backlog=BACKLOG,
        keep_alive_s=settings.server.keep_alive_s,
        grace_s=_GRACE_S,
    )


class HubServer(UvicornServer):
    """uvicorn's server, which drains before it ends.

    SIGTERM drains over `server.drain_window_s`, SIGINT with all clients at once. A second signal, or
    `server.drain_timeout_s`, ends the drain. Until then the server listens, and refuses newcomers.
    SIGHUP drains so that a new process may take over.

    Args:
        config: from `make_config`.
        settings: where to listen, and how long to drain.
        drain: asks the clients to leave, over as many seconds as it is told, and returns when they have.
        on_started: called with the port once the server listens.
        is_succeeded: whether at SIGHUP another process listens at the same socket already. It gets the
            clients that come from then on.
        lifeline: to the supervisor of this process, if it has one.
        check_restart: called before the server ends in order to be started again. If it raises a `HubError`,
            the server goes on.
    """

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(
        self,
        config: Config,
        settings: Settings,
        drain: Callable[[float], Awaitable[None]] | None = None,
        on_started: Callable[[int], None] | None = None,
        *,
        is_succeeded: bool = False,
        lifeline: Lifeline | None = None,
        check_restart: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(config)
        self.port = 0
        self.restarts = False
        """Whether the server ends in order to be started again."""
        self._settings = settings
        self._drain = drain
        self._on_started = on_started
        self._is_succeeded = is_succeeded
        self._lifeline = lifeline
        self._check_restart = check_restart
        self._drain_task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until `end`.

        Args:
            sockets: those to accept on, bound already; None binds the settings' address.

        Raises:
            StartupError: the address cannot be had, or the app did not start.
        """
        sockets = sockets or [bind(self._settings)]
        self.port = sockets[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        if self._lifeline is not None:
            self._lifeline.start(self.leave_port)
        await super().serve([*sockets, *(sockets[0].dup() for _ in range(ACCEPTS_PER_TURN - 1))])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _log.info("hub.started", host=self._settings.server.host, port=self.port, dev=self._settings.dev)
        if self._on_started is not None:
            self._on_started(self.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("hub.stopping")
        await super().shutdown(sockets)

    def on_signal(self, sig: int) -> None:
        """Begin the drain at the first signal, end it at the second, and wait for nothing at the third."""
        sig = meaning_of(sig)
        if self._loop is not None and not self.is_ending:
            obey = self.restart if sig == signal.SIGHUP else partial(self.leave, sig)
            self._loop.call_soon_threadsafe(obey)
        elif sig != signal.SIGHUP:
            self.end(at_once=self.is_ending)

    def leave(self, sig: int) -> None:
        """Do what a signal asks for.

        Args:
            sig: SIGTERM, SIGINT or SIGHUP.
        """
        if not self.started:
            if sig != signal.SIGHUP:
                self.end()
        elif self._drain_task is None:
            self.restarts = sig == signal.SIGHUP
            if self.restarts and self._is_succeeded:
                self.stop_listening()
            window_s = 0.0 if sig == signal.SIGINT else self._settings.server.drain_window_s
            self._drain_task = asyncio.create_task(self._run_drain(window_s))
        elif self.restarts and sig != signal.SIGHUP:
            self.restarts = False  # the drain goes on, and then the server ends for good
        elif sig != signal.SIGHUP:
            self._drain_task.cancel()

    def restart(self) -> str | None:
        """Do as at SIGHUP, where nothing is wrong with a restart.

        Returns:
            Why the server goes on instead; None where it restarts.
        """
        if self.started and self._drain_task is None and self._check_restart is not None:
            try:
                self._check_restart()
            except HubError as exc:
                _log.error("restart.refused", reason=str(exc))
                return str(exc)
        self.leave(signal.SIGHUP)
        return None

    def leave_port(self) -> None:
        """Free the port at once, for another process, and then do as at SIGTERM."""
        if self.started:
            self.stop_listening()
        self.leave(signal.SIGTERM)

    async def _run_drain(self, window_s: float) -> None:
        try:
            if self._drain is not None:
                async with asyncio.timeout(self._settings.server.drain_timeout_s):
                    await self._drain(window_s)
        except Exception:
            # A drain that fails must not keep the server up: its supervisor would kill it.
            _log.exception("drain.failed")
        finally:
            self.end()
