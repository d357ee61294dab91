"""hub/broker/redis: the size of a node does not break what is promised after a broken connection."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

import pytest
from msgspec import Raw
from support.brokers import KEEP, node, well
from support.redis import RedisCluster, RedisServer

from hub.broker.base import BrokerState
from hub.broker.redis.broker import RedisBroker
from hub.protocol.messages import StreamPosition

CHANNELS = [f"c{number}" for number in range(20_000)]

TURN_S = 0.1
"""The most CPU time that one turn of the event loop may take: so long an answer to a client would wait."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Turns:
    """Measures the longest turn of the event loop, in CPU time: other programs do not count."""

    async def __aenter__(self) -> Turns:
        self.longest_s = 0.0
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()

    async def _measure(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.thread_time() - began)


async def subscribe_to_all(broker: RedisBroker) -> None:
    for start in range(0, len(CHANNELS), 1_000):
        await asyncio.gather(*map(broker.subscribe, CHANNELS[start : start + 1_000]))


async def publish_to_all(broker: RedisBroker) -> dict[str, StreamPosition]:
    tops: dict[str, StreamPosition] = {}
    for start in range(0, len(CHANNELS), 1_000):
        some = CHANNELS[start : start + 1_000]
        futures = [broker.publish(channel, Raw(b"1"), history=KEEP) for channel in some]
        tops |= dict(zip(some, await asyncio.gather(*futures), strict=True))
    return tops


def subscribe_commands(server: RedisServer) -> int:
    stats = re.search(rb"cmdstat_s?subscribe:calls=(\d+)", server.call("INFO", "commandstats"))
    return int(stats[1]) if stats else 0


async def positions_of_all(broker: RedisBroker) -> dict[str, StreamPosition]:
    tops: dict[str, StreamPosition] = {}
    for start in range(0, len(CHANNELS), 500):
        tops |= await broker.positions(CHANNELS[start : start + 500], renew=True)
    return tops


async def test_many_channels_are_subscribed_to_again(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await subscribe_to_all(broker)
        before = subscribe_commands(server)
        assert before < 100
        async with Turns() as turns:
            for round_ in range(1, 4):
                server.call("CLIENT", "KILL", "TYPE", "pubsub")
                await well(listener, round_)
        assert turns.longest_s < TURN_S
        assert subscribe_commands(server) - before < 3 * 100
        tops = await publish_to_all(broker)
        await listener.until(lambda: len(listener.heard) == len(CHANNELS))
        assert await positions_of_all(broker) == tops
        assert listener.failures == []


async def test_many_channels_are_verified_after_a_restart(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await subscribe_to_all(broker)
        tops = await publish_to_all(broker)
        server.call("SAVE")
        await publish_to_all(broker)  # is lost
        await listener.until(lambda: len(listener.heard) == 2 * len(CHANNELS))
        server.kill()
        server.start()
        async with Turns() as turns:
            await well(listener, 1)
        assert turns.longest_s < TURN_S
        after = await positions_of_all(broker)
        assert after.keys() == tops.keys()
        assert all(after[channel].epoch != top.epoch for channel, top in tops.items())
        assert all(after[channel].offset == top.offset for channel, top in tops.items())


async def test_calls_of_others_go_on_during_a_repair(server: RedisServer) -> None:
    """With room for a few calls, none of a client's is refused because of the broker's own."""
    async with node(server.url, pending_bytes_max=4_096) as (broker, listener):
        await subscribe_to_all(broker)
        for start in range(0, len(CHANNELS), 4):
            await asyncio.gather(
                *(broker.publish(name, Raw(b"1"), history=KEEP) for name in CHANNELS[start : start + 4])
            )
        await listener.until(lambda: len(listener.heard) == len(CHANNELS))
        server.call("SAVE")
        server.kill()
        server.start()
        repaired = asyncio.create_task(well(listener, 1))
        await listener.until(lambda: listener.state is BrokerState.CONNECTED)
        while not repaired.done():
            await broker.publish("other", Raw(b"1"), history=KEEP)
        await repaired


async def test_many_channels_of_a_cluster_are_subscribed_to_again() -> None:
    with RedisCluster() as cluster:
        async with node(cluster.url) as (broker, listener):
            await subscribe_to_all(broker)
            async with Turns() as turns:
                for server in cluster.servers[:3]:
                    server.call("CLIENT", "KILL", "TYPE", "pubsub")
                await listener.until(lambda: listener.gaps >= 3)
            assert turns.longest_s < TURN_S
            tops = await publish_to_all(broker)
            await listener.until(lambda: len(listener.heard) == len(CHANNELS))
            assert await positions_of_all(broker) == tops
