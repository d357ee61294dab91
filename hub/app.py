"""The one composition root: a hub from its settings, inside an app or as one."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from msgspec import Raw
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from hub.broker.base import Broker
from hub.broker.memory import MemoryBroker
from hub.broker.redis.broker import RedisBroker
from hub.config import load
from hub.core.hooks import ConnectEvent, ConnectReply
from hub.endpoints import api as api_endpoint
from hub.endpoints import demo, health, streams, websocket
from hub.endpoints.emulation import EmulationEndpoint
from hub.errors import NotStartedError, RequestError
from hub.node.callbacks import Handler
from hub.node.node import Node
from hub.node.state import STOPPED
from hub.protocol import api
from hub.protocol.codes import Disconnect, Disconnects, Error
from hub.protocol.json import check
from hub.protocol.messages import ClientInfo, StreamPosition, checked_tags, payload
from hub.settings import Settings
from hub.telemetry import Metrics

_H = TypeVar("_H", bound=Handler)


class Hub:
    """A real-time hub, to live in an app or to be one.

    Args:
        settings: all that can be set; None reads the environment, and the file that `HUB_CONFIG` names.
        broker: how nodes reach each other; None is Redis where `redis.url` is set, else the embedded one.

    Raises:
        SettingsError: a setting is wrong.
    """

    def __init__(self, settings: Settings | None = None, *, broker: Broker | None = None) -> None:
        self.settings: Final = settings or load()
        self.metrics: Final = Metrics()
        self._handlers: dict[str, Handler] = {}
        self._restart: Callable[[], None] | None = None
        self.node: Final = Node(
            self.settings,
            partial(_broker, self.settings) if broker is None else lambda: broker,
            self._handlers,
            self.metrics,
            importlib.metadata.version("hub"),
            self._begin_restart,
        )
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

        Raises:
            StartupError: the broker cannot work as it is configured.
        """
        await self.node.start()
        try:
            yield
        finally:
            await self.node.stop()

    async def drain(self, window_s: float) -> None:
        """Take no more connections, and ask those there are to reconnect elsewhere, spread over a window.

        It happens once: a second call waits for the same end, which its own window may bring nearer.

        Args:
            window_s: seconds until the last one is asked; 0 asks all at once.
        """
        await asyncio.shield(self.node.drain.begin(window_s))

    def restart_with(self, restart: Callable[[], None]) -> None:
        """Say how this process drains and begins anew, for the API's `drain` with `restart`."""
        self._restart = restart

    def _begin_restart(self) -> bool:
        if self._restart is None:
            return False
        self._restart()
        return True

    # In an app

    def routes(self) -> list[BaseRoute]:
        """The hub's endpoints, to be mounted wherever an app wants them."""
        return [
            *websocket.routes(self.node),
            *streams.routes(self.node),
            Route("/emulation", EmulationEndpoint(self.node)),
            *api_endpoint.routes(self.node),
            *health.routes(self.node),
            *demo.client_routes(),
        ]

    def install(self, app: Starlette, path: str = "/live") -> None:
        """Put the hub into a Starlette or FastAPI app: its endpoints under `path`, its life within the app's.

        Args:
            app: that has not started yet. FastAPI's is a Starlette app.
            path: where the endpoints go; clients connect to `path` + `/connection/websocket`.
        """
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def both(host: Any) -> AsyncIterator[Any]:
            async with self.lifespan(), inner(host) as state:
                yield state

        app.router.lifespan_context = both
        app.router.routes.append(Mount(path, routes=self.routes()))
        app.state.hub = self

    # What the app decides

    def on_connect(self, handler: _H) -> _H:
        """Decorate the function that is asked when a client connects. It takes a `ConnectEvent`."""
        return self._register("connect", handler)

    def on_subscribe(self, handler: _H) -> _H:
        """Decorate the function that is asked when a client subscribes. It takes a `SubscribeEvent`."""
        return self._register("subscribe", handler)

    def on_publish(self, handler: _H) -> _H:
        """Decorate the function that is asked when a client publishes. It takes a `PublishEvent`."""
        return self._register("publish", handler)

    def on_rpc(self, handler: _H) -> _H:
        """Decorate the function that answers a client's calls. It takes an `RPCEvent`."""
        return self._register("rpc", handler)

    def on_message(self, handler: _H) -> _H:
        """Decorate the function that takes a client's messages. It takes a `MessageEvent`."""
        return self._register("message", handler)

    def on_disconnect(self, handler: _H) -> _H:
        """Decorate the function that is told when a client is gone. It takes a `DisconnectEvent`."""
        return self._register("disconnect", handler)

    def _register(self, event: str, handler: _H) -> _H:
        self._handlers[event] = handler
        return handler

    # What the app asks

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> StreamPosition:
        """Publish to a channel.

        Args:
            channel: its name.
            data: any JSON value; a `msgspec.Raw` is JSON text, sent as it is; `bytes` are binary.
            tags: sent with the publication.
            skip_history: keep it out of the channel's history.
            idempotency_key: a repeat with the same key within five minutes sends nothing.
            delta: send what changed since the publication before to those who take deltas.

        Returns:
            Its position; offset 0 where the channel keeps no history.

        Raises:
            RequestError: the channel is badly named or not configured, or the broker is away.
            TypeError, ValueError: the data or the tags have no JSON form that every client can read.
            NotStartedError: the hub's lifespan has not run.
        """
        if isinstance(data, Raw):
            check(bytes(data))
        request = api.PublishRequest(
            channel=channel,
            data=payload(data),
            tags=None if tags is None else checked_tags(tags),
            skip_history=skip_history,
            idempotency_key=idempotency_key,
            delta=delta,
        )
        result = await self.request("publish", request)
        return StreamPosition(result.offset, result.epoch)

    async def presence(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is in a channel, by client id.

        Raises:
            RequestError, NotStartedError: as `publish`.
        """
        result: api.PresenceResult = await self.request("presence", api.PresenceRequest(channel=channel))
        return result.presence

    async def disconnect(
        self,
        user: str,
        disconnect: Disconnect = Disconnects.FORCE_NO_RECONNECT,
        *,
        revoke: bool = False,
    ) -> api.ConfirmedResult:
        """End every connection of a user, on every node.

        Args:
            user: whose.
            disconnect: tells the clients why, and whether to come back.
            revoke: let none of them come back by a reconnect token.

        Returns:
            Whether every node has done it by now; a node that cannot be reached does it as soon as it can.

        Raises:
            RequestError, NotStartedError: as `publish`.
        """
        reason = api.DisconnectReason(disconnect.code, disconnect.reason)
        request = api.DisconnectRequest(user=user, disconnect=reason, revoke=revoke)
        result: api.ConfirmedResult = await self.request("disconnect", request)
        return result

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
        """
        if self.node.state == STOPPED:
            raise NotStartedError(
                "the hub is not running: hub.install(app) runs it with the app, or enter hub.lifespan()"
            )
        outcome = await self.node.api.run(method, request)
        if isinstance(outcome, Error):
            raise RequestError(outcome.code, outcome.message, outcome.temporary)
        return outcome


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
        routes += demo.routes()
    app = Starlette(routes=routes, lifespan=hub.lifespan)
    app.state.hub = hub
    return app


def _demo_user(event: ConnectEvent) -> ConnectReply | None:
    """Let the chat page say who its user is; every other client is what its token makes it."""
    data = event.data
    if event.has_token or not isinstance(data, dict):
        return None
    name, user = data.get("name"), data.get("user")
    if not isinstance(name, str) or not isinstance(user, str):
        return None
    return ConnectReply(user=user[:64], info={"name": name[:64]})
