"""hub/broker/redis: a Redis that answers and refuses shows in the state, without any traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from msgspec import Raw
from support.brokers import KEEP, Listener, heard, kept, node, publish
from support.redis import RedisCluster, RedisServer

from hub.broker.base import BrokerState
from hub.errors import BrokerError


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def refusing(listener: Listener, reason: str) -> None:
    await listener.until(lambda: listener.state is BrokerState.REFUSING)
    assert reason in listener.states[-1][1]


async def connected(listener: Listener) -> None:
    await listener.until(lambda: listener.state is BrokerState.CONNECTED)
    assert listener.states[-1][1] == ""


async def test_full_memory(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        await publish(broker, 1)
        server.calls([("CONFIG", "SET", "maxmemory-policy", "noeviction"), ("CONFIG", "SET", "maxmemory", 1)])
        await refusing(listener, "OOM")
        for _ in range(10):
            with pytest.raises(BrokerError):
                await publish(broker, "too much")
            with pytest.raises(BrokerError):
                await broker.history("a channel that has no position yet")
        for number in range(20):
            await broker.publish("c", Raw(b"%d" % number))
            assert await kept(broker) == ["1"]
            assert await broker.positions(["c"], renew=True) != {}
        await listener.until(lambda: heard(listener) == ["1", *map(str, range(20))])
        server.call("CONFIG", "SET", "maxmemory", 0)
        await connected(listener)
        await asyncio.sleep(1.1)  # the breaker's time
        assert (await publish(broker, 2)).offset == 2
        assert len(listener.states) == 2
        assert listener.gaps == 0


async def test_too_few_replicas(server: RedisServer) -> None:
    async with node(server.url) as (_, listener):
        server.call("CONFIG", "SET", "min-replicas-to-write", 1)
        await refusing(listener, "NOREPLICAS")
        server.call("CONFIG", "SET", "min-replicas-to-write", 0)
        await connected(listener)


async def test_a_disk_that_cannot_be_written(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        (server.folder / "dump.rdb").mkdir()
        server.calls([("CONFIG", "SET", "save", "3600 100000"), ("BGSAVE",)])
        await refusing(listener, "MISCONF")
        # Redis answers PING with this error, too: a new connection must come up all the same.
        server.call("CLIENT", "KILL", "TYPE", "pubsub")
        await listener.until(lambda: listener.gaps == 1)
        await broker.subscribe("c")
        await broker.publish("c", Raw(b"1"))
        await listener.until(lambda: heard(listener) == ["1"])
        server.call("CONFIG", "SET", "save", "")
        await connected(listener)


async def test_a_master_that_becomes_a_replica(server: RedisServer) -> None:
    async with node(server.url) as (_, listener):
        server.call("REPLICAOF", "127.0.0.1", "1")
        await listener.until(lambda: listener.state is BrokerState.DISCONNECTED)
        assert "replica" in listener.states[-1][1]
        server.call("REPLICAOF", "NO", "ONE")
        await connected(listener)


@pytest.mark.parametrize(
    ("missing", "restored"),
    [
        ("-hincrby", "+hincrby"),
        ("-publish", "+publish"),
        ("-eval -evalsha", "+eval +evalsha"),
        ("resetkeys", "~*"),
    ],
)
async def test_a_right_that_is_missing(server: RedisServer, missing: str, restored: str) -> None:
    server.call("ACL", "SETUSER", "hub", "on", ">pass", "~*", "&*", "+@all")
    async with node(server.url.replace("//", "//hub:pass@")) as (broker, listener):
        server.call("ACL", "SETUSER", "hub", *missing.split())
        await refusing(listener, "user")
        with pytest.raises(BrokerError):
            await publish(broker, 1)
        await asyncio.sleep(2.5)  # longer than a probe may take to arrive
        assert listener.states[-1][0] is BrokerState.REFUSING
        server.call("ACL", "SETUSER", "hub", *restored.split())
        await connected(listener)
        assert listener.gaps == 0


async def test_channels_that_may_not_be_subscribed_to(server: RedisServer) -> None:
    """One that may not be does not stand in the way of those asked for together with it."""
    allowed = ("&hub.*", "&hub{public:*")
    server.call("ACL", "SETUSER", "hub", "on", ">pass", "~*", "resetchannels", *allowed, "+@all")
    async with node(server.url.replace("//", "//hub:pass@")) as (broker, listener):
        names = ["public:1", "secret", "public:2"]
        outcomes = await asyncio.gather(*map(broker.subscribe, names), return_exceptions=True)
        assert [isinstance(outcome, BrokerError) for outcome in outcomes] == [False, True, False]
        await refusing(listener, "NOPERM")
        for name in ("public:1", "public:2"):
            await broker.publish(name, Raw(b"1"))
            await listener.until(lambda name=name: heard(listener, name) == ["1"])  # type: ignore[misc]
        server.call("CLIENT", "KILL", "TYPE", "pubsub")
        await listener.until(lambda: listener.gaps == 1)
        await broker.publish("public:2", Raw(b"2"))
        await listener.until(lambda: heard(listener, "public:2") == ["1", "2"])
        server.call("ACL", "SETUSER", "hub", "&*")
        await connected(listener)
        assert listener.gaps == 2
        await publish(broker, 3, channel="secret")
        await listener.until(lambda: heard(listener, "secret") == ["3"])


async def test_a_refused_channel_that_is_given_up_no_longer_counts(server: RedisServer) -> None:
    server.call("ACL", "SETUSER", "hub", "on", ">pass", "~*", "resetchannels", "&hub.*", "+@all")
    async with node(server.url.replace("//", "//hub:pass@")) as (broker, listener):
        with pytest.raises(BrokerError, match="NOPERM"):
            await broker.subscribe("secret")
        await refusing(listener, "NOPERM")
        await broker.unsubscribe("secret")
        await connected(listener)


async def test_no_right_to_subscribe_at_all(server: RedisServer) -> None:
    server.call("ACL", "SETUSER", "hub", "on", ">pass", "~*", "&*", "+@all", "-subscribe")
    async with node(server.url.replace("//", "//hub:pass@")) as (broker, listener):
        await listener.until(lambda: listener.state is BrokerState.NOT_RECEIVING)
        assert "NOPERM" in listener.states[-1][1]
        server.call("ACL", "SETUSER", "hub", "+subscribe")
        await connected(listener)
        await broker.subscribe("c")
        await broker.publish("c", Raw(b"1"))
        await listener.until(lambda: heard(listener) == ["1"])


async def test_one_master_of_a_cluster_refuses() -> None:
    with RedisCluster() as cluster:
        full = cluster.servers[1]
        async with node(cluster.url) as (broker, listener):
            full.call("CONFIG", "SET", "maxmemory", 1)
            await refusing(listener, "OOM")
            for number in range(30):
                name = f"c{number}"
                outcome = await asyncio.gather(
                    broker.publish(name, Raw(b"1"), history=KEEP), return_exceptions=True
                )
                is_full = cluster.master_of(f"hub{{{name}}}.m") is full
                assert isinstance(outcome[0], BrokerError) == is_full
            full.call("CONFIG", "SET", "maxmemory", 0)
            await connected(listener)
