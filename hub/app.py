"""The composition root: a hub from its settings, inside an app or as an app of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from hub.broker.base import Broker
from hub.broker.memory import MemoryBroker
from hub.broker.redis.broker import RedisBroker
from hub.config import load
from hub.core.hooks import ConnectEvent, ConnectReply
from hub.endpoints import api as api_endpoint
from hub.endpoints import asyncapi, demo, health, streams, websocket
from hub.endpoints.emulation import EmulationEndpoint
from hub.endpoints.handshake import RequestChecks
from hub.endpoints.mount import HubMount, add_mount, check_target
from hub.errors import EventLoopError, HubError, NotStartedError, RequestError, SetupError, StartupError
from hub.handlers.handler import AppHandler
from hub.handlers.registry import HandlerTable
from hub.handlers.router import HandlerDecorators
from hub.handlers.signature import Handler, Hints
from hub.node.environment import Environment
from hub.node.node import Node
from hub.process.ending import at_end_signal
from hub.process.other_servers import cancel_restart, find_restart, worker_processes
from hub.process.threads import LoopCalls
from hub.protocol import api
from hub.protocol.codes import Error
from hub.protocol.messages import StreamPosition
from hub.protocol.server_api import ServerAPI, position, publish_request
from hub.settings import Settings
from hub.telemetry import Metrics, get_logger
from hub.version import VERSION

_LOOK_PERIOD_S: Final = 0.02

_CANNOT_RESTART: Final = (
    "this process cannot restart itself; start the app with hub.server.run in the main thread of its program,"
    " or restart the process by the program that started it"
)
"""Why `hub roll` cannot restart an app under this server."""


_log = get_logger("hub.app")


class Hub(HandlerDecorators, ServerAPI):
    """A real-time hub inside an app, or as an app of its own.

    Args:
        settings: every setting; None reads the environment, and the file that `HUB_CONFIG` names.
        broker: how nodes reach each other; None is Redis where `redis.url` is set, else the embedded one.

    Raises:
        SettingsError: a setting is wrong.
    """

    def __init__(self, settings: Settings | None = None, *, broker: Broker | None = None) -> None:
        self.settings: Final = settings or load()
        self.metrics: Final = Metrics()
        self._handlers: Final = HandlerTable()
        self._restart: Callable[[], str | None] = lambda: _CANNOT_RESTART
        self._has_own_server = False
        self.needs_one_process: Final = broker is None and not self.settings.redis.url
        """Whether nothing joins this hub to the hubs of other processes."""
        self._is_installed = False
        self.path = ""
        """Where `install` put the endpoints; empty where the app mounts them itself."""
        self._is_simulated = False
        self._is_alive = False
        self.node: Final = Node(
            self.settings,
            Environment(partial(_broker, self.settings) if broker is None else lambda: broker),
            self._handlers,
            self.metrics,
            VERSION,
            lambda: self._restart(),
        )
        self._calls: LoopCalls | None = None
        self._leaving: asyncio.Task[None] | None = None
        self.metrics.bind(
            connections=lambda: len(self.node.connections),
            clients=lambda: len(self.node.registry.clients),
            users=lambda: len(self.node.registry.users),
            subscriptions=lambda: self.node.registry.subscriptions,
            channels=lambda: len(self.node.registry.channels),
            outbox_bytes=lambda: self.node.outboxes.size,
        )
        self.metrics.deltas = lambda: self.node.deltas.computed

    # Life

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Run the hub for as long as the context lasts.

        `install` and `create_app` do this; an app that composes its own lifespan enters this one in it.

        Under a server other than the hub's own, the clients are asked to reconnect elsewhere at SIGTERM and
        SIGINT: such a server waits for streams to end, and tells the app nothing before.

        Raises:
            SetupError: the hub is alive already, in this app or in another one.
            StartupError: the broker cannot work as it is configured, or the server under the app runs several
                processes with no Redis between them.
        """
        if self._is_alive and self._is_simulated:
            raise SetupError(
                "the hub runs for its TestHub already: enter TestClient(app) before the first connect"
            )
        if self._is_alive:
            raise SetupError("the hub is started already: install it once, or enter its lifespan once")
        if self.needs_one_process and not self._is_simulated and (count := worker_processes()) > 1:
            raise StartupError(
                f"{count} worker processes have no Redis between them: set redis.url, or run one worker"
            )
        self._is_alive = True
        try:
            await self.node.start()
            loop = asyncio.get_running_loop()
            self._calls = calls = LoopCalls(loop)
            try:
                if not (self._has_own_server or self._is_simulated):
                    self._restart_by(find_restart(self._drain_and))
                with at_end_signal(partial(self._on_end_signal, loop)):
                    yield
            finally:
                await self.node.stop()
                self._calls = None
                calls.close()
        finally:
            self._is_alive = False

    @contextmanager
    def simulated(self, environment: Environment) -> Iterator[None]:
        """Have the lives that begin within the context use another broker and another clock: those of a test.

        `hub.testing` does this. Handlers that are registered within the context are forgotten after it.

        Args:
            environment: of these lives.

        Raises:
            SetupError: the hub is running, or is in such a context already.
        """
        if self._is_alive or self._is_simulated:
            state = "is in a TestHub already" if self._is_simulated else "is running"
            raise SetupError(f"the hub {state}: leave its TestHub, or its app's lifespan, first")
        usual = self.node.environment
        self.node.environment, self._is_simulated = environment, True
        try:
            with self._handlers.restored():
                yield
        finally:
            self.node.environment, self._is_simulated = usual, False

    async def end_clients(self) -> None:
        """Disconnect every client, take no more, and wait for the app's disconnect handlers.

        `install` does this before the app's own shutdown, so that handlers can use what its lifespan opened.
        An app that composes its own lifespan need not call it, if it enters `lifespan` after everything that
        its handlers use.
        """
        await self.node.end_clients()

    async def drain(self, window_s: float) -> None:
        """Take no more connections, and ask all clients to reconnect elsewhere, spread over a window.

        It happens once: a second call waits for the same end, which its own window may bring nearer.

        Args:
            window_s: seconds until the last one is asked; 0 asks all at once.

        Raises:
            NotStartedError, EventLoopError: as `request`.
        """
        self._check_loop()
        await asyncio.shield(self.node.drain.begin(window_s))

    def _on_end_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drain, and do not restart. This runs in a signal handler."""
        cancel_restart()
        loop.call_soon_threadsafe(self._drain_at_once)

    def _drain_and(self, end: Callable[[], None]) -> None:
        """Begin to drain over the window, and call a function when every client is gone, or it is late."""

        async def leave() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.server.drain_timeout_s):
                    await self.node.drain.begin(self.settings.server.drain_window_s)
                    while len(self.node.connections):  # noqa: ASYNC110 - another server ends them
                        await asyncio.sleep(_LOOK_PERIOD_S)
            end()

        self._leaving = asyncio.ensure_future(leave())

    def _drain_at_once(self) -> None:
        """Drain, unless the hub's own server does so, with a window."""
        if not self._has_own_server:
            self.node.drain.begin(0.0)

    def served_by_hub(self, restart: Callable[[], str | None] | None) -> None:
        """Say that the hub's own server runs the app: it drains the hub at its signals.

        Args:
            restart: makes the process drain and start again, as the API's `drain` with `restart` asks for.
                Returns None, or why the process goes on. None where the process cannot restart itself.
        """
        self._has_own_server = True
        if restart is not None:
            self._restart = restart
        else:
            _log.warning("restart.unavailable", reason=_CANNOT_RESTART)

    def check_restart(self) -> None:
        """Check the settings that a restart would read, if `hub.config.load` read those of this hub.

        Raises:
            SettingsError: they are faulty, or a key in them is.
        """
        if (read_again := self.settings.read_again) is not None:
            Hub(read_again())

    def _restart_by(self, replace: Callable[[], None] | None) -> None:
        """Restart by what another server offers."""

        def restart() -> str | None:
            try:
                self.check_restart()
            except HubError as exc:
                _log.error("restart.refused", reason=str(exc))
                return str(exc)
            assert replace is not None
            replace()
            return None

        if replace is None:
            _log.warning("restart.unavailable", reason=_CANNOT_RESTART)
        else:
            self._restart = restart

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the hub runs in; None while it does not run."""
        return None if self._calls is None else self._calls.loop

    # In an app

    def routes(self) -> list[BaseRoute]:
        """Return the hub's endpoints, for an app that mounts them itself."""
        checks = RequestChecks(self.node)
        return [
            *websocket.routes(self.node, checks),
            *streams.routes(self.node, checks),
            Route("/emulation", EmulationEndpoint(self.node, checks)),
            *api_endpoint.routes(self.node, checks),
            *asyncapi.routes(self._handlers, self.node.version),
            *health.routes(self.node),
            *demo.client_routes(),
        ]

    def install(self, app: Starlette, path: str = "/live") -> None:
        """Put the hub into a Starlette or FastAPI app: its endpoints under `path`, its life within the app's.

        The hub starts before the app's lifespan, and ends after it, so that the lifespan may publish. At the
        end it first disconnects its clients and waits for the disconnect handlers.

        Args:
            app: that has not started yet. FastAPI's is a Starlette app.
            path: where the endpoints go; clients connect to `path` + `/connection/websocket`.

        Raises:
            SetupError: the hub is installed already, `app` is another kind of app or has started, or another
                hub, app or route is under this path.
        """
        if self._is_installed:
            raise SetupError("the hub is installed already: hub.install(app) is called once for each hub")
        check_target(app, path)
        mount = HubMount(path, routes=[*self.routes(), websocket.unknown()])
        add_mount(app, mount)
        self._is_installed = True
        self.path = mount.path
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def both(host: Any) -> AsyncIterator[Any]:
            async with self.lifespan(), inner(host) as state:
                try:
                    yield state
                finally:
                    await self.end_clients()

        app.router.lifespan_context = both
        self._enter(app)

    def _enter(self, app: Starlette) -> None:
        """Tell the server of an app that this hub is in it."""
        app.state.hub = self
        app.state.hubs = [*getattr(app.state, "hubs", ()), self]

    # What the app decides, by the decorators of `HandlerDecorators`

    def _register(self, hook: str, pattern: str | None, function: Handler, hints: Hints) -> None:
        self._handlers.discard(_demo_user)
        self._handlers.add(AppHandler(hook, pattern, function, hints))

    # What the app asks: these calls, and those of `ServerAPI`

    def publish_from_thread(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> StreamPosition:
        """Publish to a channel from a thread other than the event loop's, such as a `def` endpoint's.

        It blocks until the publication has its position, for ten seconds at the most. A publication that the
        broker does not take is tried again for two seconds, and sent once.

        Args:
            channel, data, tags, skip_history, delta: as of `publish`.
            idempotency_key: as of `publish`; without a key the call makes one.

        Returns:
            The position, as `publish`.

        Raises:
            RequestError, TypeError, ValueError, NotStartedError: as `publish`; nothing was sent.
            UnconfirmedError: the hub did not confirm the publication, which may have been sent. The error has
                the key with which a repeat sends it once.
            EventLoopError: this is the thread of the hub's event loop, which must not block: await `publish`.
        """
        calls = self._running()
        key = idempotency_key or secrets.token_hex(16)
        request = publish_request(channel, data, tags, skip_history, key, delta)
        return position(calls.publish(partial(self._run, request), key))

    async def _run(self, request: api.Request) -> Any:
        self._check_loop()
        outcome = await self.node.api.run(api.METHOD_OF[type(request)], request)
        if isinstance(outcome, Error):
            raise RequestError(outcome.code, outcome.message, outcome.temporary, outcome.detail)
        return outcome

    async def request(self, method: str, request: api.Request) -> Any:
        """Run any method of the server API from within the app.

        Args:
            method: one of `hub.protocol.api.METHODS`.
            request: of that method's type.

        Returns:
            The method's result.

        Raises:
            RequestError: it was refused.
            NotStartedError: the hub's lifespan has not run.
            EventLoopError: this is not the hub's event loop.
            TypeError: the request is of another method.
        """
        if api.METHOD_OF.get(type(request)) != method:
            raise TypeError(f"{type(request).__name__} is no request of the method {method!r}")
        return await self._run(request)

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._running().loop:
            raise EventLoopError(
                "the hub runs in another event loop: call hub.publish_from_thread(…), or"
                " asyncio.run_coroutine_threadsafe(…, loop) with the loop that the app runs in"
            )

    def _running(self) -> LoopCalls:
        if self._calls is None:
            raise NotStartedError(
                "the hub is not running: hub.install(app) runs it with the app, or enter hub.lifespan()"
            )
        return self._calls


def _broker(settings: Settings) -> Broker:
    return RedisBroker(settings.redis) if settings.redis.url else MemoryBroker()


def create_app(settings: Settings) -> Starlette:
    """The hub as an app of its own; in development mode with a chat page at its root.

    Args:
        settings: all that can be set.

    Raises:
        SettingsError: a setting is wrong.
    """
    hub = Hub(settings)
    routes = hub.routes()
    if settings.dev:
        hub.on_connect(_demo_user)
        routes += demo.routes(_demo_user)
    app = Starlette(routes=[*routes, websocket.unknown()], lifespan=hub.lifespan)
    hub._enter(app)
    return app


async def _demo_user(event: ConnectEvent) -> ConnectReply | None:
    """Let the chat page say who its user is; every other client is what its token makes it."""
    data = event.data
    if event.has_token or not isinstance(data, dict):
        return None
    name, user = data.get("name"), data.get("user")
    if not isinstance(name, str) or not isinstance(user, str):
        return None
    return ConnectReply(user=user[:64], info={"name": name[:64]})
