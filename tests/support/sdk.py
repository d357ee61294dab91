"""Hubs with keys and namespaces for every need, tokens for them, and SDK clients whose events are kept."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from centrifuge import Client, ClientState  # type: ignore[import-untyped]
from support.balancer import Balancer
from support.limits import WAIT_S
from support.redis_proxy import Proxy
from support.server import Running, running

from hub.app import Hub, create_app
from hub.config import load
from hub.settings import RedisSettings, Settings

SECRET = "signs-the-connection-tokens-of-the-tests"
SUBSCRIPTION_SECRET = "signs-the-subscription-tokens-of-the-tests"
API_KEY = "the-api-key-of-the-tests"

_HISTORY = {"history_size": 1000, "history_ttl_s": 60}
CHANNELS: dict[str, dict[str, Any]] = {
    "chat": {
        **_HISTORY,
        "presence": True,
        "join_leave": True,
        "allow_subscribe_for_client": True,
        "allow_publish_for_subscriber": True,
        "allow_history_for_subscriber": True,
        "allow_presence_for_subscriber": True,
    },
    "news": {**_HISTORY, "allow_subscribe_for_client": True, "force_recovery": True},
    "short": {
        "history_size": 3,
        "history_ttl_s": 60,
        "force_recovery": True,
        "allow_subscribe_for_client": True,
        "allow_history_for_client": True,
    },
    "board": {
        **_HISTORY,
        "allow_subscribe_for_client": True,
        "force_recovery": True,
        "allowed_delta_types": ["fossil"],
        "delta_publish": True,
        "allow_tags_filter": True,
    },
    "asked": {"allow_subscribe_for_client": True, "allowed_delta_types": ["fossil"]},
    "readable": {
        **_HISTORY,
        "presence": True,
        "allow_history_for_client": True,
        "allow_presence_for_client": True,
    },
    "plain": {"allow_subscribe_for_client": True, "allow_publish_for_client": True},
    "private": {"presence": True, "join_leave": True, "force_push_join_leave": True},
    "limited": {"allow_user_limited": True},
    "own": {**_HISTORY, "force_recovery": True},
}


def settings(client: dict[str, Any] | None = None, **sections: Any) -> Settings:
    """Settings with all keys and the namespaces of `CHANNELS`.

    Args:
        client: more of the `client` section.
        sections: whole sections by name, in place of those here.
    """
    return load(
        env={},
        overrides={
            "client": {
                "token": {"hmac_secret": SECRET},
                "subscription_token": {"hmac_secret": SUBSCRIPTION_SECRET},
                "reconnect": {"presence_grace_s": 0},
                **(client or {}),
            },
            "api": {"key": API_KEY},
            # Clients share the event loop with their hub, and it is not overloaded for being late.
            "server": {"lag_max_s": 0},
            "channels": CHANNELS,
            **sections,
        },
    )


def token(user: str, *, ttl_s: float | None = None, secret: str = SECRET, **claims: Any) -> str:
    """A connection token.

    Args:
        user: its `sub`.
        ttl_s: seconds until it expires, from now; below zero for one that has. None for no end.
        secret: of its signature.
        claims: others.
    """
    if ttl_s is not None:
        claims["exp"] = time.time() + ttl_s
    return jwt.encode({"sub": user, **claims}, secret, "HS256")


def subscription_token(user: str, channel: str, *, ttl_s: float | None = None, **claims: Any) -> str:
    """A subscription token, as `token` makes one for a connection."""
    return token(user, ttl_s=ttl_s, secret=SUBSCRIPTION_SECRET, channel=channel, **claims)


@contextlib.asynccontextmanager
async def live(
    configured: Settings | None = None, **handlers: Callable[[Any], Any]
) -> AsyncIterator[tuple[Hub, Running]]:
    """A hub that serves, under the hub's own server.

    Args:
        configured: its settings; those of `settings` where they are not given.
        handlers: what the app decides, by event: `rpc=…` is `on_rpc`.
    """
    app = create_app(configured or settings())
    hub: Hub = app.state.hub
    for event, handler in handlers.items():
        getattr(hub, f"on_{event}")(handler)
    async with running(app, hub.settings, drain=hub.drain) as server:
        yield hub, server


redis_url = ""
"""Of the Redis between the two nodes of `serving`; empty where one hub is to serve alone."""

LATE_S = 0.01
"""How much later a node hears a publication than its publisher hears of it."""

_worlds = itertools.count()


class Hubs:
    """The hubs behind one address: what is asked of them is asked of one of chance.

    Args:
        all: one, or several that are one.
    """

    def __init__(self, all: Sequence[Hub]) -> None:
        self.all = all

    def __getattr__(self, name: str) -> Any:
        return getattr(random.choice(self.all), name)

    @property
    def clients(self) -> list[str]:
        """The ids of all connections."""
        return [client for hub in self.all for client in hub.node.registry.clients]

    @property
    def users(self) -> list[str]:
        """The users that are connected, for each node."""
        return [user for hub in self.all for user in hub.node.registry.users]

    @property
    def channels(self) -> list[str]:
        """The channels that somebody is in, for each node."""
        return [channel for hub in self.all for channel in hub.node.registry.channels]

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return sum(hub.node.registry.subscriptions for hub in self.all)


class Address:
    """Where clients find hubs.

    Args:
        port: of this machine.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.websocket_url = f"ws://127.0.0.1:{port}/connection/websocket"


@contextlib.asynccontextmanager
async def serving(
    configured: Settings | None = None, **handlers: Callable[[Any], Any]
) -> AsyncIterator[tuple[Hubs, Address]]:
    """As `live`; where there is a `redis_url`, two nodes, behind a balancer that deals sockets by chance.

    What they hear of each other comes later than the answers to what they ask, as it may from a busy Redis.
    """
    if not redis_url:
        async with live(configured, **handlers) as (hub, server):
            yield Hubs([hub]), Address(server.port)
        return
    async with Proxy(urlsplit(redis_url).port or 0, late_s=LATE_S) as redis:
        between = RedisSettings(url=redis.url, prefix=f"world-{next(_worlds)}")
        shared = (configured or settings()).model_copy(update={"redis": between})
        async with (
            live(shared, **handlers) as (one, at),
            live(shared, **handlers) as (two, of),
            Balancer([at.port, of.port]) as balancer,
        ):
            yield Hubs([one, two]), Address(balancer.port)


class Events:
    """Takes every event of an SDK's client or subscription, and keeps them in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Any]] = []
        self._taken: dict[str, int] = {}
        self._came = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)

        async def keep(context: Any) -> None:
            self.all.append((name[3:], context))
            self._came.set()

        return keep

    def of(self, name: str) -> list[Any]:
        """The contexts of all events of a name, such as `publication`, so far."""
        return [context for event, context in self.all if event == name]

    async def next(self, name: str) -> Any:
        """The context of the next event of a name that was not taken yet."""
        taken = self._taken.get(name, 0)
        context = (await self.count(name, taken + 1))[taken]
        self._taken[name] = taken + 1
        return context

    async def count(self, name: str, count: int) -> list[Any]:
        """Wait until there are so many events of a name, and return all of them."""
        try:
            async with asyncio.timeout(WAIT_S):
                while len(self.of(name)) < count:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.of(name))} of {count} {name}; came: {self.all}") from None
        return self.of(name)

    @property
    def data(self) -> list[Any]:
        """The payloads of all publications so far."""
        return [context.pub.data for context in self.of("publication")]


class ProtobufClient(Client):  # type: ignore[misc]
    """The SDK over Protobuf, as an app has it whose payloads are JSON: their text goes in as bytes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, use_protobuf=True, **options)

    def _encode_data(self, data: Any) -> Any:
        return super()._encode_data(json.dumps(data).encode())

    def _decode_data(self, data: Any) -> Any:
        return None if data is None else json.loads(super()._decode_data(data))


encoding = "json"
"""What the clients that are made next speak: a name of `CLIENTS`."""

CLIENTS: Final = {"json": Client, "protobuf": ProtobufClient}


@contextlib.asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[tuple[Any, Events]]:
    """A client of the Python SDK that was told to connect, and its events. It speaks `encoding`.

    Args:
        url: of the WebSocket endpoint.
        options: of the SDK's `Client`.
    """
    events = Events()
    made = CLIENTS[encoding](url, events=events, proxy=None, **{"timeout": WAIT_S, **options})
    await made.connect()
    try:
        yield made, events
    finally:
        if made.state is not ClientState.DISCONNECTED:
            await made.disconnect()
        # The SDK closes its socket behind the back of `disconnect`.
        await asyncio.gather(*made._background_tasks, return_exceptions=True)


async def subscribe(made: Any, channel: str, **options: Any) -> tuple[Any, Events]:
    """Subscribe to a channel, and wait until that stands."""
    events = Events()
    subscription = made.new_subscription(channel, events=events, **options)
    await subscription.subscribe()
    await events.count("subscribed", 1)
    return subscription, events
