"""`TestHub`: the hub of an app in the process of a test."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Set
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final, Literal, Self

import jwt
from starlette.types import ASGIApp

from hub.app import Hub
from hub.client.codec import CODECS
from hub.client.machine import ClientMachine
from hub.client.state import ClientOptions
from hub.client.values import Publication
from hub.errors import NotStartedError, SetupError
from hub.node.environment import Environment
from hub.protocol.messages import NO_PAYLOAD
from hub.testing.broker import StandInBroker
from hub.testing.client import HubClient
from hub.testing.clock import ManualClock
from hub.testing.errors import LeakedTasksError
from hub.testing.leaks import stop_leaked
from hub.testing.lifespan import AppLifespan
from hub.testing.link import MemoryLink, handshake

SECRET_BYTES: Final = 48


class TestHub:
    """Runs an app, and its hub, in the event loop of a test: `async with TestHub(app) as hub`.

    The app's own settings and handlers hold, with three differences: a broker in memory takes the place of
    Redis, time stands still until `advance`, and login tokens that `connect(user=…)` makes are accepted.
    `Hub.simulated` puts these in place, before the app's lifespan starts, and takes them away at the end.
    Every `TestHub` begins with
    an empty hub: each life of a hub makes its state again.

    Args:
        app: the Starlette or FastAPI app that has the hub. It is not running.
        path: where the hub is, such as `/live`; by default where `hub.install` put it. An app with several
            hubs needs it.

    Raises:
        SetupError: the app has no hub, or several and no `path`.
    """

    __test__ = False  # for pytest: no class of tests

    def __init__(self, app: ASGIApp, *, path: str | None = None) -> None:
        self._app = app
        self._hubs = _hubs_of(app)
        self._hub, self._path = _chosen(self._hubs, path)
        self._clock = ManualClock()
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._published: dict[str, list[Publication]] = {}
        self._brokers: list[StandInBroker] = []
        """Those that are running."""
        self._before: Set[asyncio.Task[Any]] = frozenset()
        """The tasks that were there before the app started."""
        self._is_own = False
        """Whether this runs the app, and not a `TestClient`."""
        self._leaked: list[str] = []
        self._clients: list[HubClient] = []
        self._state: Mapping[str, Any] = {}
        self._advancing: asyncio.Task[None] | None = None
        self._is_away = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self.prepared())
            await stack.enter_async_context(self.running())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, exc, trace)

    # The test's side

    async def connect(
        self,
        user: str | None = None,
        *,
        token: str = "",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        encoding: Literal["json", "msgpack", "protobuf"] = "json",
    ) -> HubClient:
        """Connect a client, and return it once it is connected.

        Args:
            user: as whom: the client presents a login token of this user. None for a client without a token,
                and for one whose `token` says who it is.
            token: a login token of the app, in place of `user`.
            data: for the app's `on_connect`.
            headers: more headers of the handshake, such as `cookie`.
            encoding: `json`; `msgpack` or `protobuf`, where `bytes` are payloads as they are.

        Raises:
            ClientError: the hub or the app refused; with the code and the reason.
            NotStartedError: the app is not running.
            SetupError: `user` and `token` are both given.
        """
        if user is not None and not isinstance(user, str):
            raise TypeError(f"a user is a str, such as 'ann', not {user!r}")
        if user is not None and token:
            raise SetupError("connect takes a user or a token: the token says who the user is")
        self._check()
        await self._catch_up()
        codec = CODECS[encoding]
        machine = ClientMachine(
            codec,
            ClientOptions(name="hub.testing"),
            chance=random.random,
            token=token if user is None else self._token(user),
            data=NO_PAYLOAD if data is None else codec.payload(data),
        )
        name = user if user is not None else f"client {len(self._clients) + 1}"
        client = HubClient(
            name,
            machine,
            self._clock,
            lambda link: self._open(link, codec.subprotocol, headers or {}),
            self._catch_up,
        )
        self._clients.append(client)
        await client._connect()
        await self._clock.settle()
        return client

    def advance(self, seconds: float) -> Awaitable[None]:
        """Let the hub's time pass, for pings, tokens, the disconnect grace, history and presence.

        All that comes due happens at its time and in its order. Only the hub's time passes, not that of the
        app's own `time.time()` and `asyncio.sleep`, nor the limit to an app's handler.

        Args:
            seconds: how long, of the hub's time; it takes no real time.

        Returns:
            Something to await until all has happened. Without that, the next call of this kit waits for it.

        Raises:
            ValueError: the number is negative.
        """
        if seconds < 0:
            raise ValueError(f"time passes forward only: advance({seconds:g}) is negative")
        self._check()
        before = self._advancing

        async def advance() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._clock.advance(seconds)

        self._advancing = asyncio.get_running_loop().create_task(advance(), name="hub.testing advance")
        return self._advancing

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """Let the broker be away within `with hub.redis_away():`, as a Redis that does not answer.

        The hub is `degraded`, also where the settings name no Redis. Afterwards the broker is there again,
        and the hub compares its channels and makes up for what was missed, as after every such break.

        Raises:
            SetupError: it is away already.
        """
        self._check()
        if self._is_away:
            raise SetupError("Redis is away already: leave the first redis_away() before the second")
        self._is_away = True
        for broker in self._brokers:
            broker.go_away()
        try:
            yield
        finally:
            self._is_away = False
            for broker in self._brokers:
                broker.come_back()

    def published(self, channel: str) -> list[Publication]:
        """Return what the app published to a channel, over any of its ways, in order.

        What clients publish is not among it, nor a repeat with the same idempotency key, nor a publish that
        failed.
        """
        return list(self._published.get(channel, ()))

    @property
    def state(self) -> str:
        """The named state of the hub: `healthy`, `degraded`, `overloaded`, `draining` or `stopped`."""
        return self._hub.node.state

    # For the synchronous twin, too

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the hub runs in; None while it does not run."""
        return self._hub.loop

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Have the app's hubs live in memory, from the next start of the app on."""
        environment = Environment(self._make_broker, lambda: self._clock, self._secret)
        with ExitStack() as stack:
            for hub in self._hubs:
                stack.enter_context(hub.simulated(environment))
            yield
        if self._leaked:
            raise LeakedTasksError(self._leaked)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the app in this event loop."""
        self._is_own = True
        before = asyncio.all_tasks()
        lifespan = AppLifespan(self._app)
        await lifespan.start()
        self._state = lifespan.state
        try:
            yield
        finally:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(self._find_leaked, before)
                stack.push_async_callback(lifespan.stop)
                await self._catch_up()

    async def _find_leaked(self, before: Set[asyncio.Task[Any]]) -> None:
        for client in self._clients:
            await client._close()
        self._leaked = await stop_leaked(before)

    # Inside

    def _make_broker(self) -> StandInBroker:
        return StandInBroker(self._clock, self._published, self._on_start, self._on_stop)

    def _on_start(self, broker: StandInBroker) -> None:
        if not self._brokers:
            self._before = asyncio.all_tasks()
        self._brokers.append(broker)

    async def _on_stop(self, broker: StandInBroker) -> None:
        if broker in self._brokers:
            self._brokers.remove(broker)
            if not self._brokers and not self._is_own:
                # The event loop of a `TestClient` ends with the app's lifespan: no later moment is left.
                self._leaked = await stop_leaked(self._before)

    def _check(self) -> None:
        if self.loop is None:
            raise NotStartedError(
                "the app is not running: enter the TestHub, as in async with TestHub(app) as hub"
            )

    async def _catch_up(self) -> None:
        if (advancing := self._advancing) is not None:
            await asyncio.wait([advancing])
            advancing.result()

    async def _open(self, link: MemoryLink, subprotocol: str, headers: Mapping[str, str]) -> str:
        path = f"{self._path}/connection/websocket"
        return await handshake(self._app, path, headers, subprotocol, self._state, link)

    def _token(self, user: str) -> str:
        """A login token of a user, as an app makes it."""
        keys = self._hub.settings.client.token
        claims = {"sub": user, "iat": int(self._clock.unix())}
        claims |= {"aud": keys.audience} if keys.audience else {}
        claims |= {"iss": keys.issuer} if keys.issuer else {}
        return jwt.encode(claims, keys.hmac_secret.get_secret_value() or self._secret, algorithm="HS256")


def _hubs_of(app: Any) -> list[Hub]:
    hubs = list(getattr(getattr(app, "state", None), "hubs", ()))
    if not hubs:
        raise SetupError(
            f"{type(app).__name__} has no hub: TestHub takes the Starlette or FastAPI app that"
            " hub.install(app) was called with, or one with app.state.hubs = [hub]"
        )
    return hubs


def _chosen(hubs: list[Hub], path: str | None) -> tuple[Hub, str]:
    """The hub at a path, and the path."""
    if path is None:
        if len(hubs) > 1:
            paths = ", ".join(hub.path or "/" for hub in hubs)
            raise SetupError(
                f"the app has {len(hubs)} hubs, at {paths}: name one, as in TestHub(app, path=…)"
            )
        return hubs[0], hubs[0].path
    path = path.rstrip("/")
    found = [hub for hub in hubs if hub.path == path] or (hubs if len(hubs) == 1 and not hubs[0].path else [])
    if not found:
        paths = ", ".join(hub.path or "/" for hub in hubs)
        raise SetupError(f"the app has no hub at {path or '/'}, but at {paths}")
    return found[0], path
