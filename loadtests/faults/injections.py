"""The faults. Each ends with everything in place again, but for a node that was killed."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from support.redis import RedisCluster, RedisServer, Watched

from loadtests.faults.clients import Publisher
from loadtests.faults.cluster import Cluster, Redis, single

AWAY_S = 2.0
"""How long Redis, or the link to it, is gone."""

FAILOVER_S = 5.0
"""What a failover takes, with time to spare."""

BALLAST_BYTES = 40_000
"""A publication that no tiny output buffer holds, not even the one that Redis has beside it."""


@dataclass(frozen=True)
class Scene:
    """Where a fault happens.

    Args:
        publishers: that go on meanwhile.
        freeze_s: how long something stands still.
    """

    cluster: Cluster
    publishers: list[Publisher]
    freeze_s: float

    @property
    def server(self) -> RedisServer:
        """The one Redis server."""
        assert isinstance(self.cluster.redis, RedisServer)
        return self.cluster.redis


async def restart_with_data(scene: Scene) -> None:
    redis = scene.server
    redis.kill()
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(redis.start)


async def restart_without_data(scene: Scene) -> None:
    redis = scene.server
    redis.kill()
    shutil.rmtree(redis.folder / "appendonlydir")
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(redis.start)


async def freeze(scene: Scene) -> None:
    redis = scene.server
    redis.signal(signal.SIGSTOP)
    await asyncio.sleep(scene.freeze_s)
    redis.signal(signal.SIGCONT)


async def kill_pubsub(scene: Scene) -> None:
    for _ in range(3):
        killed = await asyncio.to_thread(scene.server.call, "CLIENT", "KILL", "TYPE", "pubsub")
        assert killed, "nobody listened"
        await asyncio.sleep(1.0)


async def overrun(scene: Scene) -> None:
    redis = scene.server
    before = redis.log.count("output buffer limits")
    await asyncio.to_thread(redis.call, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 1024 0 0")
    for _ in range(3):
        for publisher in scene.publishers:
            publisher.publish(BALLAST_BYTES)
        await asyncio.sleep(1.0)
    limit = "pubsub 33554432 8388608 60"
    await asyncio.to_thread(redis.call, "CONFIG", "SET", "client-output-buffer-limit", limit)
    assert redis.log.count("output buffer limits") > before, "no buffer was overrun"


async def cut_link(scene: Scene) -> None:
    proxy = scene.cluster.proxy
    proxy.cut()
    await asyncio.sleep(1.0)
    proxy.go_down()
    await asyncio.sleep(AWAY_S)
    proxy.come_up()


async def half_open_link(scene: Scene) -> None:
    scene.cluster.proxy.half_open()
    await asyncio.sleep(AWAY_S)


async def fail_over(scene: Scene) -> None:
    assert isinstance(scene.cluster.redis, Watched)
    scene.cluster.redis.master.kill()
    await asyncio.sleep(FAILOVER_S)


async def kill_master(scene: Scene) -> None:
    assert isinstance(scene.cluster.redis, RedisCluster)
    scene.cluster.redis.servers[0].kill()
    await asyncio.sleep(FAILOVER_S)


async def kill_node(scene: Scene) -> None:
    await scene.cluster.nodes[0].kill()


@dataclass(frozen=True)
class Fault:
    """A fault.

    Args:
        title: for people.
        inject: makes it happen, and ends it.
        may_lose: whether Redis may lose what it acknowledged; then clients must be told.
        drops_sockets: whether sockets of clients break with it.
        channels: that the subscribers are spread over.
        redis: makes the Redis that it happens to.
    """

    title: str
    inject: Callable[[Scene], Awaitable[None]]
    may_lose: bool = False
    drops_sockets: bool = False
    channels: int = 10
    redis: Callable[[], Redis] = single


FAULTS = {
    "restart": Fault("Redis killed, and restarted with its data", restart_with_data),
    "wipe": Fault("Redis killed, and restarted without data", restart_without_data, may_lose=True),
    "freeze": Fault("Redis frozen (SIGSTOP)", freeze),
    "kill-pubsub": Fault("`CLIENT KILL TYPE pubsub`, three times", kill_pubsub),
    "overrun": Fault("pub/sub output buffer overrun, three times", overrun),
    "cut": Fault("TCP link of a node cut, and down for 2 s", cut_link),
    "half-open": Fault("TCP link of a node half-open", half_open_link),
    "failover": Fault("Sentinel failover, the master killed", fail_over, may_lose=True, redis=Watched),
    "kill-master": Fault("a cluster's master killed", kill_master, may_lose=True, redis=RedisCluster),
    "kill-node": Fault("a node killed (SIGKILL)", kill_node, drops_sockets=True),
    "herd": Fault("a node killed, all in one channel", kill_node, drops_sockets=True, channels=1),
}
