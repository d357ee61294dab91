"""Running an app with a hub: in this process, or in several worker processes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from starlette.applications import Starlette

from hub.app import Hub, create_app
from hub.errors import HubError, SettingsError, SetupError, StartupError
from hub.process import program
from hub.server.garbage import GarbageCollector
from hub.server.lifeline import Lifeline, of_worker
from hub.server.listener import bind, listen, raise_file_limit
from hub.server.server import HubServer, make_config
from hub.server.supervisor import Supervisor
from hub.settings import Settings
from hub.telemetry import configure_logging, get_logger

_END_TIMEOUT_S: Final = 10.0
"""What a worker has to end, beyond its drain, when its supervisor is gone."""

_log = get_logger("hub.workers")


def run(app: Starlette, settings: Settings, *, on_started: Callable[[int], None] | None = None) -> None:
    """Serve an app that a hub was installed in, within the limits of the hub's settings, until a signal.

    At SIGHUP, and when the API's `drain` asks for a restart, the app drains, its lifespan ends, and then this
    process starts its program again with the same arguments. Code after this call does not run then, nor do
    `atexit` functions. The restart needs a process that runs a script or a module, and this call in its main
    thread: elsewhere, as in a child of `multiprocessing`, SIGHUP ends the app as SIGTERM does, the API
    refuses the restart, and a line of the log says so at the start.

    With `server.workers` over 1 this process does not serve. It starts its program again for each worker, and
    there this call serves, at the same port. SIGHUP replaces the workers one after another, each by a process
    that has run the program of now up to this call.

    Before a restart, the settings that `hub.config.load` read for the hubs are read again. If they are faulty
    now, a line of the log says so, and the app goes on.

    Args:
        app: a Starlette or FastAPI app, whose `state.hubs` are the hubs in it. `Hub.install` sets them.
        settings: the hub's.
        on_started: called with the port once the server listens. With several workers, the process that
            starts them calls it, before they listen.

    Raises:
        SetupError: the app has no hub, or this process cannot start its program again for several workers.
        StartupError: the server cannot start, or several workers have no Redis between them.
    """
    _run(app, settings, on_started, of_worker())


def _run(
    app: Starlette,
    settings: Settings,
    on_started: Callable[[int], None] | None,
    worker: tuple[socket.socket, socket.socket] | None,
) -> None:
    """Serve an app in this process, as a worker or alone, or start workers that do.

    Args:
        app, settings, on_started: as of `run`.
        worker: what a worker got from its supervisor.
    """
    hubs: Sequence[Hub] = getattr(app.state, "hubs", ())
    if not hubs:
        raise SetupError("the app has no hub: call hub.install(app), or set app.state.hubs = [hub]")
    if worker is not None:
        sock, link = worker
        lifeline = Lifeline(link, settings.server.drain_timeout_s + _END_TIMEOUT_S)
        _serve_app(app, settings, hubs, lambda port: lifeline.say_ready(), sockets=[sock], lifeline=lifeline)
    elif settings.server.workers > 1:
        _supervise(settings, hubs, on_started)
    else:
        can_restart = program.can_restart()
        if _serve_app(app, settings, hubs, on_started, can_restart=can_restart) and can_restart:
            program.restart()


def _supervise(settings: Settings, hubs: Sequence[Hub], on_started: Callable[[int], None] | None) -> None:
    """Run several workers, each of which starts this program again."""
    server = settings.server
    if not program.can_restart():
        raise SetupError(
            f"server.workers = {server.workers}: a worker starts this program again, which this process"
            " cannot: call run(app, …) in the main thread of a script or a module, or set server.workers to 1"
        )
    if any(hub.needs_one_process for hub in hubs):
        raise StartupError(
            f"{server.workers} worker processes have no Redis between them: set redis.url, or run one worker"
        )
    listen(server.host, server.port).close()  # to report a taken port here, and once
    if on_started is not None:
        on_started(server.port)
    Supervisor(server.workers, program.command(), partial(bind, settings)).run()


def _serve_app(
    app: Starlette,
    settings: Settings,
    hubs: Sequence[Hub],
    on_started: Callable[[int], None] | None,
    *,
    can_restart: bool = False,
    sockets: list[socket.socket] | None = None,
    lifeline: Lifeline | None = None,
) -> bool:
    """Serve an app.

    Args:
        app, settings, on_started: as of `run`.
        hubs: those in the app.
        can_restart: whether the caller starts the program again when the server ended for that.
        sockets: those to accept on, which a supervisor holds; None binds the settings' address.
        lifeline: to the supervisor, if this process is a worker.

    Returns:
        Whether the server ended in order to be started again.
    """
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
        hub.check_restart()


def serve(load: Callable[[], Settings]) -> None:
    """Run a hub as an app of its own, until a signal ends it; with several workers, a process for each.

    Args:
        load: reads the settings, again when workers are replaced.

    Raises:
        SettingsError: a setting is wrong.
        StartupError: the hub cannot start.
    """
    worker = of_worker()
    try:
        settings = load()
        configure_logging(settings.dev)
        on_started = partial(_print_address, settings.server.host) if settings.dev else None
        _run(create_app(settings), settings, on_started, worker)
    except HubError as exc:
        if worker is None:
            raise
        configure_logging(dev=False)
        _log.error("worker.failed", reason=str(exc))
        sys.exit(2 if isinstance(exc, SettingsError) else 1)


def _print_address(host: str, port: int) -> None:
    print(f"The chat page is at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
