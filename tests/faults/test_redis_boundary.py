"""hub/broker/redis: what a server sends, or a connection does, harms nothing that it does not concern."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
import uvloop
from msgspec import Raw
from msgspec.msgpack import Ext
from structlog.testing import capture_logs
from support.brokers import KEEP, Listener, heard, kept, node, publish, well
from support.limits import WAIT_S
from support.redis import RedisServer

from hub.broker.base import BrokerState, BusLog
from hub.broker.redis.broker import RedisBroker
from hub.errors import BrokerError
from hub.protocol.messages import ClientInfo, Publication, StreamPosition
from hub.settings import RedisSettings


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def listening(server: RedisServer) -> list[bytes]:
    """The ids of the connections that are subscribed to something."""
    clients = server.call("CLIENT", "LIST", "TYPE", "pubsub").split(b"\n")
    return [client.split()[0] for client in clients if client]


# Connections that break


def test_callers_do_not_notice_that_connections_break(server: RedisServer) -> None:
    """On uvloop, a write to a connection that is closed raises until the loop has told of the end."""

    async def main() -> None:
        async with node(server.url) as (broker, listener):
            await broker.subscribe("c")
            killing = threading.Thread(target=kill)
            killing.start()
            futures: list[asyncio.Future[StreamPosition]] = []
            while killing.is_alive():
                # The flush is what a client's read ends with.
                futures.append(broker.publish("c", Raw(b"%d" % len(futures)), history=KEEP))
                broker.flush()
                await asyncio.sleep(0)
                if len(futures) % 200 == 0:
                    await asyncio.wait(futures)
            positions = await asyncio.gather(*futures)
            assert [position.offset for position in positions] == list(range(1, len(futures) + 1))
            await listener.until(lambda: len(heard(listener)) == len(futures))
            assert heard(listener) == [str(number) for number in range(len(futures))]

    def kill() -> None:
        for _ in range(40):
            server.call("CLIENT", "KILL", "TYPE", "normal")
            time.sleep(0.02)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_subscription_does_not_notice_that_a_connection_is_closed(server: RedisServer) -> None:
    async def main() -> None:
        async with node(server.url) as (broker, listener):
            raised: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
            for round_ in range(20):
                server.call("CLIENT", "KILL", "TYPE", "pubsub")
                for number in range(50):
                    broker.subscribe(f"c{round_}.{number}")
                    await asyncio.sleep(0)
            await well(listener, 1)
            await asyncio.gather(*(broker.subscribe(f"c{round_}.0") for round_ in range(20)))
            assert raised == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# Messages that are not the hub's


def envelope(kind: int = 0, data: Any = b"1", info: Any = None, offset: int = 0) -> bytes:
    return msgspec.msgpack.encode([offset, "", [kind, data, info, None, 0]])


UNREADABLE = [
    *(b"", b"\xff", b"\x93\x01", b"hello", b"\x93\x00\xa0\x90", b'{"type":"newword"}'),
    envelope(offset=-1),
    *(envelope(data=text) for text in (b"{", b"\xff", b'"\xff"', b"1 2", b"", b'"\\ud800"', b"NaN")),
    envelope(data=b"[" * 100_000 + b"]" * 100_000),
    *(
        envelope(data=Ext(2, packed))
        for packed in (b"\xc1", b"", b"\x93\x01", b"\xd7\x05aaaaaaaa", b"\xa1\xff")
    ),
    envelope(data=Ext(7, b"a form of a later version")),
    envelope(info=["user", "client", b"{", None]),
    envelope(kind=1, info=["user", "client", b"\xff", None]),
    envelope(kind=9),
]


async def test_a_message_that_is_not_readable_is_ignored(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        before = listening(server)
        for number, message in enumerate(UNREADABLE):
            server.call("PUBLISH", "hub{c}", message)
            await broker.publish("c", Raw(b"%d" % number))
        await listener.until(lambda: len(heard(listener)) >= len(UNREADABLE))
        assert heard(listener) == [str(number) for number in range(len(UNREADABLE))]
        assert len(listener.ignored) == len(UNREADABLE)
        assert listening(server) == before
        assert (listener.gaps, listener.states, listener.failures) == (0, [], [])


@pytest.mark.parametrize("channel", ["hub.control", "hub.control.NODE"])
async def test_bytes_on_the_bus_that_are_not_the_hubs_are_messages_without_an_id(
    server: RedisServer, channel: str
) -> None:
    async with node(server.url) as (broker, listener):
        before = listening(server)
        messages = [b'{"type": "newword"}', b"", b"\xff", b"word", b"1-2-3 x", b"-1 x", b"1 x"]
        for message in messages:
            server.call("PUBLISH", channel.replace("NODE", listener.id), message)
        await broker.send_bus(b"last")
        await listener.until(lambda: len(listener.bus) > len(messages))
        assert listener.bus == [(message, "") for message in (*messages, b"last")]
        assert listener.ignored == []
        assert listening(server) == before
        assert (listener.gaps, listener.states) == (0, [])


class Raising(Listener):
    """A listener whose callbacks raise, after they kept what they were called with."""

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        super().on_publication(channel, publication, epoch)
        raise RuntimeError("a publication")

    def on_bus(self, message: bytes, entry: str, before: str) -> None:
        super().on_bus(message, entry, before)
        raise RuntimeError("the bus")


async def test_a_callback_that_raises_leaves_the_connection_as_it_is(server: RedisServer) -> None:
    broker, listener = RedisBroker(RedisSettings(url=server.url)), Raising()
    await listener.start(broker)
    try:
        await broker.subscribe("c")
        before = listening(server)
        for number in range(3):
            await broker.publish("c", Raw(b"%d" % number))
            await broker.send_bus(b"%d" % number)
        await listener.until(lambda: len(listener.bus) == 3)
        assert heard(listener) == ["0", "1", "2"]
        assert listening(server) == before
        assert len(listener.failures) == 6
        assert listener.gaps == 0
    finally:
        await broker.stop()


# Keys that are not the hub's


@pytest.mark.parametrize(
    "foreign",
    [
        ("XADD", "hub{c}.s", "*", "other", "x"),
        ("XADD", "hub{c}.s", "0-4", "other", "x"),
        ("XADD", "hub{c}.s", "0-4", "d", b"\xff"),
        ("XADD", "hub{c}.s", "0-4", "d", envelope(kind=1)[3:]),
        ("XADD", "hub{c}.s", "0-4", "d", "junk", "e", "junk"),
        ("XADD", "hub{c}.s", "7-1", "d", "junk"),
    ],
)
async def test_an_entry_that_is_not_readable_is_left_out(
    server: RedisServer, foreign: tuple[Any, ...]
) -> None:
    async with node(server.url) as (broker, listener):
        top = await publish(broker, 1, 2, 3)
        server.call(*foreign)
        for reverse in (False, True):
            stream = await broker.history("c", reverse=reverse, bytes_max=100_000)
            assert sorted(pub.offset for pub in stream.publications) == [1, 2, 3]
            assert stream.top == top
        assert await kept(broker) == ["1", "2", "3"]
        assert len(listener.ignored) == 3
        # The next publication cannot go on after it: the channel begins again, for everybody to see.
        after = await publish(broker, 4)
        assert (after.offset, after.epoch != top.epoch) == (1, True)
        assert await kept(broker) == ["4"]
        assert (await publish(broker, 5)).offset == 2


async def test_a_client_that_is_not_readable_is_left_out_of_presence(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.presence_add("c", "client", ClientInfo("ann"), 60)
        server.calls([("HSET", "hub{c}.p", "junk", "junk"), ("HSET", "hub{c}.p", b"\xff", b"\x92\xa0\xa0")])
        assert await broker.presence("c") == {"client": ClientInfo("ann")}
        assert len(listener.ignored) == 2


async def test_an_entry_of_the_bus_log_that_is_not_readable_is_left_out(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        first = await broker.append_bus(b"1")
        server.call("XADD", "hub{hub.control}.log", "*", "other", "x")
        last = await broker.append_bus(b"2")
        assert await broker.read_bus("", 10) == BusLog([(first, b"1"), (last, b"2")], last)
        assert len(listener.ignored) == 1


async def test_keys_of_another_type_fail_their_own_calls_alone(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("sound")
        for key in ("m", "p", "e", "i.key"):
            server.call("RPUSH", f"hub{{poison}}.{key}", "x")
        calls: list[Callable[[], asyncio.Future[Any]]] = [
            lambda: broker.publish("poison", Raw(b"1"), history=KEEP),
            lambda: broker.publish("poison", Raw(b"1"), idempotency_key="key"),
            lambda: broker.history("poison"),
            lambda: broker.presence("poison"),
            lambda: broker.presence_add("poison", "client", ClientInfo(), 60),
        ]
        for _ in range(10):
            for call in calls:
                with pytest.raises(BrokerError, match="WRONGTYPE"):
                    await call()
        for number in range(20):
            await publish(broker, number, channel="sound")
            await broker.publish("sound", Raw(b"0"), idempotency_key=str(number))
            assert len(await kept(broker, "sound")) == number + 1
            await broker.presence_add("sound", "client", ClientInfo(), 60)
        top = (await broker.history("sound")).top
        assert await broker.positions(["poison", "sound"], renew=True) == {"sound": top}
        assert listener.states == []


async def test_a_stream_of_another_type_is_replaced_by_the_next_publication(server: RedisServer) -> None:
    async with node(server.url) as (broker, _):
        await publish(broker, 1)
        server.call("SET", "hub{c}.s", "x")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await broker.history("c")
        await publish(broker, 2)
        assert await kept(broker) == ["2"]


async def test_keys_of_another_type_do_not_stop_a_repair() -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        async with node(server.url) as (broker, listener):
            for channel in ("c", "poison"):
                await broker.subscribe(channel)
                await publish(broker, 1, channel=channel)
            await listener.until(lambda: len(listener.heard) == 2)
            server.call("SET", "hub{poison}.m", "x")
            server.kill()
            server.start()
            await well(listener, 1)
            await publish(broker, 2)
            await listener.until(lambda: heard(listener) == ["1", "2"])


# Servers that are no Redis


@contextlib.asynccontextmanager
async def fake(reply: bytes) -> AsyncIterator[tuple[int, asyncio.Semaphore]]:
    """A server that answers each command with the same reply. Yields its port, and counts its connections."""
    connected = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.release()
        with contextlib.suppress(OSError):
            while asked := await reader.read(65_536):
                writer.write(reply * (asked.count(b"$4\r\nINFO\r\n") + asked.count(b"$6\r\nSCRIPT\r\n")))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], connected


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


INFO = b"redis_version:7.0.15\r\nloading:0\r\nrole:master\r\nrun_id:1\r\nmaster_replid:2\r\n"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"+OK\r\n", "has no redis_version"),
        (b"$-1\r\n", "has no redis_version"),
        (b"*2\r\n:1\r\n:2\r\n", "has no redis_version"),
        (b":7\r\n", "has no redis_version"),
        *(
            (bulk(INFO.replace(b"%b:" % name, b"x:")), f"has no {name.decode()}")
            for name in (b"role", b"run_id", b"loading")
        ),
        (bulk(INFO.replace(b"7.0.15", b"seven")), "its version is 'seven'"),
        (b"-ERR unknown command\r\n", "unknown command"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the protocol"),
        (b"", "no answer within 0.2 s"),
    ],
)
async def test_a_server_that_is_no_redis_is_a_reason_and_is_tried_again(reply: bytes, reason: str) -> None:
    async with fake(reply) as (port, connected):
        broker, listener = (
            RedisBroker(RedisSettings(url=f"redis://127.0.0.1:{port}", timeout_s=0.2)),
            Listener(),
        )
        async with asyncio.timeout(WAIT_S):
            await listener.start(broker)
        [(state, why)] = listener.states
        assert state is BrokerState.DISCONNECTED
        assert reason in why
        assert why.startswith(f"127.0.0.1:{port}: ")
        assert "\n" not in why
        async with asyncio.timeout(WAIT_S):
            for _ in range(6):  # two connections at the start, and two more of each
                await connected.acquire()
        await broker.stop()
        assert listener.failures == []


async def test_a_start_that_is_cancelled_while_it_waits_ends_what_it_began() -> None:
    async with fake(b"") as (port, _):
        before = asyncio.all_tasks()
        patient = RedisSettings(url=f"redis://127.0.0.1:{port}", timeout_s=600, retry_budget_s=600)
        broker = RedisBroker(patient)
        starting = asyncio.create_task(Listener().start(broker))
        await asyncio.sleep(0.1)
        starting.cancel()
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(asyncio.CancelledError):
                await starting
        left = {task for task in asyncio.all_tasks() - before if "answer" not in repr(task)}
        assert left == set()


async def test_a_broker_can_be_stopped_before_it_starts_and_after_it_failed() -> None:
    broker = RedisBroker(RedisSettings(url="redis://127.0.0.1:1", timeout_s=0.2))
    await broker.stop()
    await Listener().start(broker)
    await broker.stop()
    await broker.stop()


async def test_a_reply_that_was_not_asked_for_ends_its_connection(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        [shard] = broker._router.shards.values()
        for connection in (shard.commands, shard.subscriptions):
            link = connection.connection
            assert link is not None
            link.data_received(b"+OK\r\n" * 3)
            async with asyncio.timeout(WAIT_S):
                await link.lost
            await listener.until(lambda: listener.state is BrokerState.CONNECTED)
            await publish_until_it_works(broker)
        await well(listener, 1)
        assert listener.failures == []


async def publish_until_it_works(broker: RedisBroker) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(BrokerError):
                await publish(broker, 1)
                return
            await asyncio.sleep(0.02)


# Nobody looks at a failure


async def test_failures_that_nobody_looks_at_are_not_logged(server: RedisServer) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def use(broker: RedisBroker) -> None:
        broker.subscribe("c")
        broker.publish("c", Raw(b"1"))
        broker.publish("c", Raw(b"1"), history=KEEP)
        broker.publish("c", Raw(b"1"), idempotency_key="k")
        broker.publish_join("c", ClientInfo())
        broker.history("c")
        broker.history("c", limit=3)
        broker.positions(["c", "d"], renew=True)
        broker.presence("c")
        broker.send_bus(b"x")
        broker.append_bus(b"x")
        broker.read_bus("", 1)
        broker.unsubscribe("c")

    server.kill()
    with capture_logs() as logs:
        async with node(server.url, timeout_s=0.3, retry_budget_s=0.3) as (broker, listener):
            use(broker)
            await asyncio.sleep(0.1)
            server.start()
            await well(listener, 1)
            use(broker)
            server.kill()
            use(broker)
            await listener.until(lambda: listener.state is BrokerState.DISCONNECTED)
            use(broker)
            await asyncio.sleep(0.5)
            server.start()
            await well(listener, 2)
            use(broker)
        del broker
        gc.collect()
        await asyncio.sleep(0)
    assert complaints == []
    assert logs == []
