"""Faults of links and processes: one at a time, each ends with everything in place again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from loadtests.chaos.exile import revoke
from loadtests.chaos.stage import Stage
from loadtests.faults import injections
from loadtests.faults.injections import Scene

Outage: TypeAlias = Callable[[Stage], Awaitable[str]]
"""Injects a fault, ends it, and returns what it did, for people."""


def _scene(stage: Stage, freeze_s: float = 0.0) -> Scene:
    return Scene(stage.cluster, list(stage.publishers), freeze_s)


async def kill_pubsub(stage: Stage) -> str:
    times = stage.chance.randint(1, 3)
    for _ in range(times):
        await stage.call("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(stage.chance.uniform(0.05, 0.5))
    return f"CLIENT KILL TYPE pubsub, {times} times"


async def kill_normal(stage: Stage) -> str:
    times = stage.chance.randint(1, 10)
    for _ in range(times):
        await stage.call("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.sleep(stage.chance.uniform(0.01, 0.2))
    return f"CLIENT KILL TYPE normal, {times} times"


async def kill_both(stage: Stage) -> str:
    kills = [("CLIENT", "KILL", "TYPE", kind) for kind in ("pubsub", "normal")]
    await stage.calls(kills)
    return "CLIENT KILL of both types"


async def overrun(stage: Stage) -> str:
    for limit in ("pubsub 1024 0 0", "pubsub 33554432 8388608 60"):
        await stage.call("CONFIG", "SET", "client-output-buffer-limit", limit)
        for publisher in stage.publishers:
            publisher.publish(injections.BALLAST_BYTES)
        await asyncio.sleep(0.5)
    return "the pub/sub output buffers overrun"


async def cut_link(stage: Stage) -> str:
    proxy, away_s = stage.cluster.proxy, stage.chance.uniform(0.3, 3.0)
    proxy.go_down()
    await asyncio.sleep(away_s)
    proxy.come_up()
    return f"node 2 cut from Redis for {away_s:.1f} s"


async def half_open_link(stage: Stage) -> str:
    await injections.half_open_link(_scene(stage))
    return "the connections of node 2 to Redis half-open"


async def freeze_redis(stage: Stage) -> str:
    seconds = stage.chance.choice([0.3, 0.8, 2.0, 3.5])
    await injections.freeze(_scene(stage, seconds))
    return f"Redis stopped (SIGSTOP) for {seconds} s"


async def pause_node(stage: Stage) -> str:
    node = stage.chance.randrange(len(stage.cluster.nodes))
    seconds = stage.chance.choice([0.3, 0.6, 0.9, 3.0])
    stage.cluster.nodes[node].signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    stage.cluster.nodes[node].signal(signal.SIGCONT)
    return f"node {node + 1} stopped (SIGSTOP) for {seconds} s"


async def restart_redis(stage: Stage) -> str:
    away_s = stage.chance.uniform(0.1, 2.0)
    stage.redis.kill()
    await asyncio.sleep(away_s)
    await asyncio.to_thread(stage.redis.start)
    return f"Redis killed, and started with its data after {away_s:.1f} s"


async def refuse_writes(stage: Stage) -> str:
    seconds = stage.chance.uniform(0.5, 2.0)
    await stage.call("CONFIG", "SET", "maxmemory", 1)
    await asyncio.sleep(seconds)
    await stage.call("CONFIG", "SET", "maxmemory", 0)
    return f"Redis out of memory for {seconds:.1f} s"


async def revoke_while_cut(stage: Stage) -> str:
    proxy = stage.cluster.proxy
    proxy.go_down()
    await asyncio.sleep(stage.chance.uniform(0.0, 0.5))
    said = await revoke(stage, node=0)
    await asyncio.sleep(stage.chance.uniform(0.0, 1.5))
    proxy.come_up()
    return f"{said}, while node 2 was cut from Redis"


OUTAGES: dict[str, Outage] = {
    "kill-pubsub": kill_pubsub,
    "kill-normal": kill_normal,
    "kill-both": kill_both,
    "overrun": overrun,
    "cut-link": cut_link,
    "half-open-link": half_open_link,
    "freeze-redis": freeze_redis,
    "pause-node": pause_node,
    "restart-redis": restart_redis,
    "refuse-writes": refuse_writes,
    "revoke-while-cut": revoke_while_cut,
}
