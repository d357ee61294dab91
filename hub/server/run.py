"""Running an app with a hub: in this process, or in several worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from starlette.applications import Starlette

from hub.app import Hub, create_app
from hub.errors import HubError, StartupError
from hub.server.garbage import GarbageCollector
from hub.server.lifeline import Lifeline
from hub.server.listener import bind, listen, raise_file_limit
from hub.server.server import HubServer, make_config
from hub.server.supervisor import Supervisor
from hub.settings import Settings
from hub.telemetry import configure_logging

_END_TIMEOUT_S: Final = 10.0
"""What a worker has to end, beyond its drain, when its supervisor is gone."""


def run(
    app: Starlette,
    settings: Settings,
    *,
    sockets: list[socket.socket] | None = None,
    on_started: Callable[[int], None] | None = None,
    lifeline: Lifeline | None = None,
) -> bool:
    """Serve an app that a hub was installed in, within the limits of the hub's settings, until a signal.

    Args:
        app: a Starlette or FastAPI app, whose `state.hubs` are the hubs in it. `Hub.install` sets them.
        settings: the hub's.
        sockets: those to accept on, which a supervisor holds; None binds the settings' address.
        on_started: called with the port once the server listens.
        lifeline: to the supervisor, if this process is a worker.

    Returns:
        Whether the server ended at SIGHUP, so that the caller can start it again.

    Raises:
        StartupError: the server cannot start.
    """
    hubs: Sequence[Hub] = getattr(app.state, "hubs", ())
    if not hubs:
        raise StartupError("the app has no hub: call hub.install(app), or set app.state.hubs = [hub]")
    raise_file_limit()
    collector = GarbageCollector()

    async def drain(window_s: float) -> None:
        await asyncio.gather(*(hub.drain(window_s) for hub in hubs))

    def started(port: int) -> None:
        collector.start()
        if on_started is not None:
            on_started(port)

    server = HubServer(
        make_config(app, settings, nodes=[hub.node for hub in hubs]),
        settings,
        drain,
        started,
        is_succeeded=sockets is not None,
        lifeline=lifeline,
    )
    # All workers are replaced, one after another: an operator cannot tell them apart by their port.
    restart = partial(server.leave, signal.SIGHUP) if lifeline is None else lifeline.ask_for_roll
    for hub in hubs:
        hub.restart_with(restart)
    server.run(sockets or [bind(settings)])
    return server.restarts


def serve(load: Callable[[], Settings]) -> None:
    """Run a hub as an app of its own, until a signal ends it; with several workers, a process for each.

    Args:
        load: reads the settings, again when workers are replaced.

    Raises:
        SettingsError: a setting is wrong.
        StartupError: the hub cannot start.
    """
    settings = load()
    configure_logging(settings.dev)
    server = settings.server
    if server.workers == 1:
        on_started = partial(_print_address, server.host) if settings.dev else None
        if run(create_app(settings), settings, on_started=on_started):
            # In the same process, so that its parent notices nothing; code and settings are read again.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new program handles it
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - its own command line
        return
    listen(server.host, server.port).close()  # to report a taken port here, and once
    if settings.dev:
        _print_address(server.host, server.port)
    Supervisor(server.workers, _work, load, bind).run()


def _work(settings: Settings, sock: socket.socket, link: socket.socket) -> None:
    configure_logging(settings.dev)
    lifeline = Lifeline(link, settings.server.drain_timeout_s + _END_TIMEOUT_S)
    try:
        run(
            create_app(settings),
            settings,
            sockets=[sock],
            on_started=lambda port: lifeline.say_ready(),
            lifeline=lifeline,
        )
    except HubError as error:
        raise SystemExit(f"hub: {error}") from None  # one line, and no traceback of the process


def _print_address(host: str, port: int) -> None:
    print(f"The chat page is at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
