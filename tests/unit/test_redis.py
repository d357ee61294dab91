"""hub/broker/redis, what of it needs no Redis: URLs, envelopes, positions, shared reads."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import Future
from collections.abc import Callable

import msgspec
import pytest
from msgspec import Raw

from hub.broker.base import Stream
from hub.broker.redis import envelope
from hub.broker.redis.commands import Call, CommandConnection, Limits
from hub.broker.redis.connection import Address, Connection, RedisConnectionError, Reply, pack
from hub.broker.redis.connection_supervisor import BACKOFF_MAX_S, ConnectionSupervisor, backoff_s
from hub.broker.redis.names import Names
from hub.broker.redis.positions import Positions, Seen
from hub.broker.redis.reads import Reads
from hub.broker.redis.topology import topology_of
from hub.errors import StartupError
from hub.protocol.messages import NO_PAYLOAD, ClientInfo, Publication, StreamPosition

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


async def test_sentinel() -> None:
    topology = topology_of("redis+sentinel://a:p@s1:1,s2/main/4", 1.0)
    assert not topology.sharded
    assert (topology.access.username, topology.access.db) == ("a", 4)
    await topology.close()


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


# Positions


def test_the_highest_offset_of_an_epoch_counts() -> None:
    positions = Positions()
    for epoch, offset in (("a", 2), ("a", 1), ("b", 1)):
        positions.note(b"c", epoch, offset)
    positions.note(b"d", "a", 5)
    positions.note(b"d", "a", 4)
    positions.doubt(b"i")
    assert positions.doubtful == {b"c": Seen("b", 1, b"i"), b"d": Seen("a", 5, b"i")}


def test_what_is_doubtful_stays_so_until_it_is_verified() -> None:
    positions = Positions()
    positions.note(b"c", "a", 5)
    positions.doubt(b"one")
    positions.note(b"c", "a", 3)
    positions.doubt(b"two")
    assert positions.doubtful == {b"c": Seen("a", 5, b"one")}


def test_positions_are_forgotten_unless_they_are_wanted() -> None:
    positions = Positions()
    positions.note(b"wanted", "a", 1)
    positions.note(b"other", "a", 1)
    positions.rotate({b"wanted"})
    assert positions.names() == {b"wanted", b"other"}
    positions.rotate({b"wanted"})
    positions.rotate({b"wanted"})
    assert positions.names() == {b"wanted"}
    assert positions.take(b"wanted", b"i") == Seen("a", 1, b"i")
    assert positions.take(b"wanted", b"i") is None
    assert positions.names() == set()


# Reads


class History:
    """Reads that end when they are told to, of a channel that holds 1 to 10."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, int, bool]] = []
        self.futures: list[Future[Stream]] = []

    def __call__(self, name: bytes, since: int | None, limit: int, reverse: bool) -> Future[Stream]:
        self.asked.append((since, limit, reverse))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def end(self, number: int) -> None:
        since, limit, _ = self.asked[number]
        offsets = range((since or 0) + 1, 11) if limit else range(0)
        publications = [Publication(Raw(b"1"), None, offset) for offset in offsets]
        self.futures[number].set_result(Stream(publications, StreamPosition(10, "e")))


async def test_a_thousand_reads_of_a_channel_are_two() -> None:
    history = History()
    reads = Reads(history)
    futures = [reads.read(b"c", since % 10, -1, False) for since in range(1_000)]
    futures += [reads.read(b"c", None, 0, False) for _ in range(10)]
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
    reads = Reads(history)
    asked = [
        (None, 3, False),
        (None, 3, False),
        (4, 3, False),
        (None, -1, True),
        (7, 0, False),
        (8, -1, False),
    ]
    futures = [reads.read(b"c", *each) for each in asked]
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
    reads = Reads(history)
    futures = [reads.read(b"c", None, -1, False) for _ in range(3)]
    history.futures[0].set_exception(OSError("one"))
    await asyncio.wait([futures[0]])
    history.futures[1].set_exception(OSError("two"))
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["one", "two", "two"]
    third = reads.read(b"c", None, -1, False)
    history.end(2)
    assert (await third).top.offset == 10


def test_back_off_is_bounded_and_jittered() -> None:
    for attempt in (0, 3, 10, 10_000):
        waits = [backoff_s(attempt) for _ in range(100)]
        assert 0 <= min(waits) < max(waits) <= min(BACKOFF_MAX_S, 0.05 * 2 ** min(attempt, 16))


async def test_calls_leave_together_when_they_are_told_to_or_in_the_next_turn() -> None:
    written: list[bytes] = []

    class Wire(Connection):
        def write(self, data: bytes) -> None:
            written.append(data)

        def abort(self, reason: str) -> None:
            self.lost.set_result(reason)

    async def open_connection(receive: Callable[[Reply], None]) -> tuple[Connection, bytes]:
        return Wire(receive), b"one"

    publisher = CommandConnection(
        open_connection, Limits(), lambda incarnation: None, lambda call, error: None
    )
    await publisher.tried
    calls = [(b"GET", b"%d" % number) for number in range(5)]

    def call(*numbers: int) -> None:
        for number in numbers:
            publisher.call(Call(calls[number], int, None)).add_done_callback(Future.exception)

    call(0, 1)
    assert not written
    publisher.flush()
    assert written == [pack(calls[0]) + pack(calls[1])]
    call(2, 3)
    await asyncio.sleep(0)
    assert written[1:] == [pack(calls[2]) + pack(calls[3])]
    call(4)
    await asyncio.sleep(0)
    assert written[2:] == [pack(calls[4])]
    await publisher.stop()


async def test_a_keeper_ends_even_where_a_cancellation_is_forgotten() -> None:
    forgotten: list[None] = []

    async def open_connection(_: Callable[[Reply], None]) -> tuple[Connection, bytes]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if forgotten:
                raise
            forgotten.append(None)
        raise RedisConnectionError("away")

    keeper = ConnectionSupervisor(open_connection)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await keeper.stop()
    assert forgotten
