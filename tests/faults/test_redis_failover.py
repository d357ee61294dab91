"""hub/broker/redis with more servers: Sentinel, and a cluster whose masters fail and whose slots move."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec import Raw
from support.brokers import KEEP, Listener, heard, kept, node, publish
from support.limits import WAIT_S
from support.redis import Certificates, RedisCluster, RedisServer, Watched, redis_62_server

from hub.broker.base import Broker, BrokerState, BusLog
from hub.broker.redis.broker import RedisBroker
from hub.errors import BrokerError, StartupError
from hub.settings import RedisSettings

CHANNELS = [f"room:{number}" for number in range(30)]


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as watched:
        yield watched


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


async def publish_until_it_works(
    broker: Broker, text: object, channel: str, timeout_s: float = WAIT_S
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            await publish(broker, text, channel=channel)
            return
        except BrokerError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def subscribe_until_it_works(broker: Broker, channel: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await broker.subscribe(channel)
            except BrokerError:
                await asyncio.sleep(0.05)


async def complete(broker: Broker, listener: Listener, channel: str) -> None:
    """What was heard and what is kept agree: nothing is heard twice, and all that is kept is in order."""
    stream = await broker.history(channel)
    assert [pub.offset for pub in stream.publications] == list(range(1, stream.top.offset + 1))
    offsets = [(item[3], item[2].offset) for item in listener.heard if item[1] == channel]
    assert len(offsets) == len(set(offsets))


# Sentinel


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_sentinel_fails_over(watched: Watched, number: signal.Signals) -> None:
    async with node(watched.url) as (one, listener), node(watched.url) as (two, _):
        await one.subscribe("c")
        before = await publish(two, 1, 2)
        await listener.until(lambda: heard(listener) == ["1", "2"])
        watched.master.call("WAIT", 1, 5_000)
        watched.master.signal(number)
        # A master that hangs is missed at its probe and at a call, at about the same time: the replica may
        # have its place before the second of the two.
        await listener.until(lambda: listener.state is not BrokerState.CONNECTED)
        await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
        await publish_until_it_works(two, 3, "c")
        await listener.until(lambda: heard(listener) == ["1", "2", "3"])
        assert b"role:master" in watched.replica.call("INFO", "replication")
        stream = await one.history("c")
        assert (stream.top.offset, stream.top.epoch) == (3, before.epoch), "nothing was lost"


async def test_a_failover_that_loses_the_tail(watched: Watched) -> None:
    async with node(watched.url) as (one, listener), node(watched.url) as (two, _):
        await one.subscribe("c")
        before = await publish(two, 1, 2)
        watched.master.call("WAIT", 1, 5_000)
        watched.replica.signal(signal.SIGSTOP)  # replicates nothing more
        await publish(two, 3, 4)
        await listener.until(lambda: heard(listener) == ["1", "2", "3", "4"])
        watched.master.kill()
        watched.replica.signal(signal.SIGCONT)
        await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
        await publish_until_it_works(two, 5, "c")
        stream = await one.history("c")
        if stream.top.offset == 3:  # else what was in the replica's socket buffer came through
            assert stream.top.epoch != before.epoch
            assert await kept(two) == ["1", "2", "5"]


async def test_the_log_of_the_bus_survives_a_failover(watched: Watched) -> None:
    async with node(watched.url) as (one, listener), node(watched.url) as (two, _):
        first = await two.append_bus(b"1")
        second = await two.append_bus(b"2")
        watched.master.call("WAIT", 1, 5_000)
        watched.master.kill()
        await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
        log = await one.read_bus(first, 10)
        assert log == BusLog([(second, b"2")], second)
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(BrokerError):
                    third = await two.append_bus(b"3")
                    break
                await asyncio.sleep(0.05)
        assert await one.read_bus(second, 10) == BusLog([(third, b"3")], third)


async def test_a_service_that_sentinel_does_not_know(watched: Watched) -> None:
    async with node(watched.url.replace("/main", "/other")) as (_, listener):
        assert listener.state is BrokerState.DISCONNECTED
        assert "other" in listener.states[-1][1]


PASSWORD = "p@s:s%canary"
SENTINEL_PASSWORD = "s@e:n%canary"
CREDENTIALS = f"{quote(PASSWORD, safe='')}@"
SENTINEL_CREDENTIALS = f"sentinel_password={quote(SENTINEL_PASSWORD, safe='')}"


async def test_sentinel_with_a_password_of_its_own() -> None:
    with Watched(password=PASSWORD, sentinel_password=SENTINEL_PASSWORD) as watched:
        url = f"redis+sentinel://:{CREDENTIALS}{watched.hosts}/main?{SENTINEL_CREDENTIALS}"
        async with node(url) as (one, listener), node(url) as (two, _):
            await one.subscribe("c")
            await publish(two, 1)
            await listener.until(lambda: heard(listener) == ["1"])
            watched.master.call("WAIT", 1, 5_000)
            watched.master.kill()
            await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
            await publish_until_it_works(two, 2, "c")
            await listener.until(lambda: heard(listener) == ["1", "2"])
        wrong = (
            f"redis+sentinel://:{CREDENTIALS}{watched.hosts}/main",
            f"redis+sentinel://:{CREDENTIALS}{watched.hosts}/main?sentinel_password=canary",
            f"redis+sentinel://{watched.hosts}/main?{SENTINEL_CREDENTIALS}",
            f"redis+sentinel://:canary@{watched.hosts}/main?{SENTINEL_CREDENTIALS}",
        )
        for faulty in wrong:
            with pytest.raises(StartupError, match=r"NOAUTH|WRONGPASS") as refused:
                await Listener().start(RedisBroker(RedisSettings(url=faulty)))
            assert "canary" not in str(refused.value)


async def test_a_user_of_sentinel() -> None:
    with Watched() as watched:
        for sentinel in watched.sentinels:
            sentinel.call("ACL", "SETUSER", "hub", "on", ">canary", "+sentinel|get-master-addr-by-name")
            sentinel.call("ACL", "SETUSER", "default", "off")
        access = "sentinel_username=hub&sentinel_password=canary"
        async with node(f"redis+sentinel://{watched.hosts}/main?{access}") as (broker, _):
            assert (await publish(broker, 1)).offset == 1


async def test_sentinel_over_tls(tmp_path: Path) -> None:
    tls = Certificates(tmp_path)
    with Watched(password=PASSWORD, sentinel_password=SENTINEL_PASSWORD, tls=tls) as watched:
        base = f"rediss+sentinel://:{CREDENTIALS}{watched.hosts}/main?{SENTINEL_CREDENTIALS}"
        async with node(f"{base}&{tls.query}") as (one, listener), node(f"{base}&{tls.query}") as (two, _):
            await one.subscribe("c")
            await publish(two, 1)
            await listener.until(lambda: heard(listener) == ["1"])
            watched.master.call("WAIT", 1, 5_000)
            watched.master.kill()
            await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
            await publish_until_it_works(two, 2, "c")
        with pytest.raises(StartupError, match="its certificate is not trusted"):
            await Listener().start(RedisBroker(RedisSettings(url=base)))


# One server, over TLS


async def test_a_server_over_tls(tmp_path: Path) -> None:
    tls = Certificates(tmp_path)
    with RedisServer(password=PASSWORD, tls=tls) as server:
        base = f"rediss://:{CREDENTIALS}127.0.0.1:{server.port}"
        async with node(f"{base}?{tls.query}") as (broker, listener):
            await broker.subscribe("c")
            await publish(broker, 1)
            await listener.until(lambda: heard(listener) == ["1"])
        for faulty, reason in (
            (base, "its certificate is not trusted"),
            (f"{base}?ssl_ca_certs={tmp_path}/missing.pem", "ssl_ca_certs: No such file"),
            (f"{base.replace('127.0.0.1', 'localhost')}?{tls.query}", "its certificate is not trusted"),
        ):
            with pytest.raises(StartupError, match=reason):
                await Listener().start(RedisBroker(RedisSettings(url=faulty)))
        url = f"{base.replace('127.0.0.1', 'localhost')}?{tls.query}&ssl_check_hostname=false"
        async with node(url) as (broker, _):
            assert (await publish(broker, 2)).offset == 2


# Versions


async def test_redis_62_is_refused_in_one_line() -> None:
    with RedisServer(program=redis_62_server()) as server:
        with pytest.raises(StartupError) as refused:
            await Listener().start(RedisBroker(RedisSettings(url=server.url)))
        assert str(refused.value) == (
            f"redis.url: 127.0.0.1:{server.port}: Redis 6.2.14 is too old: the hub needs Redis 7 or newer, or"
            " Valkey"
        )


# Cluster


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_master_of_the_cluster_fails(cluster: RedisCluster, number: signal.Signals) -> None:
    async with node(cluster.url) as (one, listener), node(cluster.url) as (two, _):
        await asyncio.gather(*map(one.subscribe, CHANNELS))
        for text in (1, 2):
            await asyncio.gather(*(publish(two, text, channel=channel) for channel in CHANNELS))
        tops = await two.positions(CHANNELS)
        for server in cluster.servers[:3]:
            server.call("WAIT", 1, 5_000)
        await listener.until(lambda: len(listener.heard) == 2 * len(CHANNELS))
        cluster.servers[0].signal(number)
        await asyncio.gather(*(publish_until_it_works(two, 3, channel) for channel in CHANNELS))
        await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
        await asyncio.gather(*(publish_until_it_works(two, 4, channel) for channel in CHANNELS))
        await listener.until(lambda: all("4" in heard(listener, channel) for channel in CHANNELS))
        for channel in CHANNELS:
            await complete(one, listener, channel)
            assert await kept(one, channel) == ["1", "2", "3", "4"]
            assert (await one.history(channel)).top.epoch == tops[channel].epoch


async def test_slots_move(cluster: RedisCluster) -> None:
    """The slot of a channel moves to another master, while it is published to."""
    source, target = cluster.servers[0], cluster.servers[1]
    slot = next(
        slot for channel in CHANNELS if (slot := source.call("CLUSTER", "KEYSLOT", f"{{{channel}}}")) < 5461
    )
    channel = next(name for name in CHANNELS if source.call("CLUSTER", "KEYSLOT", f"{{{name}}}") == slot)
    async with node(cluster.url) as (one, listener), node(cluster.url) as (two, _):
        await one.subscribe(channel)
        first = await publish(two, 0, channel=channel)

        async def publisher() -> None:
            for text in range(1, 300):
                await publish_until_it_works(two, text, channel)

        publishing = asyncio.ensure_future(publisher())
        await listener.until(lambda: len(listener.heard) > 50)
        await asyncio.to_thread(move_slot, cluster, slot, 0, 1)
        await publishing
        await listener.until(lambda: listener.gaps > 0)
        await publish(two, "last", channel=channel)
        await listener.until(lambda: heard(listener, channel)[-1] == "last")
        await complete(one, listener, channel)
        stream = await one.history(channel)
        assert stream.top.epoch == first.epoch
        assert await kept(one, channel) == [*map(str, range(300)), "last"]
        assert listener.state is BrokerState.CONNECTED
        assert target.call("CLUSTER", "COUNTKEYSINSLOT", slot) > 0


def move_slot(cluster: RedisCluster, slot: int, source: int, target: int) -> None:
    there, here = cluster.servers[target], cluster.servers[source]
    target_id, source_id = there.call("CLUSTER", "MYID"), here.call("CLUSTER", "MYID")
    there.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    here.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    while keys := here.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
        here.call("MIGRATE", "127.0.0.1", there.port, "", 0, 5_000, "KEYS", *keys)
    for server in (there, here, cluster.servers[2]):
        server.call("CLUSTER", "SETSLOT", slot, "NODE", target_id)


async def test_a_cluster_that_is_away_at_the_start() -> None:
    cluster = RedisCluster()
    async with node(cluster.url) as (broker, listener):
        assert listener.state is BrokerState.DISCONNECTED
        for channel in CHANNELS:
            with contextlib.suppress(BrokerError):
                await broker.subscribe(channel)
        with cluster:
            await listener.until(lambda: listener.gaps > 0 and listener.state is BrokerState.CONNECTED)
            for channel in CHANNELS:
                await subscribe_until_it_works(broker, channel)
            await asyncio.gather(*(publish_until_it_works(broker, 1, channel) for channel in CHANNELS))
            await listener.until(lambda: len(listener.heard) == len(CHANNELS))


async def test_a_cluster_is_told_from_a_server(cluster: RedisCluster) -> None:
    async with node(cluster.servers[0].url) as (broker, _):
        outcomes = await asyncio.gather(
            *(broker.publish(channel, Raw(b"1"), history=KEEP) for channel in CHANNELS),
            return_exceptions=True,
        )
        assert any("redis+cluster://" in str(outcome) for outcome in outcomes)
