"""One run: a node with very many channels, another that publishes to all, and Redis that goes away."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import psutil
from support.redis import RedisServer

from loadtests.faults.cluster import API_KEY, Cluster
from loadtests.probes import quantile
from loadtests.remote import Remote
from loadtests.wide.clients import NAMESPACE, follow, probe

CONFIG = f"""
[channels.{NAMESPACE}]
history_size = 10
history_ttl_s = 3600
force_recovery = true
allow_subscribe_for_client = true
"""
BROADCAST = 500
"""Channels of one call of the API."""
BEFORE = 0.3
"""Share of the channels that is published to before the connections are killed."""
AWAY_S = 1.0
"""How long Redis is away when it is restarted."""
LATENCY_MAX_S = 0.1
WHOLE_FACTOR_MAX = 4.0
WHOLE_MARGIN_S = 5.0
"""Every channel is whole again within so many times the time that the same work takes with nothing broken."""
TIMEOUT_S = 300.0
POLL_S = 0.05


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Args:
        channels: with history, each followed by one client.
        clients: on the node.
        busy: processes beside it that take all the CPU they get.
        faults: names of those to inject, in order.
    """

    channels: int = 200_000
    clients: int = 2_000
    busy: int = 0
    faults: tuple[str, ...] = ("killed", "restarted", "emptied")


@dataclass
class Figures:
    """What one fault did.

    Args:
        fault: its name.
        whole_s: seconds from the fault, or from the moment that Redis is back, until every channel has every
            publication; 0 where that did not happen within the time limit.
        lacking: channels that were not whole at the time limit.
        limit_s: within which they should be.
        p50_s, p99_s, longest_s: of answers to a client meanwhile.
        refused: subscribe commands that were answered with an error, and repeated.
    """

    fault: str
    whole_s: float = 0.0
    lacking: int = 0
    limit_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    longest_s: float = 0.0
    lost: int = 0
    repeated: int = 0
    told: int = 0
    refused: int = 0
    dropped: int = 0
    memory_mb: int = 0

    def faults(self, channels: int) -> list[str]:
        """What is not as it should be."""
        told = channels if self.fault == "emptied" else 0
        checks = {
            f"{self.lacking} channels were not whole after {TIMEOUT_S:g} s": self.lacking > 0,
            f"all were whole after {self.whole_s:.1f} s (limit {self.limit_s:.1f})": self.whole_s
            > self.limit_s,
            f"the 99th percentile of answers was {self.p99_s * 1000:.0f} ms": self.p99_s > LATENCY_MAX_S,
            f"{self.lost} publications were lost": self.lost > 0,
            f"{self.repeated} publications came again": self.repeated > 0,
            f"{self.told} subscriptions were told of a gap, {told} expected": self.told != told,
            f"{self.dropped} connections broke": self.dropped > 0,
        }
        return [f"{self.fault}: {fault}" for fault, holds in checks.items() if holds]


@dataclass
class Stage:
    """The scene of a run.

    Args:
        targets: by channel, the offset of its last publication that was acknowledged.
        subscribed_s: seconds that the clients took to subscribe to all channels.
        base_s: seconds that a publish to every channel takes until all have it, with nothing broken.
    """

    cluster: Cluster
    members: Remote
    prober: Remote
    targets: array[int]
    subscribed_s: float = 0.0
    base_s: float = 0.0

    @property
    def redis(self) -> RedisServer:
        """The Redis between the nodes."""
        assert isinstance(self.cluster.redis, RedisServer)
        return self.cluster.redis

    async def publish_everywhere(self, begun: Callable[[float], None] = lambda _: None) -> None:
        """Publish once into every channel through the other node, and again where that was refused.

        Args:
            begun: called with the share of the channels that was published to.
        """
        count = len(self.targets)
        slices = [range(first, min(first + BROADCAST, count)) for first in range(0, count, BROADCAST)]
        left: list[Sequence[int]] = list(slices)
        done = 0
        async with httpx.AsyncClient(
            base_url=self.cluster.nodes[1].url, headers={"X-API-Key": API_KEY}, timeout=30.0
        ) as client:
            while left:
                refused: list[int] = []
                for part in left:
                    refused += await self._publish(client, part)
                    done += len(part)
                    begun(done / count)
                left = [refused[first : first + BROADCAST] for first in range(0, len(refused), BROADCAST)]
                if left:
                    await asyncio.sleep(0.2)

    async def _publish(self, client: httpx.AsyncClient, channels: Sequence[int]) -> list[int]:
        """Publish into channels. Returns those that were refused."""
        request = {"channels": [f"{NAMESPACE}:{channel}" for channel in channels], "data": 1}
        try:
            reply = json.loads((await client.post("/api/broadcast", json=request)).content)
        except httpx.HTTPError:
            return list(channels)
        if "error" in reply:
            return list(channels)
        refused = []
        for channel, response in zip(channels, reply["result"]["responses"], strict=True):
            if "error" in response:
                refused.append(channel)
            else:
                self.targets[channel] = response["result"]["offset"]
        return refused

    async def whole(self, limit_s: float = TIMEOUT_S) -> int:
        """Wait until all channels have what was acknowledged. Returns how many do not at the time limit."""
        deadline = time.monotonic() + limit_s
        while True:
            lacking: int = await self.members.ask("lacking", self.targets.tobytes())
            if not lacking or time.monotonic() > deadline:
                return lacking
            await asyncio.sleep(POLL_S)


async def killed(stage: Stage) -> float:
    """Kill all connections of Redis while channels are being published to."""
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    publishing = loop.create_task(
        stage.publish_everywhere(lambda share: reached.set() if share >= BEFORE else None)
    )
    await reached.wait()
    kills = [("CLIENT", "KILL", "TYPE", kind) for kind in ("pubsub", "normal")]
    await asyncio.to_thread(stage.redis.calls, kills)
    at = time.monotonic()
    await publishing
    return at


async def restarted(stage: Stage) -> float:
    """Kill Redis, and start it with its data."""
    await asyncio.to_thread(stage.redis.call, "SAVE")
    return await _restart(stage)


async def emptied(stage: Stage) -> float:
    """Kill Redis, and start it without data. Every client is told, and subscribes again."""
    for file in await asyncio.to_thread(lambda: list(stage.redis.folder.glob("*.rdb"))):
        file.unlink()
    for channel in range(len(stage.targets)):
        stage.targets[channel] = 0
    return await _restart(stage)


async def _restart(stage: Stage) -> float:
    stage.redis.kill()
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(stage.redis.start)
    at = time.monotonic()
    if any(stage.targets):
        await stage.publish_everywhere()
    else:
        # What is published before a client subscribes again is not for it: publish when all have.
        await _all_told(stage)
        await stage.publish_everywhere()
    return at


async def _all_told(stage: Stage) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        counts = await stage.members.ask("counts")
        if counts["told"] >= len(stage.targets) and not await stage.whole(0.0):
            return
        await asyncio.sleep(POLL_S)


FAULTS: dict[str, Callable[[Stage], Awaitable[float]]] = {
    "killed": killed,
    "restarted": restarted,
    "emptied": emptied,
}


async def run(plan: Plan) -> list[Figures]:
    """Run a plan. Prints a line for each fault."""
    with ExitStack() as stack:
        for _ in range(plan.busy):
            busy = _spin()
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        async with Cluster(RedisServer, config=CONFIG) as cluster:
            port = cluster.nodes[0].port
            began = time.monotonic()
            async with (
                Remote(follow, port, plan.channels, plan.clients) as members,
                Remote(probe, port) as prober,
            ):
                subscribed_s = time.monotonic() - began
                print(f"{plan.channels:,} channels subscribed in {subscribed_s:.1f} s", flush=True)
                stage = Stage(cluster, members, prober, array("q", [0]) * plan.channels, subscribed_s)
                began = time.monotonic()
                await stage.publish_everywhere()
                lacking = await stage.whole()
                stage.base_s = time.monotonic() - began
                print(f"a publish to each takes {stage.base_s:.1f} s, {lacking} lacking", flush=True)
                return [await _measure(stage, name, plan) for name in plan.faults]


def _spin() -> subprocess.Popen[bytes]:
    """Start a process that takes all the CPU it gets."""
    return subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])


async def _measure(stage: Stage, name: str, plan: Plan) -> Figures:
    # Without its data, every channel is published to when all clients have subscribed again.
    work_s = stage.base_s + (stage.subscribed_s if name == "emptied" else 0.0)
    figures = Figures(name, limit_s=WHOLE_FACTOR_MAX * work_s + WHOLE_MARGIN_S)
    before = await stage.members.ask("counts")
    await stage.prober.ask("times")
    at = await FAULTS[name](stage)
    figures.lacking = await stage.whole()
    figures.whole_s = time.monotonic() - at
    times = await stage.prober.ask("times")
    # What comes after a repair comes live.
    await stage.publish_everywhere()
    figures.lacking = max(figures.lacking, await stage.whole(0.0 if figures.lacking else TIMEOUT_S))
    figures.p50_s, figures.p99_s = quantile(times, 0.5), quantile(times, 0.99)
    figures.longest_s = max(times)
    after = await stage.members.ask("counts")
    for count, value in after.items():
        setattr(figures, count, value - before[count])
    figures.memory_mb = psutil.Process(stage.cluster.nodes[0].pid).memory_info().rss >> 20
    print(line(figures), flush=True)
    return figures


def line(figures: Figures) -> str:
    """The figures of a fault, for people."""
    return (
        f"{figures.fault:<10} whole after {figures.whole_s:.1f} s (limit {figures.limit_s:.1f}),"
        f" {figures.lacking:,} lacking; answers p50 {figures.p50_s * 1000:.1f},"
        f" p99 {figures.p99_s * 1000:.1f},"
        f" longest {figures.longest_s * 1000:.0f} ms; lost {figures.lost:,}, repeated {figures.repeated:,},"
        f" told {figures.told:,}, refused {figures.refused:,}, dropped {figures.dropped:,};"
        f" node {figures.memory_mb:,} MB"
    )
