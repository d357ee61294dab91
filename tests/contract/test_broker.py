"""What `hub/broker/base.py` promises, on every broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Raw
from support.brokers import HARNESSES, Harness, Listener

from hub.broker.base import (
    ANNOUNCED_MAX,
    BUS_LOG_MAX,
    POSITION_TTL_S,
    REPEAT_S,
    Broker,
    BusLog,
    HistoryPolicy,
    Resumption,
)
from hub.broker.memory import MemoryBroker
from hub.broker.redis.broker import RedisBroker
from hub.protocol.messages import ClientInfo, DeltaPublication, Publication, StreamPosition

KEEP = HistoryPolicy(size=10, ttl_s=60)


@pytest.fixture(params=HARNESSES)
def harness(request: pytest.FixtureRequest) -> Harness:
    return HARNESSES[request.param]()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def broker(harness: Harness, listener: Listener) -> AsyncIterator[Broker]:
    broker = harness.broker()
    await listener.start(broker)
    yield broker
    await broker.stop()


def data(value: object) -> Raw:
    return Raw(str(value).encode())


def texts(publications: list[Publication]) -> list[str]:
    return [bytes(pub.data).decode() for pub in publications if isinstance(pub.data, Raw)]


def offsets(publications: list[Publication]) -> list[int]:
    return [publication.offset for publication in publications]


async def publish_many(broker: Broker, count: int, policy: HistoryPolicy = KEEP) -> StreamPosition:
    for number in range(1, count + 1):
        position = await broker.publish("c", data(number), history=policy)
    return position


# Delivery


async def test_a_publication_reaches_the_subscribed_node_unchanged(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    await broker.subscribe("c")
    info = ClientInfo("ann", "client-1", Raw(b'{"name": "Ann"}'), Raw(b"[1]"))
    text = Raw('{"b": 1.0,  "a":"\\u00e9 é\\n"}'.encode())
    position = await broker.publish("c", text, info=info, tags={"k": "v"})
    await harness.settle()
    assert position == StreamPosition(0, "")
    assert listener.heard == [("publication", "c", Publication(text, info, 0, {"k": "v"}), "")]


async def test_a_publication_that_may_be_a_delta_is_told_by_its_type(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    await broker.subscribe("c")
    await broker.publish("c", data(1), delta=True)
    await broker.publish("c", data(2), history=KEEP, delta=True)
    await broker.publish("c", data(3), history=KEEP)
    await broker.publish("c", data(4), idempotency_key="k", delta=True)
    await harness.settle()
    kinds = [type(publication) for _, _, publication, _ in listener.heard]
    assert kinds == [DeltaPublication, DeltaPublication, Publication, DeltaPublication]
    kept = (await broker.history("c")).publications
    assert [type(publication) for publication in kept] == [DeltaPublication, Publication]


async def test_only_subscribed_channels_are_delivered(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    await broker.publish("c", data(1))
    await broker.subscribe("c")
    await broker.publish("c", data(2))
    await broker.publish("C", data(0))
    await broker.publish("c:d", data(0))
    await broker.publish("*", data(0))
    await harness.settle()  # what is under way when a channel is given up is not delivered
    await broker.unsubscribe("c")
    await broker.publish("c", data(3))
    await harness.settle()
    assert texts(listener.publications("c")) == ["2"]
    assert len(listener.heard) == 1


async def test_subscribing_twice_delivers_once(broker: Broker, listener: Listener, harness: Harness) -> None:
    await broker.subscribe("c")
    await broker.subscribe("c")
    await broker.publish("c", data(1))
    await harness.settle()
    assert texts(listener.publications("c")) == ["1"]
    await broker.unsubscribe("c")
    await broker.unsubscribe("c")
    await broker.publish("c", data(2))
    await harness.settle()
    assert len(listener.heard) == 1


@pytest.mark.parametrize("policy", [None, KEEP])
async def test_order_is_kept_without_waiting(
    broker: Broker, listener: Listener, harness: Harness, policy: HistoryPolicy | None
) -> None:
    await broker.subscribe("c")
    await asyncio.gather(*(broker.publish("c", data(n), history=policy) for n in range(200)))
    await harness.settle()
    assert texts(listener.publications("c")) == [str(n) for n in range(200)]


async def test_what_came_together_over_a_link_is_said_to_be_all_of_it(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    await broker.subscribe("c")
    listener.caught_up.clear()
    await asyncio.gather(*(broker.publish("c", data(n)) for n in range(200)))
    await harness.settle()
    assert len(listener.heard) == 200
    if not isinstance(broker, MemoryBroker):
        assert listener.caught_up[-1] == 200
        assert len(set(listener.caught_up)) < 100


async def test_joins_and_leaves(broker: Broker, listener: Listener, harness: Harness) -> None:
    info = ClientInfo("ann", "client-1", Raw(b"1"))
    await broker.publish_join("c", info)
    await broker.subscribe("c")
    await broker.publish_join("c", info)
    await broker.publish_leave("c", info)
    await broker.publish_leave("other", info)
    await harness.settle()
    assert listener.heard == [("join", "c", info), ("leave", "c", info)]
    assert (await broker.history("c")).publications == []


async def test_nothing_is_heard_after_stop(harness: Harness, listener: Listener) -> None:
    broker = harness.broker()
    await listener.start(broker)
    await broker.subscribe("c")
    published = broker.publish("c", data(1))
    await published
    await harness.settle()
    await broker.stop()
    heard = len(listener.heard)
    await asyncio.sleep(0)
    assert heard == len(listener.heard) == 1


# Offsets, epochs and history


async def test_offsets_grow_by_one_in_one_epoch(broker: Broker, listener: Listener, harness: Harness) -> None:
    await broker.subscribe("c")
    positions = [await broker.publish("c", data(n), history=KEEP) for n in range(5)]
    assert [position.offset for position in positions] == [1, 2, 3, 4, 5]
    assert len({position.epoch for position in positions}) == 1
    assert positions[0].epoch
    await harness.settle()
    assert offsets(listener.publications("c")) == [1, 2, 3, 4, 5]
    assert {item[3] for item in listener.heard} == {positions[0].epoch}


async def test_concurrent_publishers_share_one_order(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    policy = HistoryPolicy(size=1_000, ttl_s=60)
    await broker.subscribe("c")

    async def publisher(name: int) -> list[tuple[int, str]]:
        sent = []
        for number in range(50):
            text = str(name * 1_000 + number)
            position = await broker.publish("c", data(text), history=policy)
            sent.append((position.offset, text))
            await asyncio.sleep(0)
        return sent

    sent = [pair for pairs in await asyncio.gather(*map(publisher, range(1, 5))) for pair in pairs]
    await harness.settle()
    assert [offset for offset, _ in sorted(sent)] == list(range(1, 201))
    delivered = listener.publications("c")
    kept = (await broker.history("c")).publications
    for publications in (delivered, kept):
        assert list(zip(offsets(publications), texts(publications), strict=True)) == sorted(sent)


async def test_channels_have_streams_of_their_own(broker: Broker) -> None:
    one = await broker.publish("one", data(1), history=KEEP)
    two = await broker.publish("two", data(2), history=KEEP)
    assert (one.offset, two.offset) == (1, 1)
    assert one.epoch != two.epoch
    assert texts((await broker.history("one")).publications) == ["1"]


async def test_history_holds_publications_as_they_were_sent(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    await broker.subscribe("c")
    info = ClientInfo("ann", "client-1", Raw(b'{"n":1}'), Raw(b"2"))
    position = await broker.publish("c", data("[1,  2]"), info=info, tags={"k": "v"}, history=KEEP)
    stream = await broker.history("c")
    await harness.settle()
    assert stream.top == position
    assert stream.publications == listener.publications("c")
    [kept] = stream.publications
    assert kept == Publication(Raw(b"[1,  2]"), info, 1, {"k": "v"}, False, kept.time)
    assert kept.time > 0


async def test_publications_without_history_leave_no_trace_in_it(broker: Broker) -> None:
    first = await broker.publish("c", data(1), history=KEEP)
    assert await broker.publish("c", data(2)) == StreamPosition(0, "")
    second = await broker.publish("c", data(3), history=KEEP)
    assert (second.offset, second.epoch) == (2, first.epoch)
    assert texts((await broker.history("c")).publications) == ["1", "3"]


async def test_a_new_channel_has_an_epoch_that_lasts(broker: Broker) -> None:
    stream = await broker.history("c")
    assert stream.publications == []
    assert stream.top.offset == 0
    assert stream.top.epoch
    assert (await broker.history("c", limit=0)).top == stream.top
    assert await broker.publish("c", data(1), history=KEEP) == StreamPosition(1, stream.top.epoch)


async def test_the_oldest_are_trimmed(broker: Broker) -> None:
    position = await publish_many(broker, 15)
    stream = await broker.history("c")
    assert offsets(stream.publications) == list(range(6, 16))
    assert stream.top == position
    await broker.publish("c", data(16), history=HistoryPolicy(size=3, ttl_s=60))
    assert offsets((await broker.history("c")).publications) == [14, 15, 16]


async def test_history_ends_after_its_time_and_the_position_stays(broker: Broker, harness: Harness) -> None:
    policy = HistoryPolicy(size=10, ttl_s=2)
    await publish_many(broker, 2, policy)
    await harness.advance(1.5)
    position = await broker.publish("c", data(3), history=policy)
    await harness.advance(1.5)
    assert offsets((await broker.history("c")).publications) == [1, 2, 3]
    await harness.advance(1)
    stream = await broker.history("c")
    assert (stream.publications, stream.top) == ([], position)
    following = await broker.publish("c", data(4), history=policy)
    assert following == StreamPosition(4, position.epoch)
    assert offsets((await broker.history("c")).publications) == [4]


async def test_history_remove_keeps_the_position(broker: Broker) -> None:
    position = await publish_many(broker, 3)
    await broker.history_remove("c")
    stream = await broker.history("c")
    assert (stream.publications, stream.top) == ([], position)
    assert await broker.publish("c", data(4), history=KEEP) == StreamPosition(4, position.epoch)
    assert offsets((await broker.history("c")).publications) == [4]
    await broker.history_remove("never seen")


@pytest.mark.parametrize(
    ("since", "limit", "reverse", "expected"),
    [
        # The history holds 6 to 15.
        (None, -1, False, [6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        (None, 3, False, [6, 7, 8]),
        (None, 100, False, [6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        (None, 0, False, []),
        (None, -1, True, [15, 14, 13, 12, 11, 10, 9, 8, 7, 6]),
        (None, 3, True, [15, 14, 13]),
        (None, 100, True, [15, 14, 13, 12, 11, 10, 9, 8, 7, 6]),
        (None, 0, True, []),
        (12, -1, False, [13, 14, 15]),
        (12, 2, False, [13, 14]),
        (12, 0, False, []),
        (15, -1, False, []),
        (99, -1, False, []),
        (0, -1, False, [6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        (3, 2, False, [6, 7]),
        (9, -1, True, [8, 7, 6]),
        (9, 2, True, [8, 7]),
        (9, 0, True, []),
        (6, -1, True, []),
        (3, -1, True, []),
        (0, 5, True, []),
        (16, 2, True, [15, 14]),
        (99, 2, True, [15, 14]),
    ],
)
async def test_reading_history(
    broker: Broker, since: int | None, limit: int, reverse: bool, expected: list[int]
) -> None:
    top = await publish_many(broker, 15)
    position = None if since is None else StreamPosition(since, top.epoch)
    stream = await broker.history("c", since=position, limit=limit, reverse=reverse)
    assert offsets(stream.publications) == expected
    assert texts(stream.publications) == [str(offset) for offset in expected]
    assert stream.top == top


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_read_of_history_is_bounded_in_bytes(broker: Broker, reverse: bool) -> None:
    policy = HistoryPolicy(size=1_000, ttl_s=60)
    for number in range(1, 301):
        await broker.publish("c", data('"' + "x" * (number % 7 * 10) + '"'), history=policy)
    whole = offsets((await broker.history("c", reverse=reverse)).publications)
    stream = await broker.history("c", reverse=reverse, bytes_max=4_000)
    assert stream.top.offset == 300
    sizes = [len(bytes(pub.data)) for pub in stream.publications if isinstance(pub.data, Raw)]
    assert 1_000 < sum(sizes[:-1]) < 4_000
    assert offsets(stream.publications) == whole[: len(sizes)]
    assert len((await broker.history("c", reverse=reverse, bytes_max=1)).publications) == 1
    assert len((await broker.history("c", reverse=reverse, bytes_max=4_000, limit=7)).publications) == 7
    assert (await broker.history("c", reverse=reverse, bytes_max=10**9)).publications[-1].offset == whole[-1]
    rest = await broker.history("c", since=StreamPosition(290, stream.top.epoch), bytes_max=10**6)
    assert offsets(rest.publications) == list(range(291, 301))
    assert (await broker.history("c", bytes_max=1, limit=0)).publications == []
    assert (await broker.history("other", bytes_max=1)).publications == []


async def test_the_epoch_of_since_is_the_callers_to_compare(broker: Broker) -> None:
    top = await publish_many(broker, 3)
    stream = await broker.history("c", since=StreamPosition(2, "another"))
    assert offsets(stream.publications) == [3]
    assert stream.top == top


async def test_a_read_is_not_changed_by_what_follows(broker: Broker) -> None:
    await publish_many(broker, 2)
    stream = await broker.history("c")
    await publish_many(broker, 20)
    await broker.history_remove("c")
    assert offsets(stream.publications) == [1, 2]


async def test_concurrent_reads(broker: Broker) -> None:
    top = await publish_many(broker, 12)
    asked = [
        (None, -1, False),
        (9, -1, False),
        (None, 0, False),
        (11, -1, False),
        (3, 2, False),
        (9, 2, True),
    ]
    expected = [list(range(3, 13)), [10, 11, 12], [], [12], [4, 5], [8, 7]]
    reads = [
        broker.history(
            "c",
            since=None if since is None else StreamPosition(since, top.epoch),
            limit=limit,
            reverse=reverse,
        )
        for since, limit, reverse in asked * 5
    ]
    streams = await asyncio.gather(*reads)
    assert [offsets(stream.publications) for stream in streams] == expected * 5
    assert {stream.top for stream in streams} == {top}


async def test_a_read_sees_what_was_published_before_it(broker: Broker) -> None:
    reads = []
    for number in range(5):
        reads.append(broker.history("c"))
        position = await broker.publish("c", data(number), history=KEEP)
        reads.append(broker.history("c"))
        assert (await reads[-1]).top == position
    assert [len((await read).publications) for read in reads[1::2]] == [1, 2, 3, 4, 5]


async def test_positions_of_many_channels(broker: Broker, harness: Harness) -> None:
    tops = {}
    for number, name in enumerate("abc", 1):
        for _ in range(number):
            tops[name] = await broker.publish(name, data(0), history=KEEP)
    tops["read"] = (await broker.history("read")).top
    await broker.publish("unnumbered", data(0))
    asked = ["a", "never seen", "b", "c", "unnumbered", "read"]
    assert await broker.positions(asked) == tops
    assert await broker.positions(asked) == tops, "asking makes no position"
    assert await broker.positions([]) == {}
    await harness.advance(POSITION_TTL_S + 1)
    assert await broker.positions(asked) == {}


async def test_a_renewed_position_is_kept_longer(broker: Broker, harness: Harness) -> None:
    names = [f"c{number}" for number in range(600)]
    for name in names[::2]:
        await broker.publish(name, data(1), history=KEEP)
    tops = await broker.positions(names)
    assert len(tops) == 300
    await harness.advance(POSITION_TTL_S - 10)
    assert await broker.positions(names[:300], renew=True) == {name: tops[name] for name in names[:300:2]}
    await harness.advance(20)
    assert await broker.positions(names) == {name: tops[name] for name in names[:300:2]}


async def test_a_renewal_never_shortens_the_time_of_a_position(broker: Broker, harness: Harness) -> None:
    policy = HistoryPolicy(size=10, ttl_s=2 * POSITION_TTL_S)
    top = await broker.publish("c", data(1), history=policy)
    await broker.positions(["c"], renew=True)
    await harness.advance(POSITION_TTL_S + 10)
    assert await broker.positions(["c"]) == {"c": top}


async def test_a_position_is_forgotten_with_its_epoch(broker: Broker, harness: Harness) -> None:
    first = await broker.publish("c", data(1), history=KEEP)
    await harness.advance(POSITION_TTL_S - 10)
    assert (await broker.history("c")).top == first
    await harness.advance(20)
    following = await broker.publish("c", data(2), history=KEEP)
    assert following.offset == 1
    assert following.epoch != first.epoch
    assert texts((await broker.history("c")).publications) == ["2"]


# Idempotency


@pytest.mark.parametrize("policy", [None, KEEP])
async def test_a_key_publishes_once(
    broker: Broker, listener: Listener, harness: Harness, policy: HistoryPolicy | None
) -> None:
    await broker.subscribe("c")
    first = await broker.publish("c", data(1), history=policy, idempotency_key="k")
    await broker.publish("c", data(2), history=policy)
    again = await broker.publish("c", data(1), history=policy, idempotency_key="k")
    await harness.settle()
    assert again == first
    assert texts(listener.publications("c")) == ["1", "2"]


async def test_a_key_belongs_to_its_channel(broker: Broker, listener: Listener, harness: Harness) -> None:
    for channel in ("c", "d"):
        await broker.subscribe(channel)
        await broker.publish(channel, data(1), idempotency_key="k")
        await broker.publish(channel, data(2), idempotency_key="other")
    await harness.settle()
    assert texts(listener.publications("c")) == texts(listener.publications("d")) == ["1", "2"]


async def test_concurrent_publishes_with_a_key(broker: Broker, listener: Listener, harness: Harness) -> None:
    await broker.subscribe("c")
    calls = (broker.publish("c", data(n), history=KEEP, idempotency_key="k") for n in range(20))
    positions = await asyncio.gather(*calls)
    await harness.settle()
    assert {position.offset for position in positions} == {1}
    assert len(listener.heard) == 1


async def test_a_key_is_forgotten_after_five_minutes(broker: Broker, harness: Harness) -> None:
    await broker.publish("c", data(1), history=KEEP, idempotency_key="k")
    await harness.advance(299)
    again = await broker.publish("c", data(1), history=KEEP, idempotency_key="k")
    assert again.offset == 1
    await harness.advance(2)
    later = await broker.publish("c", data(1), history=KEEP, idempotency_key="k")
    assert later.offset == 2
    await harness.advance(299)
    assert (await broker.publish("c", data(1), history=KEEP, idempotency_key="k")).offset == 2


# Presence

ANN = ClientInfo("ann", "client-1", Raw(b'{"name": "Ann"}'), Raw(b"[1]"))
BOB = ClientInfo("bob", "client-2")


async def test_presence(broker: Broker) -> None:
    assert await broker.presence("c") == {}
    await broker.presence_add("c", "client-1", ANN, 60)
    await broker.presence_add("c", "client-2", BOB, 60)
    await broker.presence_add("d", "client-2", BOB, 60)
    assert await broker.presence("c") == {"client-1": ANN, "client-2": BOB}
    await broker.presence_remove("c", "client-1")
    await broker.presence_remove("c", "client-1")
    assert await broker.presence("c") == {"client-2": BOB}
    await broker.presence_remove("c", "client-2")
    assert await broker.presence("c") == {}
    assert await broker.presence("d") == {"client-2": BOB}
    await broker.presence_remove("never seen", "client-1")


async def test_presence_ends_unless_it_is_repeated(broker: Broker, harness: Harness) -> None:
    await broker.presence_add("c", "client-1", ANN, 2)
    await broker.presence_add("c", "client-2", BOB, 2)
    await harness.advance(1.5)
    await broker.presence_add("c", "client-1", ANN, 2)
    await harness.advance(1)
    assert await broker.presence("c") == {"client-1": ANN}
    await harness.advance(1.5)
    assert await broker.presence("c") == {}


async def test_presence_takes_the_newest_info(broker: Broker) -> None:
    await broker.presence_add("c", "client-1", BOB, 60)
    await broker.presence_add("c", "client-1", ANN, 60)
    assert await broker.presence("c") == {"client-1": ANN}


# Sessions


async def resume(
    broker: Broker, owners: str, owner: str, client: str = "c-1", user: str = "ann"
) -> Resumption:
    return await broker.session_resume(user, client, owners.split(), owner, 60)


async def test_a_session_goes_from_socket_to_socket(broker: Broker) -> None:
    assert await resume(broker, "s1", "s2") == Resumption("resumed")
    assert await resume(broker, "s2", "s3") == Resumption("resumed")
    assert await resume(broker, "s9", "s8", client="c-2") == Resumption("resumed")
    assert await resume(broker, "s9", "s8", client="c-1", user="ben") == Resumption("resumed")


async def test_a_second_use_ends_the_session(broker: Broker) -> None:
    await resume(broker, "s1", "s2")
    assert await resume(broker, "s1", "s3") == Resumption("reused")
    assert await resume(broker, "s2", "s4") == Resumption("revoked")
    assert await resume(broker, "s1", "s5") == Resumption("revoked")


async def test_of_many_at_once_one_gets_it(broker: Broker, harness: Harness) -> None:
    other = harness.broker()
    await Listener().start(other)
    one_store = isinstance(broker, RedisBroker)
    brokers = [broker, other if one_store else broker]
    found = await asyncio.gather(*(resume(brokers[n % 2], "s1", f"t{n}") for n in range(50)))
    await other.stop()
    verdicts = [each.verdict for each in found]
    assert (verdicts.count("resumed"), verdicts.count("reused"), verdicts.count("revoked")) == (1, 1, 48)


async def test_any_of_those_that_are_named_may_have_had_it(broker: Broker) -> None:
    await resume(broker, "s1", "s2")
    assert await resume(broker, "s4 s3 s2", "s5") == Resumption("resumed")


async def test_a_session_is_forgotten_in_its_time(broker: Broker, harness: Harness) -> None:
    await resume(broker, "s1", "s2")
    await harness.advance(59)
    await resume(broker, "s2", "s3")
    await harness.advance(59)
    assert await resume(broker, "s3", "s4") == Resumption("resumed")
    await harness.advance(61)
    assert await resume(broker, "s1", "s5") == Resumption("resumed")


async def test_a_socket_that_was_not_heard_gives_the_session_back(broker: Broker, harness: Harness) -> None:
    await resume(broker, "s1", "s2")
    assert await broker.session_leave("ann", "c-1", "s2", 60, before="s1")
    assert await resume(broker, "s1", "s3") == Resumption("repeated")
    assert await resume(broker, "s2", "s4") == Resumption("reused"), "its own token is not good any more"
    await resume(broker, "s1", "s2", client="c-2")
    await broker.session_leave("ann", "c-2", "s2", 60, before="s1")
    assert await resume(broker, "s2", "s3", client="c-2") == Resumption("resumed")
    assert await resume(broker, "s1", "s4", client="c-2") == Resumption("reused")


async def test_it_does_so_for_a_short_time(broker: Broker, harness: Harness) -> None:
    await resume(broker, "s1", "s2")
    await broker.session_leave("ann", "c-1", "s2", 60, before="s1")
    await harness.advance(REPEAT_S + 0.1)
    assert await resume(broker, "s1", "s3") == Resumption("reused")


async def test_only_the_socket_that_has_a_session_leaves_it(broker: Broker) -> None:
    await resume(broker, "s1", "s2")
    assert not await broker.session_leave("ann", "c-1", "s1", 60)
    assert not await broker.session_leave("ann", "c-1", "s1", 60, before="s0")
    assert await broker.session_leave("ann", "c-1", "s2", 60)
    assert await resume(broker, "s2", "s3") == Resumption("resumed", lapsed=True)
    assert await resume(broker, "s3", "s4") == Resumption("resumed")


async def test_one_that_nobody_knows_of_leaves_too(broker: Broker, harness: Harness) -> None:
    assert await broker.session_leave("ann", "c-1", "s1", 60)
    assert await resume(broker, "s1", "s2") == Resumption("resumed", lapsed=True)
    assert await broker.session_leave("ann", "c-2", "s1", 60)
    await harness.advance(61)
    assert await resume(broker, "s9", "s2", client="c-2") == Resumption("resumed")


async def test_a_resumption_tells_the_last_announcements(broker: Broker, harness: Harness) -> None:
    async def announced(channel: str, joined: bool) -> None:
        await broker.session_announced("ann", "c-1", channel, joined=joined, ttl_s=60)

    await announced("a", True)
    await announced("b", True)
    await announced("b", False)
    known = {"a": True, "b": False}
    assert await resume(broker, "s1", "s2") == Resumption("resumed", announced=known)
    await announced("b", True)
    known = {"a": True, "b": True}
    assert await resume(broker, "s2", "s3") == Resumption("resumed", announced=known), "they stay known"
    assert await broker.session_leave("ann", "c-1", "s3", 60)
    assert await resume(broker, "s3", "s4") == Resumption("resumed", lapsed=True), "a leave ends them all"
    await announced("c", True)
    await harness.advance(61)
    assert await resume(broker, "s9", "s2") == Resumption("resumed")


async def test_announcements_of_a_session_are_bounded(broker: Broker) -> None:
    for number in range(ANNOUNCED_MAX + 1):
        await broker.session_announced("ann", "c-1", f"a{number}", joined=True, ttl_s=60)
    await broker.session_announced("ann", "c-1", "a0", joined=False, ttl_s=60)
    resumption = await resume(broker, "s1", "s2")
    assert len(resumption.announced) == ANNOUNCED_MAX
    assert not resumption.announced["a0"]


async def test_a_session_known_by_an_announcement_alone_is_left(broker: Broker) -> None:
    await broker.session_announced("ann", "c-1", "a", joined=True, ttl_s=60)
    assert await broker.session_leave("ann", "c-1", "s1", 60)
    assert await resume(broker, "s1", "s2") == Resumption("resumed", lapsed=True)


async def test_a_revoked_session_is_nobodys(broker: Broker, harness: Harness) -> None:
    await resume(broker, "s1", "s2")
    await broker.session_revoke("ann", "c-1", 60)
    assert await resume(broker, "s2", "s3") == Resumption("revoked")
    assert await broker.session_leave("ann", "c-1", "s2", 60)
    assert await resume(broker, "s2", "s3") == Resumption("revoked")
    assert await resume(broker, "s1", "s2", client="c-2") == Resumption("resumed")
    await harness.advance(61)
    assert await resume(broker, "s2", "s3") == Resumption("resumed")


async def test_all_sessions_of_a_user_are_revoked(broker: Broker, harness: Harness) -> None:
    await broker.session_revoke("ann", "", 60)
    for client in ("c-1", "c-2"):
        assert await resume(broker, "s1", "s2", client=client) == Resumption("revoked")
    assert await resume(broker, "s1", "s2", user="ben") == Resumption("resumed")
    await broker.session_revoke("", "", 60)
    assert await resume(broker, "s1", "s2", user="") == Resumption("resumed"), (
        "those without a name are apart"
    )
    await harness.advance(30)
    await broker.session_revoke("ann", "", 60)
    await harness.advance(31)
    assert await resume(broker, "s1", "s2") == Resumption("revoked"), "the newest counts"
    await harness.advance(31)
    assert await resume(broker, "s1", "s2") == Resumption("resumed")


async def test_a_user_may_be_called_anything(broker: Broker) -> None:
    for user in ("}{", "\0", "ä*?[\r\n", "a" * 1000, "\0c-1"):
        await resume(broker, "s1", "s2", user=user)
        assert await resume(broker, "s1", "s3", user=user) == Resumption("reused")


# Nodes


async def test_a_control_message_reaches_every_node(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    message = bytes(range(256))
    assert await broker.send_bus(message) == 1
    assert await broker.send_bus(b"") == 1
    await harness.settle()
    assert listener.bus == [(message, ""), (b"", "")]
    assert listener.heard == []


async def test_a_control_message_to_one_node_reaches_no_other(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    for number in range(3):
        assert await broker.send_bus(b"%d" % number, listener.id) == 1
        assert await broker.send_bus(b"for another", "0" * 16) == 0
    await harness.settle()
    assert listener.bus == [(b"0", ""), (b"1", ""), (b"2", "")]


async def test_a_message_in_the_log_is_sent_with_its_id(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    messages = [b"one", b"", bytes(range(256)), b"two words"]
    ids = [await broker.append_bus(message) for message in messages]
    await broker.send_bus(b"not in the log")
    await harness.settle()
    assert listener.bus == [*zip(messages, ids, strict=True), (b"not in the log", "")]
    log = await broker.read_bus("", 100)
    assert log == BusLog(list(zip(ids, messages, strict=True)), ids[-1], is_complete=True)


async def test_the_log_of_the_bus_is_read_from_any_entry(broker: Broker) -> None:
    empty = await broker.read_bus("", 0)
    assert (empty.entries, empty.is_complete) == ([], True)
    ids = [await broker.append_bus(b"%d" % number) for number in range(10)]
    entries = [(id_, b"%d" % number) for number, id_ in enumerate(ids)]
    assert (await broker.read_bus(empty.last, 100)).entries == entries
    for number, id_ in enumerate(ids):
        assert await broker.read_bus(id_, 100) == BusLog(entries[number + 1 :], ids[-1], is_complete=True)
    assert await broker.read_bus(ids[2], 3) == BusLog(entries[3:6], ids[-1], is_complete=True)
    assert await broker.read_bus(ids[2], 0) == BusLog([], ids[-1], is_complete=True)


async def test_concurrent_messages_are_in_the_log_in_the_order_in_which_they_arrive(
    broker: Broker, listener: Listener, harness: Harness
) -> None:
    ids = await asyncio.gather(*(broker.append_bus(b"%d" % number) for number in range(200)))
    await harness.settle()
    assert len(set(ids)) == 200
    log = await broker.read_bus("", 1_000)
    assert [(message, id_) for id_, message in log.entries] == listener.bus


async def test_the_log_of_the_bus_keeps_the_newest_messages(broker: Broker) -> None:
    first = await broker.append_bus(b"first")
    ids: list[str] = []
    while len(ids) < BUS_LOG_MAX + 5:
        ids += await asyncio.gather(*(broker.append_bus(b"x") for _ in range(1_001)))
    log = await broker.read_bus("", BUS_LOG_MAX * 2)
    assert [id_ for id_, _ in log.entries] == ids[-BUS_LOG_MAX:]
    assert not log.is_complete
    trimmed = await broker.read_bus(first, 10)
    assert (trimmed.is_complete, trimmed.is_lost) == (False, False)
    assert (await broker.read_bus(ids[-5], 10)).is_complete


async def test_a_broker_that_is_well_tells_of_no_state_and_no_gap(broker: Broker, listener: Listener) -> None:
    await broker.subscribe("c")
    assert (listener.states, listener.gaps) == ([], 0)
