"""hub/broker/redis: what goes wrong with a real Redis and with the way to it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Raw
from support.brokers import KEEP, Listener, heard, kept, node, publish, well
from support.limits import WAIT_S
from support.ports import free_port
from support.redis import RedisCluster, RedisServer
from support.redis_proxy import Proxy

from hub.broker.base import BrokerState, BusLog
from hub.broker.redis.broker import RedisBroker
from hub.errors import BrokerError, StartupError
from hub.protocol.messages import ClientInfo, StreamPosition
from hub.settings import RedisSettings

AOF = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


# Redis ends and comes back


async def test_restarted_with_its_data() -> None:
    with RedisServer(*AOF) as server:
        async with node(server.url) as (one, heard_by_one), node(server.url) as (two, _):
            await one.subscribe("c")
            before = await publish(two, 1, 2)
            await heard_by_one.until(lambda: heard(heard_by_one) == ["1", "2"])
            server.kill()
            await heard_by_one.until(lambda: heard_by_one.state is BrokerState.DISCONNECTED)
            with pytest.raises(BrokerError):
                await publish(two, "lost")
            server.start()
            await well(heard_by_one, 1)
            assert await one.positions(["c"]) == {"c": before}
            assert await publish(one, 3) == StreamPosition(3, before.epoch)
            await heard_by_one.until(lambda: heard(heard_by_one) == ["1", "2", "3"])
            assert await kept(one) == ["1", "2", "3"]


async def test_restarted_without_its_data(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        before = await publish(broker, 1, 2)
        await listener.until(lambda: heard(listener) == ["1", "2"])
        server.kill()
        server.start()
        await well(listener, 1)
        assert await broker.positions(["c"]) == {}
        after = await publish(broker, 3)
        assert after.offset == 1
        assert after.epoch != before.epoch
        await listener.until(lambda: heard(listener) == ["1", "2", "3"])
        assert listener.heard[-1][3] == after.epoch


@pytest.mark.parametrize("published", [0, 1, 2, 4])
async def test_a_lost_tail_gets_another_epoch(published: int) -> None:
    """What was seen is gone, and others may already have published under the same offsets."""
    with RedisServer() as server:
        async with node(server.url) as (one, listener):
            await one.subscribe("c")
            await one.subscribe("whole")
            before = await publish(one, 1, 2, 3)
            whole = await publish(one, 1, channel="whole")
            server.call("SAVE")
            await publish(one, 4, 5)
            await listener.until(lambda: len(heard(listener)) == 5)
            server.kill()
            await listener.until(lambda: listener.state is BrokerState.DISCONNECTED)
            server.start()
            async with node(server.url) as (two, _):
                # It never saw what is lost, and does not wait for those who did.
                await publish(two, *["other"] * published, channel="c") if published else None
                await publish(two, 2, channel="whole")
                await well(listener, 1)
                tops = await two.positions(["c", "whole"])
                assert tops["c"].epoch != before.epoch
                assert tops["whole"] == StreamPosition(2, whole.epoch), "nothing of it was lost"
                assert await kept(two) == ["1", "2", "3"] + ["other"] * published
                assert (await publish(one, 9)).epoch == tops["c"].epoch


async def test_a_second_restart_renews_nothing() -> None:
    with RedisServer(*AOF) as server:
        async with node(server.url) as (broker, listener):
            await broker.subscribe("c")
            before = await publish(broker, 1, 2)
            for restart in range(1, 4):
                server.kill()
                server.start()
                await well(listener, restart)
                assert (await broker.history("c")).top == before


@pytest.mark.parametrize("lost", [False, True])
async def test_a_node_that_missed_restarts_knows_whether_something_was_lost(lost: bool) -> None:
    """Other nodes publish between the restarts, so that each leaves a trace in the position."""
    with RedisServer() as server:
        async with Proxy(server.port) as proxy, node(proxy.url) as (one, heard_by_one):
            await one.subscribe("c")
            before = await publish(one, 1, 2)
            server.call("SAVE")
            if lost:
                await publish(one, 3)
            await heard_by_one.until(lambda: len(heard(heard_by_one)) == before.offset + lost)
            proxy.refuses = True
            for _ in range(5):
                proxy.cut()
                server.kill()
                server.start()
                async with node(server.url) as (two, _):
                    await publish(two, "other")
                    await publish(two, "other")
                server.call("SAVE")
            proxy.refuses = False
            await well(heard_by_one, 1)
            top = (await one.history("c")).top
            assert top.offset == before.offset + 10
            assert (top.epoch != before.epoch) is lost


async def test_restarts_leave_a_position_small() -> None:
    with RedisServer(*AOF) as server:
        for restart in range(8):
            async with node(server.url) as (broker, _):
                await publish(broker, restart)
            server.kill()
            server.start()
        assert server.call("OBJECT", "ENCODING", "hub{c}.m") == b"listpack"


async def test_a_start_before_redis(server: RedisServer) -> None:
    server.kill()
    async with node(server.url) as (broker, listener):
        assert listener.state is BrokerState.DISCONNECTED
        assert "Connect" in listener.states[-1][1] or "refused" in listener.states[-1][1]
        with pytest.raises(BrokerError):
            await broker.subscribe("c")
        refused = broker.publish("c", Raw(b"1"), history=KEEP)
        assert refused.done(), "a broker that is away refuses at once"
        with pytest.raises(BrokerError):
            await refused
        server.start()
        await well(listener, 1)
        await publish(broker, 2)
        await listener.until(lambda: heard(listener) == ["2"])


# Redis does not answer


async def test_frozen(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        await publish(broker, 1)
        server.signal(signal.SIGSTOP)
        try:
            pending = asyncio.ensure_future(publish(broker, "unsure"))
            await listener.until(lambda: listener.state is BrokerState.DISCONNECTED)
            with pytest.raises(BrokerError):
                async with asyncio.timeout(WAIT_S):
                    await pending
            for _ in range(10):
                refused = broker.history("c")
                for _ in range(10):
                    await asyncio.sleep(0)
                assert refused.done(), "a broker that is away refuses within a few turns of the event loop"
                with pytest.raises(BrokerError):
                    await refused
                await asyncio.sleep(0.01)
        finally:
            server.signal(signal.SIGCONT)
        await well(listener, 0)
        await publish(broker, 2)
        texts = await kept(broker)
        assert texts.count("unsure") <= 1
        assert [text for text in texts if text != "unsure"] == ["1", "2"]


async def test_frozen_and_idle_is_noticed(server: RedisServer) -> None:
    async with node(server.url) as (_, listener):
        server.signal(signal.SIGSTOP)
        try:
            await listener.until(lambda: listener.state is BrokerState.DISCONNECTED)
        finally:
            server.signal(signal.SIGCONT)
        await well(listener, 0)


async def test_a_node_that_was_frozen_itself_blames_nobody(server: RedisServer) -> None:
    async with node(server.url) as (_, listener):
        for _ in range(2):
            time.sleep(2.5)  # noqa: ASYNC251 - the whole loop stands still
            await asyncio.sleep(0.3)
        assert (listener.states, listener.gaps) == ([], 0)


async def test_a_half_open_link(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, node(proxy.url) as (broker, listener):
        await broker.subscribe("c")
        proxy.silences = lambda listening: True
        await listener.until(lambda: listener.state is BrokerState.DISCONNECTED)
        proxy.silences = lambda listening: False
        await well(listener, 1)
        await publish(broker, 1)
        await listener.until(lambda: heard(listener) == ["1"])


async def test_deaf(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, node(proxy.url) as (broker, listener):
        await broker.subscribe("c")
        proxy.silences = lambda listening: listening
        await listener.until(lambda: listener.state is BrokerState.NOT_RECEIVING)
        await publish(broker, 1)
        assert heard(listener) == []
        proxy.silences = lambda listening: False
        await well(listener, 1)
        assert await kept(broker) == ["1"]
        await publish(broker, 2)
        await listener.until(lambda: heard(listener) == ["2"])


# Links break


async def test_the_listeners_link_is_killed(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        names = [f"c{number}" for number in range(300)]
        await asyncio.gather(*map(broker.subscribe, names))
        for round_ in range(1, 4):
            server.call("CLIENT", "KILL", "TYPE", "pubsub")
            await well(listener, round_)
            for name in names:
                broker.publish(name, Raw(b"%d" % round_), history=KEEP)
            await listener.until(lambda round_=round_: len(listener.heard) == 300 * round_)  # type: ignore[misc]
        assert all(heard(listener, name) == ["1", "2", "3"] for name in names)
        assert listener.states == [], "it was back before anybody had to know"


async def test_the_publishers_link_is_killed(server: RedisServer) -> None:
    """A publish is repeated, and yet sent once and in its order."""
    async with node(server.url) as (one, _), node(server.url) as (two, listener):
        await two.subscribe("c")

        async def publisher(name: str) -> list[int]:
            return [(await publish(one, f"{name}{number}")).offset for number in range(150)]

        killing = asyncio.ensure_future(asyncio.gather(*map(publisher, "abcdef")))
        while not killing.done():
            server.call("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.05)
        results = await killing
        assert sorted(offset for offsets in results for offset in offsets) == list(range(1, 901))
        await listener.until(lambda: len(heard(listener)) == 900)
        assert [pub.offset for pub in listener.publications("c")] == list(range(1, 901))
        for name in "abcdef":
            sent = [text for text in heard(listener) if text.startswith(name)]
            assert sent == [f"{name}{number}" for number in range(150)]


async def test_a_reply_is_lost(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, node(proxy.url) as (broker, listener):
        await broker.subscribe("c")
        await publish(broker, 1)
        proxy.silences = lambda listening: not listening
        pending = asyncio.ensure_future(publish(broker, 2))
        await listener.until(lambda: heard(listener) == ["1", "2"])
        await proxy.swallowed.wait()
        proxy.silences = lambda listening: False
        proxy.cut()
        assert (await pending).offset == 2
        await well(listener, 1)
        await publish(broker, 3)
        assert await kept(broker) == ["1", "2", "3"]


async def test_the_reply_to_a_message_in_the_log_is_lost(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, node(proxy.url) as (broker, listener):
        proxy.silences = lambda listening: not listening
        pending = broker.append_bus(b"1")
        await listener.until(lambda: bool(listener.bus))
        await proxy.swallowed.wait()
        proxy.silences = lambda listening: False
        proxy.cut()
        last = await pending
        await well(listener, 1)
        assert listener.bus == [(b"1", last)]
        assert await broker.read_bus("", 10) == BusLog([(last, b"1")], last)


async def test_messages_in_the_log_while_connections_are_killed(server: RedisServer) -> None:
    async with node(server.url) as (broker, _), node(server.url) as (other, listener):

        async def append(name: str) -> list[str]:
            return [await broker.append_bus(b"%s %d" % (name.encode(), number)) for number in range(100)]

        appending = asyncio.ensure_future(asyncio.gather(*map(append, "abc")))
        while not appending.done():
            server.call("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.05)
        ids = [id_ for each in await appending for id_ in each]
        await listener.until(lambda: len(listener.bus) == 300)
        log = await other.read_bus("", 1_000)
        assert sorted(id_ for id_, _ in log.entries) == sorted(ids)
        assert [(message, id_) for id_, message in log.entries] == listener.bus


@pytest.mark.parametrize("appended", [0, 1, 3])
@pytest.mark.parametrize("appended_later", [0, 2])
async def test_a_log_that_the_server_lost_is_not_complete(
    server: RedisServer, appended: int, appended_later: int
) -> None:
    async with node(server.url) as (broker, listener):
        last = (await broker.read_bus("", 0)).last
        for number in range(appended):
            last = await broker.append_bus(b"%d" % number)
        assert (await broker.read_bus(last, 10)).is_complete
        server.kill()
        server.start()
        await well(listener, 1)
        for number in range(appended_later):
            await broker.append_bus(b"later %d" % number)
        log = await broker.read_bus(last, 10)
        assert (log.is_complete, log.is_lost) == (False, True)
        whole = await broker.read_bus("", 10)
        assert (len(whole.entries), whole.is_complete) == (appended_later, True)


async def test_a_log_that_outlives_a_restart_is_complete() -> None:
    with RedisServer(*AOF) as server:
        async with node(server.url) as (broker, listener):
            first = await broker.append_bus(b"1")
            server.kill()
            server.start()
            await well(listener, 1)
            last = await broker.append_bus(b"2")
            assert await broker.read_bus(first, 10) == BusLog([(last, b"2")], last)


async def test_a_send_is_not_repeated(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, node(proxy.url) as (broker, listener):
        await broker.subscribe("c")
        proxy.silences = lambda listening: not listening
        pending = broker.publish("c", Raw(b"1"))
        await listener.until(lambda: heard(listener) == ["1"])
        proxy.silences = lambda listening: False
        proxy.cut()
        with pytest.raises(BrokerError, match="the connection to Redis broke"):
            await pending
        await well(listener, 1)
        assert heard(listener) == ["1"]


async def test_the_output_buffer_is_overrun(server: RedisServer) -> None:
    server.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 262144 0 0")
    patient = {"timeout_s": WAIT_S, "retry_budget_s": WAIT_S}  # 25 MB take their time
    async with node(server.url, **patient) as (broker, listener):
        await broker.subscribe("c")
        text = Raw(b'"' + b"x" * 50_000 + b'"')

        async def flood() -> None:
            async with node(server.url, **patient) as (other, _):
                for _ in range(10):
                    await asyncio.gather(*(other.publish("c", text, history=KEEP) for _ in range(50)))

        thread = threading.Thread(target=asyncio.run, args=[flood()])
        thread.start()
        thread.join(WAIT_S)  # meanwhile this loop stands still, and reads nothing
        await listener.until(lambda: listener.gaps == 1)
        assert len(heard(listener)) < 500
        stream = await broker.history("c")
        assert [pub.offset for pub in stream.publications] == list(range(1, 501))
        await publish(broker, 1)
        await listener.until(lambda: heard(listener)[-1] == "1")


async def test_subscriptions_in_redis_are_those_in_use(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        [*idle] = server.call("PUBSUB", "CHANNELS")
        for _ in range(20):
            futures = []
            for number in range(50):
                futures += [broker.subscribe(f"c{number}"), broker.unsubscribe(f"c{number}")]
            await asyncio.gather(*futures, return_exceptions=True)
            server.call("CLIENT", "KILL", "TYPE", "pubsub")
        await broker.subscribe("last")
        await listener.until(lambda: listener.gaps > 0)
        await well(listener, 1)
        assert sorted(server.call("PUBSUB", "CHANNELS")) == sorted([*idle, b"hub{last}"])


# What Redis holds, and lacks


async def test_scripts_are_forgotten(server: RedisServer) -> None:
    async with node(server.url) as (broker, _):
        for _ in range(5):
            futures = [broker.publish("c", Raw(b"%d" % number), history=KEEP) for number in range(100)]
            server.call("SCRIPT", "FLUSH")
            futures += [broker.publish("c", Raw(b"%d" % number), history=KEEP) for number in range(100, 200)]
            await asyncio.gather(*futures)
        assert await kept(broker) == [str(number) for number in range(200)] * 5


async def test_memory_is_full(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        await publish(broker, 1)
        server.calls([("CONFIG", "SET", "maxmemory-policy", "noeviction"), ("CONFIG", "SET", "maxmemory", 1)])
        for _ in range(10):
            with pytest.raises(BrokerError):
                await publish(broker, "too much")
        await broker.publish("c", Raw(b"2"))
        assert await kept(broker) == ["1"]
        await listener.until(lambda: heard(listener) == ["1", "2"])
        server.call("CONFIG", "SET", "maxmemory", 0)
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(BrokerError):
                    assert (await publish(broker, 3)).offset == 2
                    break
                await asyncio.sleep(0.1)
        assert listener.state is BrokerState.CONNECTED


async def test_an_evicted_stream_keeps_its_position(server: RedisServer) -> None:
    async with node(server.url) as (broker, _):
        top = await publish(broker, 1, 2, 3)
        server.call("DEL", "hub{c}.s")
        stream = await broker.history("c")
        assert (stream.publications, stream.top) == ([], top)
        assert await publish(broker, 4) == StreamPosition(4, top.epoch)


@pytest.mark.parametrize("read_first", [False, True])
async def test_an_evicted_position_begins_anew_with_its_stream(server: RedisServer, read_first: bool) -> None:
    async with node(server.url) as (broker, _):
        top = await publish(broker, 1, 2, 3)
        server.call("DEL", "hub{c}.m")
        if read_first:
            stream = await broker.history("c")
            assert (stream.publications, stream.top.offset) == ([], 0)
            assert stream.top.epoch != top.epoch
        after = await publish(broker, 4)
        assert after.offset == 1
        assert after.epoch != top.epoch
        assert await kept(broker) == ["4"]


async def test_a_stream_ahead_of_its_position_begins_anew(server: RedisServer) -> None:
    async with node(server.url) as (broker, _):
        top = await publish(broker, 1, 2, 3)
        server.call("HSET", "hub{c}.m", "offset", 1)
        after = await publish(broker, 4)
        assert after.offset == 1
        assert after.epoch != top.epoch
        assert await kept(broker) == ["4"]


async def test_what_the_hub_did_not_write(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        for junk in (b"", b"\xff", b"\x93\x01", b"hello", b"\x93\x00\xa0\x90"):
            server.call("PUBLISH", "hub{c}", junk)
        server.call("XADD", "hub{junk}.s", "0-1", "d", "junk")
        server.call("HSET", "hub{junk}.m", "epoch", "e", "offset", 1, "incarnation", "i")
        assert await kept(broker, "junk") == []
        await publish(broker, 1)
        await listener.until(lambda: heard(listener) == ["1"])


async def test_all_has_one_prefix_and_an_end(server: RedisServer) -> None:
    async with node(server.url) as (broker, _):
        for channel in ("c", "a:b", "*", "[x]", "?", "#1,2", "é"):
            await broker.subscribe(channel)
            await publish(broker, 1, channel=channel)
            await broker.publish(channel, Raw(b"1"), history=KEEP, idempotency_key="a} {b\r\n\0")
            await broker.publish(channel, Raw(b"1"), idempotency_key="*")
            await broker.presence_add(channel, "client", ClientInfo(), 60)
            await broker.history(f"other{channel}")
        await broker.append_bus(b"x")
        await asyncio.sleep(1.2)  # for a second probe
        keys = server.call("KEYS", "*")
        log = b"hub{hub.control}.log"
        probes = {b"hub{0}.probe.m", b"hub{0}.probe.s"}
        assert {log, *probes} < set(keys)
        keys = [key for key in keys if not key.startswith((log, b"hub{0}.probe"))]
        assert len(keys) == 7 * 8
        assert all(key.startswith(b"hub{") for key in keys)
        assert all(name.startswith(b"hub") for name in server.call("PUBSUB", "CHANNELS"))
        assert all(ms > 0 for ms in server.calls([("PTTL", key) for key in keys]))


# How it is configured


async def test_too_many_calls_wait(server: RedisServer) -> None:
    async with node(server.url, pending_bytes_max=10_000) as (broker, _):
        text = Raw(b'"' + b"x" * 1_000 + b'"')
        outcomes = await asyncio.gather(
            *(broker.publish("c", text, history=KEEP) for _ in range(50)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, BrokerError)]
        assert 30 < len(refused) < 50
        assert (await broker.history("c")).top.offset == 50 - len(refused)


async def test_wrong_credentials_end_the_start() -> None:
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "hub", "on", ">right", "~*", "&*", "+@all")
        server.call("ACL", "SETUSER", "default", "off")
        for user in ("", "hub:wrong@", "nobody:x@"):
            broker = RedisBroker(RedisSettings(url=f"redis://{user}127.0.0.1:{server.port}"))
            with pytest.raises(StartupError, match=r"redis\.url: 127\.0\.0\.1"):
                await Listener().start(broker)


CLUSTER_RIGHTS = "+cluster|slots +asking +command"

RIGHTS = (
    "~hub{* ~hub.session{* &hub{* &hub.* -@all +info +publish +subscribe +unsubscribe +ping +hmget +del"
    " +select +eval +evalsha +script|load +hset +hget +hincrby +xadd +xrange +xrevrange +pexpire +get +set"
    " +time +zadd +zrem +zrangebyscore +hdel +hgetall +pttl +exists +spublish +ssubscribe +sunsubscribe"
)


async def use_everything(broker: RedisBroker, listener: Listener) -> None:
    await broker.subscribe("c")
    await broker.publish("c", Raw(b"0"), idempotency_key="k")
    await publish(broker, 1, 2)
    await broker.history("c", reverse=True)
    assert await broker.positions(["c"]) != {}
    await broker.history_remove("c")
    assert await kept(broker) == []
    await broker.presence_add("c", "client", ClientInfo("ann"), 60)
    assert await broker.presence("c") == {"client": ClientInfo("ann")}
    await broker.presence_remove("c", "client")
    await broker.session_resume("ann", "client", ("one",), "two", 60)
    await broker.session_leave("ann", "client", "two", 60, before="one")
    await broker.session_revoke("ann", "", 60)
    await broker.send_bus(b"x")
    await broker.read_bus(await broker.append_bus(b"y"), 10)
    await listener.until(lambda: heard(listener) == ["0", "1", "2"])
    await broker.unsubscribe("c")


async def test_a_user_of_the_acl_with_just_the_rights_it_needs() -> None:
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "hub", "on", ">pass", *RIGHTS.split())
        async with node(f"redis://hub:pass@127.0.0.1:{server.port}/3") as (broker, listener):
            await use_everything(broker, listener)


async def test_a_user_of_a_clusters_acl_with_just_the_rights_it_needs() -> None:
    with RedisCluster() as cluster:
        for server in cluster.servers:
            server.call("ACL", "SETUSER", "hub", "on", ">pass", *RIGHTS.split(), *CLUSTER_RIGHTS.split())
        url = cluster.url.replace("redis+cluster://", "redis+cluster://hub:pass@")
        async with node(url) as (broker, listener):
            await use_everything(broker, listener)


@pytest.mark.parametrize(
    ("right", "named"), [("-script|load", "script|load"), ("-info", "info"), ("-select", "select")]
)
async def test_a_right_that_is_missing_is_named_at_the_start(right: str, named: str) -> None:
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "hub", "on", ">pass", *RIGHTS.split(), right)
        broker = RedisBroker(RedisSettings(url=f"redis://hub:pass@127.0.0.1:{server.port}/3"))
        with pytest.raises(
            StartupError, match=rf"redis\.url: .*no permissions to run the '{named}"
        ) as refusal:
            await Listener().start(broker)
        assert "\n" not in str(refusal.value)


async def test_a_redis_before_version_7_ends_the_start() -> None:
    # Not a real one: no package here brings a Redis that old. It answers as 6.2 does.
    info = b"redis_version:6.2.14\r\nloading:0\r\nrole:master\r\nrun_id:1\r\nmaster_replid:2\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(65_536):
            count = asked.count(b"INFO") + asked.count(b"SCRIPT")
            writer.write(b"$%d\r\n%b\r\n" % (len(info), info) * count)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        broker = RedisBroker(RedisSettings(url=f"redis://127.0.0.1:{port}"))
        with pytest.raises(StartupError) as refusal:
            await Listener().start(broker)
    expected = (
        f"redis.url: 127.0.0.1:{port}: Redis 6.2.14 is too old: the hub needs Redis 7 or newer, or Valkey"
    )
    assert str(refusal.value) == expected


async def test_a_replica_is_not_served_from(server: RedisServer) -> None:
    with RedisServer("--replicaof", f"127.0.0.1 {server.port}") as replica:
        async with node(replica.url) as (_, listener):
            assert listener.state is BrokerState.DISCONNECTED
            assert "replica" in listener.states[-1][1]


async def test_tls(tmp_path: Path) -> None:
    certificate(tmp_path)
    files = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    options = ("--tls-cert-file", files[0], "--tls-key-file", files[1], "--tls-ca-cert-file", files[0])
    port = free_port()
    with RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *options):
        async with node(f"rediss://localhost:{port}?ssl_ca_certs={files[0]}") as (broker, listener):
            await broker.subscribe("c")
            await publish(broker, 1)
            await listener.until(lambda: heard(listener) == ["1"])
        for url in (f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}?ssl_ca_certs={files[0]}"):
            with pytest.raises(StartupError, match="certificate is not trusted"):
                await Listener().start(RedisBroker(RedisSettings(url=url)))


def certificate(folder: Path) -> None:
    """Write a certificate for localhost, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
