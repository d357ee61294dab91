"""hub/broker/redis, what of it needs no Redis: URLs, envelopes, positions, shared reads."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from asyncio import Future
from collections.abc import Callable
from datetime import UTC, datetime

import hiredis
import msgspec
import pytest
from msgspec import Raw
from msgspec.msgpack import Ext
from support.limits import WAIT_S

from hub.broker.background import BACKOFF_MAX_S, BackgroundTasks, backoff_s, retry_s
from hub.broker.base import Stream
from hub.broker.breaker import BreakerState
from hub.broker.redis import envelope
from hub.broker.redis.commands import CallKind, CallLimits, CommandConnection, RedisCall
from hub.broker.redis.connection import Address, RedisConnection, RedisConnectionError, Reply, pack
from hub.broker.redis.connection_supervisor import ConnectionSupervisor
from hub.broker.redis.names import Names
from hub.broker.redis.positions import Positions, Seen
from hub.broker.redis.reads import HistoryRead, SharedReads
from hub.broker.redis.topology import topology_of
from hub.errors import BrokerError, StartupError
from hub.protocol.messages import NO_PAYLOAD, ClientInfo, Publication, StreamPosition

REPLIES = 200

# URLs


@pytest.mark.parametrize(
    ("url", "address", "user", "password", "db", "sharded"),
    [
        ("redis://", Address(), "", "", 0, False),
        ("redis://r.example", Address("r.example"), "", "", 0, False),
        ("redis://:p%40ss@r.example:7000/3", Address("r.example", 7000), "", "p@ss", 3, False),
        ("redis://ann:pass@[::1]:7000", Address("::1", 7000), "ann", "pass", 0, False),
        ("unix:///run/redis.sock?db=2", Address(path="/run/redis.sock"), "", "", 2, False),
        ("redis+cluster://a:p@n1:7001,n2:7002", Address("n1", 7001), "a", "p", 0, True),
        ("redis+cluster://n1,n2", Address("n1"), "", "", 0, True),
    ],
)
def test_urls(url: str, address: Address, user: str, password: str, db: int, sharded: bool) -> None:
    topology = topology_of(url, 1.0)
    assert list(topology.addresses()) == [address]
    assert topology.address(b"hub{c}") == address
    access = topology.access
    assert (access.username, access.password, access.db, access.tls) == (user, password, db, None)
    assert topology.sharded is sharded
    assert "pass" not in repr(access)


@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel", "rediss+cluster"])
def test_tls(scheme: str) -> None:
    tls = topology_of(
        f"{scheme}://r.example/main" if "sentinel" in scheme else f"{scheme}://r", 1.0
    ).access.tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname


def test_tls_can_be_loosened() -> None:
    tls = topology_of("rediss://r.example?ssl_cert_reqs=none&ssl_check_hostname=false", 1.0).access.tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_NONE


def test_sentinel() -> None:
    topology = topology_of("redis+sentinel://a:p@s1:1,s2/main/4", 1.0)
    assert not topology.sharded
    assert (topology.access.username, topology.access.db) == ("a", 4)


@pytest.mark.parametrize("url", ["redis+sentinel://s1", "redis+cluster://n1/1", "http://r", "redis://r:x"])
def test_urls_that_will_not_do(url: str) -> None:
    with pytest.raises(StartupError, match=r"^redis\.url: "):
        topology_of(url, 1.0)


def test_names() -> None:
    names = Names("app:hub", "node")
    assert names.channel("a:é") == "app:hub{a:é}".encode()
    assert names.probe == b"app:hub.probe.node"


# Envelopes


@pytest.mark.parametrize(
    "info", [None, ClientInfo(), ClientInfo("ann", "c", Raw(b"{ }"), Raw(b"null")), ClientInfo("é", "c")]
)
@pytest.mark.parametrize("data", [Raw(b'{"a":  "\xc3\xa9"}'), Raw(b"null"), NO_PAYLOAD])
@pytest.mark.parametrize("tags", [None, {"k": "v"}])
def test_an_envelope_holds_what_it_was_given(
    data: Raw, info: ClientInfo | None, tags: dict[str, str]
) -> None:
    body = envelope.encode_body(envelope.PUBLICATION, data, info, tags, 1_700_000_000_000)
    expected = Publication(data, info, 7, tags, False, 1_700_000_000_000)
    assert envelope.decode_entry(7, body) == expected
    message = envelope.decode_envelope(b"\x93\x07\xa4abcd" + body)
    assert (message.offset, message.epoch) == (7, "abcd")
    assert envelope.publication_of(7, message.body) == expected
    message = envelope.decode_envelope(envelope.UNNUMBERED + body)
    assert (message.offset, message.epoch) == (0, "")


def test_an_envelope_of_a_later_version() -> None:
    body = msgspec.msgpack.encode([0, b"1", ["u", "c", None, None, "new"], None, 5, "new"])
    message = envelope.decode_envelope(msgspec.msgpack.encode([3, "e", msgspec.Raw(body), "new"]))
    assert message.body.data == b"1"


@pytest.mark.parametrize(
    "value",
    [math.nan, {1: 2}, [Ext(1, b"")], datetime.fromtimestamp(0, UTC)],
    ids=["nan", "key", "ext", "time"],
)
def test_a_payload_that_not_every_encoding_has_a_form_of_is_unreadable(value: object) -> None:
    packed = Ext(envelope.PACKED, msgspec.msgpack.encode({"a": value}))
    with pytest.raises(envelope.Unreadable):
        envelope.decode_entry(1, msgspec.msgpack.encode([envelope.PUBLICATION, packed]))


def test_a_time_beyond_64_bits_is_unreadable() -> None:
    with pytest.raises(envelope.Unreadable):
        envelope.decode_entry(1, msgspec.msgpack.encode([envelope.PUBLICATION, b"1", None, None, 2**63]))


# Positions


def doubtful(positions: Positions) -> set[tuple[bytes, Seen]]:
    taken: set[tuple[bytes, Seen]] = set()
    while some := positions.take_doubtful(2):
        taken.update(some)
    return taken


def known(positions: Positions) -> set[bytes]:
    return {name for names in positions.names(2) for name in names}


def test_the_highest_offset_of_an_epoch_counts() -> None:
    positions = Positions({b"c"})
    for epoch, offset in (("a", 2), ("a", 1), ("b", 1)):
        positions.note(b"c", epoch, offset)
    positions.note(b"d", "a", 5)
    positions.note(b"d", "a", 4)
    assert not positions.is_doubtful
    positions.doubt(b"i")
    assert positions.is_doubtful
    assert doubtful(positions) == {(b"c", Seen("b", 1, b"i")), (b"d", Seen("a", 5, b"i"))}
    assert not positions.is_doubtful


def test_a_position_is_doubtful_until_it_is_verified() -> None:
    positions = Positions({b"c"})
    positions.note(b"c", "a", 5)
    positions.doubt(b"one")
    positions.note(b"c", "a", 3)
    positions.doubt(b"two")
    taken = doubtful(positions)
    assert taken == {(b"c", Seen("a", 5, b"one")), (b"c", Seen("a", 3, b"two"))}
    for name, seen in taken:
        positions.inherit(name, seen)
    assert doubtful(positions) == taken


def test_positions_of_channels_that_are_not_followed_are_forgotten() -> None:
    followed = {b"followed"}
    positions = Positions(followed)
    positions.note(b"followed", "a", 1)
    positions.note(b"other", "a", 1)
    positions.rotate()
    assert known(positions) == {b"followed", b"other"}
    positions.rotate()
    assert known(positions) == {b"followed"}
    followed.clear()
    positions.unfollow(b"followed")
    positions.rotate()
    assert known(positions) == {b"followed"}
    assert positions.take(b"followed", b"i") == [Seen("a", 1, b"i")]
    assert positions.take(b"followed", b"i") == []
    assert known(positions) == set()


def test_the_bookkeeping_of_many_positions_does_not_stall_the_event_loop() -> None:
    names = {b"hub{%d}" % number: None for number in range(200_000)}
    positions = Positions(names)
    for name in names:
        positions.note(name, "a", 1)
    steps: list[Callable[[], object]] = [
        positions.rotate,
        lambda: positions.doubt(b"i"),
        lambda: positions.take_doubtful(200),
    ]
    for step in steps:
        began = time.thread_time()
        step()
        assert time.thread_time() - began < 0.02


# Reads


class History:
    """Reads that end when they are told to, of a channel that holds 1 to 10."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, int, bool]] = []
        self.futures: list[Future[Stream]] = []

    def __call__(self, read: HistoryRead) -> Future[Stream]:
        self.asked.append((read.since, read.limit, read.reverse))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def end(self, number: int) -> None:
        since, limit, _ = self.asked[number]
        offsets = range((since or 0) + 1, 11) if limit else range(0)
        publications = [Publication(Raw(b"1"), None, offset) for offset in offsets]
        self.futures[number].set_result(Stream(publications, StreamPosition(10, "e")))


async def test_a_thousand_reads_of_a_channel_are_two() -> None:
    history = History()
    reads = SharedReads(history)
    futures = [reads.read(HistoryRead(b"c", since % 10, -1, False)) for since in range(1_000)]
    futures += [reads.read(HistoryRead(b"c", None, 0, False)) for _ in range(10)]
    history.end(0)
    await futures[0]
    await asyncio.sleep(0)
    history.end(1)
    streams = await asyncio.gather(*futures)
    assert history.asked == [(None, -1, False), (None, -1, False)]
    for since, stream in enumerate(streams[:1_000]):
        assert [pub.offset for pub in stream.publications] == list(range(since % 10 + 1, 11))
    assert all(not stream.publications for stream in streams[1_000:])


async def test_reads_of_other_kinds_are_their_own() -> None:
    history = History()
    reads = SharedReads(history)
    asked = [
        (None, 3, False),
        (None, 3, False),
        (4, 3, False),
        (None, -1, True),
        (7, 0, False),
        (8, -1, False),
    ]
    futures = [reads.read(HistoryRead(b"c", *each)) for each in asked]
    assert history.asked == [(None, 3, False), (4, 3, False), (None, -1, True), (None, 0, False)]
    for number in range(4):
        history.end(number)
    await asyncio.sleep(0)
    assert history.asked[4:] == [(None, 3, False), (8, -1, False)]
    history.end(4)
    history.end(5)
    await asyncio.gather(*futures)


async def test_a_read_that_fails_fails_for_those_who_share_it() -> None:
    history = History()
    reads = SharedReads(history)
    futures = [reads.read(HistoryRead(b"c", None, -1, False)) for _ in range(3)]
    history.futures[0].set_exception(OSError("one"))
    await asyncio.wait([futures[0]])
    history.futures[1].set_exception(OSError("two"))
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["one", "two", "two"]
    third = reads.read(HistoryRead(b"c", None, -1, False))
    history.end(2)
    assert (await third).top.offset == 10


def test_back_off_is_bounded_and_jittered() -> None:
    for attempt in (0, 3, 10, 10_000):
        bound_s = min(BACKOFF_MAX_S, 0.05 * 2 ** min(attempt, 16))
        waits = [backoff_s(attempt) for _ in range(100)]
        assert 0 <= min(waits) < max(waits) <= bound_s
        waits = [retry_s(attempt) for _ in range(100)]
        assert bound_s / 2 <= min(waits) < max(waits) <= bound_s


class Socket(asyncio.Transport):
    """A transport that notes whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.is_closed = False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


async def test_replies_that_take_long_are_received_in_slices_between_which_the_loop_turns() -> None:
    received: list[int] = []
    seen: list[int] = []

    def receive(reply: Reply) -> None:
        time.sleep(0.001)
        received.append(reply)

    def turn() -> None:
        seen.append(len(received))
        assert socket.reads == (len(received) == REPLIES)
        if len(received) < REPLIES:
            asyncio.get_running_loop().call_soon(turn)

    connection = RedisConnection(receive)
    socket = Socket()
    connection.connection_made(socket)
    connection.on_caught_up = lambda: caught_up.append(len(received))
    caught_up: list[int] = []
    connection.data_received(b"".join(b":%d\r\n" % number for number in range(REPLIES)))
    turn()
    async with asyncio.timeout(WAIT_S):
        while len(received) < REPLIES or not socket.reads:  # noqa: ASYNC110 - the test drives the loop
            await asyncio.sleep(0)
    assert received == list(range(REPLIES)), "in order, and each once"
    assert len([count for count in seen if count < REPLIES]) > 1
    assert caught_up[0] < REPLIES == caught_up[-1]


async def test_a_connection_that_ends_between_two_slices_receives_nothing_more() -> None:
    received: list[int] = []

    def receive(reply: Reply) -> None:
        time.sleep(0.001)
        received.append(reply)

    connection = RedisConnection(receive)
    socket = Socket()
    connection.connection_made(socket)
    connection.data_received(b":1\r\n" * REPLIES)
    count = len(received)
    assert count < REPLIES
    connection.abort("over")
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(received) == count
    assert not socket.reads


class Wire(RedisConnection):
    """A connection that keeps what is written."""

    def __init__(self, receive: Callable[[Reply], None]) -> None:
        super().__init__(receive)
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)


async def connect(report: Callable[[BaseException], None] = print) -> tuple[CommandConnection, Wire]:
    wires: list[Wire] = []

    async def open_connection(receive: Callable[[Reply], None]) -> tuple[RedisConnection, bytes]:
        wires.append(Wire(receive))
        return wires[-1], b"one"

    commands = CommandConnection(
        open_connection,
        BackgroundTasks(report),
        CallLimits(),
        lambda incarnation: None,
        lambda call, error: None,
    )
    await commands.tried
    return commands, wires[0]


def get(number: int, decode: Callable[[Reply], object] = int) -> RedisCall:
    return RedisCall((b"GET", b"%d" % number), decode, CallKind.READ)


async def test_calls_leave_together_when_they_are_told_to_or_in_the_next_turn() -> None:
    commands, wire = await connect()
    packed = [pack((b"GET", b"%d" % number)) for number in range(5)]
    commands.call(get(0))
    commands.call(get(1))
    assert not wire.written
    commands.flush()
    assert wire.written == [packed[0] + packed[1]]
    commands.call(get(2))
    commands.call(get(3))
    await asyncio.sleep(0)
    assert wire.written[1:] == [packed[2] + packed[3]]
    commands.call(get(4))
    await asyncio.sleep(0)
    assert wire.written[2:] == [packed[4]]
    await commands.stop()


@pytest.mark.parametrize("error", [KeyError, AttributeError, RecursionError, AssertionError, OSError])
async def test_a_reply_that_cannot_be_decoded_fails_its_call_alone(error: type[Exception]) -> None:
    commands, _ = await connect()

    def decode(_: Reply) -> object:
        raise error("cannot")

    calls = [commands.call(get(0)), commands.call(get(1, decode)), commands.call(get(2))]
    commands.flush()
    for reply in (b"0", b"1", b"2"):
        commands.receive(reply)
    assert (calls[0].result(), calls[2].result()) == (0, 2)
    with pytest.raises(BrokerError, match="did not write"):
        await calls[1]
    await commands.stop()


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("ERR user_script:1: attempt to perform arithmetic on a nil value script: f00", False),
        ("ERR Invalid stream ID specified as stream command argument", False),
        ("NOPERM this user has no permissions to run the 'get' command", True),
        ("ERR The user executing the script can't run this command or subcommand script: f00", True),
        ("BUSY Redis is busy running a script.", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),  # what is there can be read
    ],
)
async def test_errors_about_one_key_do_not_count_against_the_server(error: str, opens: bool) -> None:
    commands, _ = await connect()
    for number in range(10):
        commands.call(get(number))
        commands.flush()
        if commands.breakers[CallKind.READ].state is BreakerState.CLOSED:
            commands.receive(hiredis.ReplyError(error))
    assert (commands.breakers[CallKind.READ].state is BreakerState.OPEN) == opens
    await commands.stop()


async def test_time_that_this_process_lost_is_not_held_against_a_call() -> None:
    commands, _ = await connect()
    call = commands.call(get(0))
    commands.flush()
    now = asyncio.get_running_loop().time()
    commands.watch(now + 10, lag_s=10)
    assert not call.done()
    commands.receive(b"7")
    assert await call == 7
    await commands.stop()


async def test_a_call_to_a_connection_that_was_ended_fails() -> None:
    commands, _ = await connect()
    await commands.stop()
    with pytest.raises(BrokerError):
        await commands.call(get(0))


# Background tasks


async def test_a_task_that_raises_is_reported_and_started_again() -> None:
    failures: list[BaseException] = []
    tasks = BackgroundTasks(failures.append)
    cancelled: Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    runs: list[None] = []

    async def work() -> None:
        runs.append(None)
        if len(runs) == 1:
            raise ValueError("the first run")
        if len(runs) == 2:
            await cancelled

    async with asyncio.timeout(WAIT_S):
        await tasks.start(work)
    assert len(runs) == 3
    assert [type(failure) for failure in failures] == [ValueError, asyncio.CancelledError]


async def test_tasks_end_when_they_are_stopped() -> None:
    failures: list[BaseException] = []
    tasks = BackgroundTasks(failures.append)
    running = [tasks.start(lambda: asyncio.sleep(60)) for _ in range(3)]
    await asyncio.sleep(0)
    await tasks.stop()
    assert all(task.cancelled() for task in running)
    assert failures == []


async def test_a_supervisor_goes_on_after_anything_that_opening_a_connection_raises() -> None:
    failures: list[BaseException] = []
    attempts = asyncio.Semaphore(0)

    async def open_connection(_: Callable[[Reply], None]) -> tuple[RedisConnection, bytes]:
        attempts.release()
        raise KeyError("redis_version")

    supervisor = ConnectionSupervisor(open_connection, BackgroundTasks(failures.append))
    async with asyncio.timeout(WAIT_S):
        assert isinstance(await supervisor.tried, RedisConnectionError)
        for _ in range(3):
            await attempts.acquire()
    await supervisor.stop()
    assert "redis_version" in supervisor.failure
    assert {type(failure) for failure in failures} == {KeyError}


# Connections


async def test_a_supervisor_ends_even_where_a_cancellation_is_forgotten() -> None:
    forgotten: list[None] = []

    async def open_connection(_: Callable[[Reply], None]) -> tuple[RedisConnection, bytes]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if forgotten:
                raise
            forgotten.append(None)
        raise RedisConnectionError("away")

    supervisor = ConnectionSupervisor(open_connection, BackgroundTasks(print))
    await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        await supervisor.stop()
    assert forgotten
