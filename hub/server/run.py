"""Running an app with a hub: in this process, or in several worker processes."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from starlette.applications import Starlette

from hub.app import Hub, create_app
from hub.errors import HubError, SettingsError, SetupError
from hub.server.garbage import GarbageCollector
from hub.server.lifeline import Lifeline
from hub.server.listener import bind, listen, raise_file_limit
from hub.server.server import HubServer, make_config
from hub.server.supervisor import Supervisor
from hub.settings import Settings
from hub.telemetry import configure_logging, get_logger

_END_TIMEOUT_S: Final = 10.0
"""What a worker has to end, beyond its drain, when its supervisor is gone."""

_log = get_logger("hub.workers")

_PROCESS_ID: Final = os.getpid()
"""The process that imported this module: a fork of the process has another id."""


def run(app: Starlette, settings: Settings, *, on_started: Callable[[int], None] | None = None) -> None:
    """Serve an app that a hub was installed in, within the limits of the hub's settings, until a signal.

    At SIGHUP, and when the API's `drain` asks for a restart, the app drains, its lifespan ends, and then this
    process starts its program again with the same arguments. Code after this call does not run then, nor do
    `atexit` functions. The restart needs a process that runs a script or a module, and this call in its main
    thread: elsewhere, as in a child of `multiprocessing`, SIGHUP ends the app as SIGTERM does, and the API
    refuses the restart.

    Before that, the settings that `hub.config.load` read for the hubs are read again. If they are faulty now,
    a line of the log says so, and the app goes on.

    Args:
        app: a Starlette or FastAPI app, whose `state.hubs` are the hubs in it. `Hub.install` sets them.
        settings: the hub's.
        on_started: called with the port once the server listens.

    Raises:
        SetupError: `server.workers` is over 1, or the app has no hub.
        StartupError: the server cannot start.
    """
    if settings.server.workers > 1:
        raise SetupError(
            f"server.workers = {settings.server.workers}: run(app, …) serves in this process alone; set it to"
            " 1, and start the program once for each worker, behind a balancer"
        )
    can_restart = _can_restart()
    if _serve_app(app, settings, on_started=on_started, can_restart=can_restart) and can_restart:
        _restart_program()


def _serve_app(
    app: Starlette,
    settings: Settings,
    *,
    on_started: Callable[[int], None] | None,
    can_restart: bool = False,
    sockets: list[socket.socket] | None = None,
    lifeline: Lifeline | None = None,
) -> bool:
    """Serve an app.

    Args:
        app, settings, on_started: as of `run`.
        can_restart: whether the caller starts the program again when the server ended for that.
        sockets: those to accept on, which a supervisor holds; None binds the settings' address.
        lifeline: to the supervisor, if this process is a worker.

    Returns:
        Whether the server ended in order to be started again.
    """
    hubs: Sequence[Hub] = getattr(app.state, "hubs", ())
    if not hubs:
        raise SetupError("the app has no hub: call hub.install(app), or set app.state.hubs = [hub]")
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
        check_restart=partial(_check_settings, hubs) if can_restart else None,
    )
    # All workers are replaced, one after another: an operator cannot tell them apart by their port.
    restart = lifeline.ask_for_roll if lifeline is not None else server.restart
    for hub in hubs:
        hub.served_by_hub(restart if lifeline is not None or can_restart else None)
    server.run(sockets or [bind(settings)])
    return server.restarts


def _check_settings(hubs: Sequence[Hub]) -> None:
    """Check the settings of a restart, and the keys in them.

    Raises:
        SettingsError: they are faulty.
    """
    for hub in hubs:
        if (read_again := hub.settings.read_again) is not None:
            Hub(read_again())


def _can_restart() -> bool:
    """Whether this process can start its program again: it runs a file, and is no child that runs a part."""
    return (
        hasattr(sys.modules["__main__"], "__file__")
        and multiprocessing.parent_process() is None
        and os.getpid() == _PROCESS_ID
        and threading.current_thread() is threading.main_thread()
    )


def _restart_program() -> None:
    """Start this process's program again, in the same process, so that its parent notices nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new program handles it
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - its own command line


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
        run(create_app(settings), settings, on_started=on_started)
        return
    Hub(settings)  # which checks the keys
    listen(server.host, server.port).close()  # to report a taken port here, and once
    if settings.dev:
        _print_address(server.host, server.port)
    Supervisor(server.workers, partial(_work, load), partial(bind, settings)).run()


def _work(load: Callable[[], Settings], sock: socket.socket, link: socket.socket) -> None:
    """Serve as a worker, by the settings and the code of now: its supervisor may have started long ago."""
    configure_logging(dev=False)
    try:
        settings = load()
        configure_logging(settings.dev)
        lifeline = Lifeline(link, settings.server.drain_timeout_s + _END_TIMEOUT_S)
        _serve_app(
            create_app(settings),
            settings,
            on_started=lambda port: lifeline.say_ready(),
            sockets=[sock],
            lifeline=lifeline,
        )
    except HubError as exc:
        _log.error("worker.failed", reason=str(exc))
        sys.exit(2 if isinstance(exc, SettingsError) else 1)


def _print_address(host: str, port: int) -> None:
    print(f"The chat page is at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
