"""`SyncTestHub`: the kit for tests without `async`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

from anyio.from_thread import start_blocking_portal
from starlette.types import ASGIApp

from hub.client import values
from hub.protocol import messages as m
from hub.testing.client import NEXT_S, HubClient
from hub.testing.hub import TestHub

T = TypeVar("T", bound=values.Event)
R = TypeVar("R")


class SyncTestHub:
    """`TestHub` for a plain `def` test, beside Starlette's `TestClient`.

        with SyncTestHub(app) as hub, TestClient(app) as http:
            ann = hub.connect(user="ann")
            ann.subscribe("orders:1")
            http.post("/orders/1/paid")
            assert ann.next().data == {"status": "paid"}

    Enter it before the `TestClient`, and the `TestClient` as a context manager too: the app and its hub then
    run in the event loop of the `TestClient`. Without a `TestClient`, the first `connect` starts the app, in
    a thread.

    Args:
        app, path: as of `TestHub`.

    Raises:
        SetupError: as `TestHub`.
    """

    __test__ = False  # for pytest: no class of tests

    def __init__(self, app: ASGIApp, *, path: str | None = None) -> None:
        self._hub: Final = TestHub(app, path=path)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._hub.prepared())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, exc, trace)

    def connect(
        self,
        user: str | None = None,
        *,
        token: str = "",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        encoding: Literal["json", "msgpack", "protobuf"] = "json",
    ) -> SyncHubClient:
        """Connect a client, as `TestHub.connect`."""
        connecting = self._hub.connect(user, token=token, data=data, headers=headers, encoding=encoding)
        return SyncHubClient(self._run(connecting), self)

    def advance(self, seconds: float) -> None:
        """Let the hub's time pass, as `TestHub.advance`, until all that comes due has happened."""

        async def advance() -> None:
            await self._hub.advance(seconds)

        self._run(advance())

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """Let the broker be away within the context, as `TestHub.redis_away`."""
        with ExitStack() as stack:

            async def leave() -> None:
                stack.enter_context(self._hub.redis_away())

            async def come_back() -> None:
                stack.close()
                await self._hub.advance(0)

            self._run(leave())
            try:
                yield
            finally:
                self._run(come_back())

    def published(self, channel: str) -> list[values.Publication]:
        """Return what the app published to a channel, as `TestHub.published`."""
        return self._hub.published(channel)

    @property
    def state(self) -> str:
        """The named state of the hub, as `TestHub.state`."""
        return self._hub.state

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in the hub's event loop, and wait for it."""
        loop = self._hub.loop
        if loop is None:
            portal = self._stack.enter_context(start_blocking_portal("asyncio"))
            self._stack.enter_context(portal.wrap_async_context_manager(self._hub.running()))
            loop = self._hub.loop
            assert loop is not None, "an app that has started has a running hub"
        return asyncio.run_coroutine_threadsafe(work, loop).result()


class SyncHubClient:
    """A client of a `SyncTestHub`: a `HubClient` whose calls block. `SyncTestHub.connect` makes it.

    Args:
        client: does the work.
        hub: whose client it is.
    """

    def __init__(self, client: HubClient, hub: SyncTestHub) -> None:
        self._client = client
        self._run = hub._run

    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def name(self) -> str:
        """What errors call the client."""
        return self._client.name

    @property
    def id(self) -> str:
        """Id of the connection, as `HubClient.id`."""
        return self._client.id

    @property
    def is_connected(self) -> bool:
        """Whether the client has a connection to the hub."""
        return self._client.is_connected

    @property
    def channels(self) -> list[str]:
        """The channels that the client is subscribed to, as `HubClient.channels`."""
        return self._client.channels

    @property
    def received(self) -> list[values.Event]:
        """Everything that came, as `HubClient.received`."""
        return self._client.received

    def subscribe(
        self,
        channel: str,
        *,
        token: str = "",
        data: Any = None,
        recoverable: bool = True,
        positioned: bool = False,
        join_leave: bool = False,
        since: m.StreamPosition | None = None,
        tags_filter: m.FilterNode | None = None,
    ) -> values.Subscribed:
        """Subscribe to a channel, as `HubClient.subscribe`."""
        return self._run(
            self._client.subscribe(
                channel,
                token=token,
                data=data,
                recoverable=recoverable,
                positioned=positioned,
                join_leave=join_leave,
                since=since,
                tags_filter=tags_filter,
            )
        )

    def unsubscribe(self, channel: str) -> None:
        """Leave a channel, as `HubClient.unsubscribe`."""
        self._run(self._client.unsubscribe(channel))

    def publish(self, channel: str, data: Any) -> None:
        """Publish to a channel, as `HubClient.publish`."""
        self._run(self._client.publish(channel, data))

    def history(
        self, channel: str, *, limit: int = -1, since: m.StreamPosition | None = None, reverse: bool = False
    ) -> values.HistoryResult:
        """Read a channel's history, as `HubClient.history`."""
        return self._run(self._client.history(channel, limit=limit, since=since, reverse=reverse))

    def presence(self, channel: str) -> dict[str, values.ClientInfo]:
        """Return who is in a channel, as `HubClient.presence`."""
        return self._run(self._client.presence(channel))

    def rpc(self, method: str, data: Any = None) -> Any:
        """Call a method of the app, as `HubClient.rpc`."""
        return self._run(self._client.rpc(method, data))

    def send(self, data: Any) -> None:
        """Send the app a message, as `HubClient.send`."""
        self._run(self._client.send(data))

    @overload
    def next(self, *, timeout: float = NEXT_S) -> values.Published: ...

    @overload
    def next(self, kind: type[T], *, timeout: float = NEXT_S) -> T: ...

    def next(self, kind: type[Any] = values.Published, *, timeout: float = NEXT_S) -> Any:
        """Wait for the next publication or other event, as `HubClient.next`."""
        return self._run(self._client.next(kind, timeout=timeout))

    def drop_link(self) -> None:
        """Break the connection, as `HubClient.drop_link`."""

        async def drop() -> None:
            await self._client.drop_link()

        self._run(drop())

    def reconnect(self) -> None:
        """Come back, as `HubClient.reconnect`."""
        self._run(self._client.reconnect())

    def disconnect(self) -> None:
        """Leave, as `HubClient.disconnect`."""
        self._run(self._client.disconnect())

    def describe(self) -> str:
        """Say where the client is and what came to it, as `HubClient.describe`."""
        return self._client.describe()
