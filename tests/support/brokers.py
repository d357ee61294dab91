"""Brokers that the contract suite runs on, one entry of `HARNESSES` each, and a listener for them."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from msgspec import Raw
from support.limits import WAIT_S
from support.redis import RedisCluster, RedisServer, valkey_server

from hub.broker.base import Broker, BrokerCallbacks, BrokerState, HistoryPolicy
from hub.broker.memory import MemoryBroker
from hub.broker.redis.broker import RedisBroker
from hub.protocol.messages import ClientInfo, Publication, StreamPosition
from hub.settings import RedisSettings


class Listener:
    """Keeps what a broker delivers, in the order in which it came."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self.heard: list[tuple[Any, ...]] = []
        self.bus: list[tuple[bytes, str]] = []
        """Messages of the bus, each with its id in the log."""
        self.ignored: list[str] = []
        self.failures: list[tuple[str, BaseException]] = []
        self.caught_up: list[int] = []
        """How much was heard, each time that it was all that came together."""
        self.gaps = 0
        self.states: list[tuple[BrokerState, str]] = []
        self._turn = asyncio.Event()

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        self.heard.append(("publication", channel, publication, epoch))
        self._turn.set()

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.heard.append(("join", channel, info))
        self._turn.set()

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.heard.append(("leave", channel, info))
        self._turn.set()

    def on_bus(self, message: bytes, entry: str, before: str) -> None:
        self.bus.append((message, entry))
        self._turn.set()

    def on_ignored(self, reason: str) -> None:
        self.ignored.append(reason)
        self._turn.set()

    def on_failed(self, place: str, error: BaseException) -> None:
        self.failures.append((place, error))
        self._turn.set()

    @property
    def callbacks(self) -> BrokerCallbacks:
        return BrokerCallbacks(
            self.on_publication,
            self.on_join,
            self.on_leave,
            self.on_bus,
            self.on_caught_up,
            self.on_gap,
            self.on_state,
            self.on_ignored,
            self.on_failed,
        )

    async def start(self, broker: Broker) -> None:
        """Start a broker that calls this."""
        await broker.start(self.id, self.callbacks)

    def on_caught_up(self) -> None:
        self.caught_up.append(len(self.heard))

    def on_gap(self) -> None:
        self.gaps += 1
        self._turn.set()

    def on_state(self, state: BrokerState, reason: str) -> None:
        self.states.append((state, reason))
        self._turn.set()

    @property
    def state(self) -> BrokerState:
        return self.states[-1][0] if self.states else BrokerState.CONNECTED

    async def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until what was heard meets a condition."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._turn.clear()
                await self._turn.wait()

    def publications(self, channel: str) -> list[Publication]:
        return [item[2] for item in self.heard if item[:2] == ("publication", channel)]


class Harness(Protocol):
    """One kind of broker under test. What is published is delivered once `settle` returns."""

    def broker(self) -> Broker:
        """A broker, not yet started."""

    async def advance(self, seconds: float) -> None:
        """Let time pass."""

    async def settle(self) -> None:
        """Wait until every broker has delivered what was published before."""


class MemoryHarness:
    def __init__(self) -> None:
        self.now = 1_000.0

    def broker(self) -> Broker:
        return MemoryBroker(clock=lambda: self.now, wall_clock=lambda: self.now)

    async def advance(self, seconds: float) -> None:
        self.now += seconds

    async def settle(self) -> None:
        pass


class RedisHarness:
    """Brokers over real servers, which all tests of a run share under prefixes of their own."""

    _numbers = itertools.count(1)
    _settles = itertools.count(1)

    def __init__(self, url: str, servers: Sequence[RedisServer]) -> None:
        self.prefix = f"test{next(self._numbers)}"
        self._url = url
        self._servers = servers
        self._brokers: list[RedisBroker] = []

    def broker(self) -> Broker:
        broker = RedisBroker(RedisSettings(url=self._url, prefix=self.prefix))
        self._brokers.append(broker)
        return broker

    async def advance(self, seconds: float) -> None:
        """Let every key of the prefix be older by so much."""
        for server in self._servers:
            age(server, self.prefix, round(seconds * 1000))

    async def settle(self) -> None:
        """Subscribe to one more channel of every server: what was published before it has arrived then."""
        for broker in self._brokers:
            router = broker._router
            for shard in list(router.shards.values()):
                names = (b"settle{%d}" % number for number in self._settles)
                name = next(name for name in names if router.shard(name) is shard)
                await shard.subscriptions.subscribe(name)
                await shard.subscriptions.unsubscribe(name)


@functools.cache
def _server() -> RedisServer:
    server = RedisServer().start()
    atexit.register(server.stop)
    return server


def age(server: RedisServer, prefix: str, ms: int) -> None:
    """Take time from what is left to every key, and to every client's presence."""
    of_channels, of_sessions = server.calls([("KEYS", f"{prefix}{{*"), ("KEYS", f"{prefix}.*")])
    keys = [*of_channels, *of_sessions]
    for key, left in zip(keys, server.calls([("PTTL", key) for key in keys]), strict=True):
        if left != -1:  # a key without an end
            server.call(*(("PEXPIRE", key, left - ms) if left > ms else ("DEL", key)))
        if key.endswith(b".e") and left > ms:
            members = server.call("ZRANGE", key, 0, -1)
            server.calls([("ZINCRBY", key, -ms, member) for member in members])


def _redis() -> RedisHarness:
    server = _server()
    return RedisHarness(server.url, [server])


@functools.cache
def _valkey_server() -> RedisServer:
    server = RedisServer(program=valkey_server()).start()
    atexit.register(server.stop)
    return server


def _valkey() -> RedisHarness:
    server = _valkey_server()
    return RedisHarness(server.url, [server])


@functools.cache
def _cluster() -> RedisCluster:
    cluster = RedisCluster()
    atexit.register(cluster.stop)
    return cluster.start()


def _redis_cluster() -> RedisHarness:
    cluster = _cluster()
    return RedisHarness(cluster.url, cluster.servers[:3])


HARNESSES: dict[str, Callable[[], Harness]] = {
    "memory": MemoryHarness,
    "redis": _redis,
    "valkey": _valkey,
    "redis cluster": _redis_cluster,
}


KEEP = HistoryPolicy(size=1_000, ttl_s=600)
"""For faults: long enough that nothing is trimmed."""


@contextlib.asynccontextmanager
async def node(url: str, **settings: float) -> AsyncIterator[tuple[RedisBroker, Listener]]:
    """A broker that is started, and its listener."""
    broker = RedisBroker(RedisSettings(url=url, **settings))  # type: ignore[arg-type]
    listener = Listener()
    await listener.start(broker)
    try:
        yield broker, listener
    finally:
        await broker.stop()


async def publish(broker: Broker, *values: object, channel: str = "c") -> StreamPosition:
    """Publish values as JSON, one after another. Returns the position of the last."""
    for value in values:
        position = await broker.publish(channel, Raw(json.dumps(value).encode()), history=KEEP)
    return position


async def kept(broker: Broker, channel: str = "c") -> list[str]:
    stream = await broker.history(channel)
    return _texts(stream.publications)


def heard(listener: Listener, channel: str = "c") -> list[str]:
    return _texts(listener.publications(channel))


def _texts(publications: Sequence[Publication]) -> list[str]:
    return [str(json.loads(bytes(pub.data))) for pub in publications if isinstance(pub.data, Raw)]


async def well(listener: Listener, gaps: int) -> None:
    await listener.until(lambda: listener.gaps >= gaps and listener.state is BrokerState.CONNECTED)
