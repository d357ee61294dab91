"""hub/node/followers.py with a broker that fails, is late or returns garbage."""

from __future__ import annotations

import asyncio
import itertools
import time
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from msgspec import Raw

from hub.broker.base import Stream
from hub.broker.memory import MemoryBroker
from hub.core.channel.follower import FAILURES_MAX
from hub.errors import BrokerError
from hub.node import comparison, followed_channel, followers, repairs
from hub.node.boundary import Boundary
from hub.node.environment import Clock
from hub.node.followers import Followers
from hub.protocol.messages import Publication, StreamPosition
from hub.telemetry import Metrics

EPOCH = "epoch"


def pub(offset: int) -> Publication:
    return Publication(Raw(b"%d" % offset), offset=offset)


def at(offset: int) -> StreamPosition:
    return StreamPosition(offset, EPOCH)


class Broker(MemoryBroker):
    """Channels that a test fills. Reads end at the next turn of the loop, as `faults` says."""

    def __init__(self) -> None:
        super().__init__()
        self.tops: dict[str, int] = {}
        self.faults: Callable[[str], Any] = lambda name: None
        self.compare_fault: Callable[[], Any] = lambda: None
        self.reads: list[str] = []
        self.compared: list[list[str]] = []
        self.renewed: set[str] = set()
        self.in_progress = self.in_progress_max = 0
        self.slices = self.slices_max = 0

    def subscribe(self, channel: str) -> Future[None]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def unsubscribe(self, channel: str) -> Future[None]:
        return self.subscribe(channel)

    def history(
        self, channel: str, *, since: StreamPosition | None = None, limit: int = -1, **more: Any
    ) -> Future[Stream]:
        self.reads.append(channel)
        if self.faults(channel) == "raises at once":
            raise ValueError("unreadable")
        self.in_progress += 1
        self.in_progress_max = max(self.in_progress, self.in_progress_max)
        top = self.tops.get(channel, 0)
        first = since.offset if since else 0
        found = Stream([pub(offset) for offset in range(first + 1, top + 1)] if limit else [], at(top))
        result: Future[Any] = asyncio.get_running_loop().create_future()

        def answer() -> None:
            self.in_progress -= 1
            fault = self.faults(channel)
            if isinstance(fault, BaseException):
                result.set_exception(fault)
            elif fault != "never":
                result.set_result(found if fault is None else fault)

        asyncio.get_running_loop().call_soon(answer)
        return result

    def positions(self, channels: Sequence[str], *, renew: bool = False) -> Future[dict[str, StreamPosition]]:
        self.compared.append(list(channels))
        if renew:
            self.renewed.update(channels)
        self.slices += 1
        self.slices_max = max(self.slices, self.slices_max)
        result: Future[Any] = asyncio.get_running_loop().create_future()

        def answer() -> None:
            self.slices -= 1
            fault = self.compare_fault()
            if isinstance(fault, BaseException):
                result.set_exception(fault)
            elif fault != "never":
                known = {name: at(self.tops[name]) for name in channels if name in self.tops}
                result.set_result(known if fault is None else fault)

        asyncio.get_running_loop().call_soon(answer)
        return result


class Node:
    """What a node does with a follower's channels."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.delivered: dict[str, list[int]] = {}
        self.broken: list[str] = []
        self.states: list[bool] = []
        self.deliver_fails = False
        self.metrics = Metrics()
        self.followers = Followers(
            self.broker, Boundary(self.metrics), self.deliver, self.broken.append, self.changed, Clock()
        )

    def deliver(self, name: str, publication: Publication) -> None:
        if self.deliver_fails:
            raise RuntimeError("deliver")
        self.delivered.setdefault(name, []).append(publication.offset)

    def changed(self) -> None:
        self.states.append(self.followers.is_repairing)

    async def follow(self, *names: str, top: int = 0) -> None:
        """Follow channels that have publications up to `top`."""
        for name in names:
            self.broker.tops[name] = top
            self.followers.follow(name, 10)
        opened = [self.followers.open(name, None) for name in names]
        for future in opened:
            assert (await future).top == at(top)
        self.broker.reads.clear()

    def publish(self, name: str, *, lost: bool = False) -> None:
        offset = self.broker.tops[name] = self.broker.tops[name] + 1
        if not lost:
            self.followers.arrived(name, pub(offset), EPOCH)

    async def repaired(self) -> None:
        """Wait until a repair after a gap has ended."""
        async with asyncio.timeout(10):
            while self.followers.is_repairing:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(followers, "RETRY_S", 0.01)
    monkeypatch.setattr(comparison, "RETRY_S", 0.01)
    node = Node()
    yield node
    node.followers.stop()


FAULTS = {
    "fails": BrokerError("no"),
    "raises": ValueError("unreadable"),
    "is cancelled": asyncio.CancelledError(),
    "returns nothing": 7,
    "returns no publications": Stream([None, None], None),  # type: ignore[list-item,arg-type]
    "takes too long": "never",
    "raises at once": "raises at once",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_gap_whose_read_fails_for_ever_is_given_up(
    node: Node, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "READ_TIMEOUT_S", 0.05)
    await node.follow("a", "b", top=1)
    node.broker.faults = lambda name: fault if name == "a" else None
    node.publish("a", lost=True)
    node.publish("a")
    node.publish("a")
    await eventually(lambda: node.broken)
    assert node.broken == ["a"]
    assert node.delivered == {"a": [3, 4]}, "subscribers without a position get what arrived"
    assert node.broker.reads == ["a"] * FAILURES_MAX
    node.publish("a")
    assert node.delivered == {"a": [3, 4, 5]}, "it goes on from the newest publication"
    node.publish("b")
    assert node.delivered["b"] == [2]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("since", [None, at(1)])
async def test_new_subscribers_are_answered_where_reads_fail(
    node: Node, fault: Any, since: StreamPosition | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "READ_TIMEOUT_S", 0.05)
    node.broker.faults = lambda name: fault
    node.broker.tops["a"] = 3
    node.followers.follow("a", 10)
    with pytest.raises(BrokerError):
        await node.followers.open("a", since)
    node.broker.faults = lambda name: None
    assert (await node.followers.open("a", since)).top == at(3)


async def test_a_subscriber_waits_for_a_repair_for_a_limited_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_channel, "OPEN_TIMEOUT_S", 0.05)
    await node.follow("a", top=1)
    node.broker.faults = lambda name: "never"
    node.publish("a", lost=True)
    node.publish("a")
    with pytest.raises(BrokerError, match="being repaired"):
        await node.followers.open("a", None)


async def test_while_the_broker_is_away_nothing_is_given_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.follow("a", top=1)
    node.followers.is_broker_away = True
    node.broker.faults = lambda name: BrokerError("away")
    node.publish("a", lost=True)
    node.publish("a")
    await eventually(lambda: len(node.broker.reads) > 2 * FAILURES_MAX)
    node.followers.is_broker_away = False
    node.broker.faults = lambda name: None
    await eventually(lambda: node.delivered == {"a": [2, 3]})
    assert node.broken == []


async def test_after_a_gap_only_channels_that_differ_are_read(node: Node) -> None:
    names = [f"a{number}" for number in range(1_200)]
    await node.follow(*names, top=1)
    for name in names[::100]:
        node.publish(name, lost=True)
    del node.broker.tops["a7"]
    node.followers.doubt()
    assert node.followers.is_repairing
    await node.repaired()
    assert sorted(node.broker.reads) == sorted([*names[::100], "a7"])
    assert node.broker.slices_max == comparison.SLICES_MAX
    assert node.delivered == {name: [2] for name in names[::100]}
    assert node.broken == ["a7"]
    assert node.states == [True, False]


async def test_reads_after_a_gap_are_bounded_and_in_order(node: Node) -> None:
    names = [f"a{number}" for number in range(300)]
    await node.follow(*names, top=1)
    node.broker.in_progress_max = 0
    for name in names:
        node.publish(name, lost=True)
    node.followers.doubt()
    await node.repaired()
    assert node.broker.reads == names
    assert node.broker.in_progress_max == repairs.READS_MAX
    assert all(node.delivered[name] == [2] for name in names)


async def test_a_channel_with_pending_publications_is_repaired_first(node: Node) -> None:
    names = [f"a{number}" for number in range(300)]
    await node.follow(*names, top=1)
    for name in names:
        node.publish(name, lost=True)
    node.followers.doubt()
    await eventually(lambda: node.broker.reads)
    node.publish("a299")
    await eventually(lambda: "a299" in node.delivered)
    assert node.broker.reads.index("a299") < 150
    await node.repaired()
    assert node.delivered["a299"] == [2, 3]
    assert all(node.delivered[name] == [2] for name in names[:-1])


async def test_a_channel_that_catches_up_by_itself_is_not_read(node: Node) -> None:
    await node.follow("a", top=1)
    node.publish("a", lost=True)
    node.broker.compare_fault = lambda: node.followers.arrived("a", pub(2), EPOCH)
    node.followers.doubt()
    await node.repaired()
    assert node.broker.reads == []
    assert node.delivered == {"a": [2]}


@pytest.mark.parametrize("fault", [BrokerError("no"), ValueError("odd"), 7], ids=str)
async def test_a_slice_that_fails_is_compared_again(node: Node, fault: Any) -> None:
    await node.follow("a", top=1)
    node.publish("a", lost=True)
    faults = [fault] * 4
    node.broker.compare_fault = lambda: faults.pop() if faults else None
    node.followers.doubt()
    await node.repaired()
    assert len(node.broker.compared) == 5
    assert node.delivered == {"a": [2]}


async def test_a_slice_that_takes_too_long_is_compared_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "READ_TIMEOUT_S", 0.05)
    await node.follow("a", top=1)
    node.publish("a", lost=True)
    faults = ["never"]
    node.broker.compare_fault = lambda: faults.pop() if faults else None
    node.followers.doubt()
    await node.repaired()
    assert node.delivered == {"a": [2]}


async def test_a_second_gap_replaces_the_comparison(node: Node) -> None:
    names = [f"a{number}" for number in range(600)]
    await node.follow(*names, top=1)
    node.broker.compare_fault = lambda: BrokerError("no")
    node.followers.doubt()
    await eventually(lambda: len(node.broker.compared) > 3)
    for name in names:
        node.publish(name, lost=True)
    node.broker.compare_fault = lambda: None
    node.followers.doubt()
    await node.repaired()
    assert all(node.delivered[name] == [2] for name in names)
    assert node.states == [True, False]


async def test_who_recovers_before_the_repair_gets_what_this_node_missed(node: Node) -> None:
    await node.follow("a", top=1)
    node.publish("a", lost=True)
    node.publish("a", lost=True)
    node.broker.compare_fault = lambda: BrokerError("no")
    node.followers.doubt()
    opened = await node.followers.open("a", at(2))
    assert opened.recovery
    assert opened.recovery.recovered
    assert [publication.offset for publication in opened.recovery.publications] == [3]
    assert node.delivered == {"a": [2, 3]}


async def test_a_gap_during_the_first_read_is_repaired(node: Node) -> None:
    node.broker.tops["a"] = 1
    node.followers.follow("a", 10)
    opened = node.followers.open("a", None)
    node.publish("a", lost=True)
    node.followers.doubt()
    await node.repaired()
    assert (await opened).top in (at(1), at(2))
    await eventually(lambda: node.followers.is_current("a", at(2)))


async def test_a_delivery_that_raises_is_told_and_the_channel_goes_on(node: Node) -> None:
    await node.follow("a", top=1)
    node.deliver_fails = True
    node.publish("a")
    assert node.broken == ["a"]
    node.publish("a", lost=True)
    node.publish("a")
    node.deliver_fails = False
    await eventually(lambda: node.delivered == {"a": [3, 4]})


async def test_a_channel_left_during_its_repair_is_forgotten(node: Node) -> None:
    await node.follow("a", top=1)
    node.publish("a", lost=True)
    node.broker.faults = lambda name: "never"
    node.followers.doubt()
    await eventually(lambda: node.broker.reads)
    waiting = node.followers.open("a", at(1))
    await node.followers.unfollow("a")
    assert waiting.cancelled()
    await node.repaired()
    assert node.delivered == {}


async def test_idle_channels_are_compared_and_all_are_renewed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "COMPARE_PERIOD_S", 0.02)
    await node.follow("busy", *(f"a{number}" for number in range(700)), top=1)
    node.followers.follow("no history", 0)
    node.publish("a699", lost=True)
    task = asyncio.create_task(node.followers.compare_forever())
    async with asyncio.timeout(10):
        while node.delivered.get("a699") != [2]:
            node.publish("busy")
            await asyncio.sleep(0.001)
    assert node.broker.reads == ["a699"]
    assert len(node.broker.renewed) == 701
    assert node.states == [], "this is no repair after a gap"
    node.broker.compare_fault = lambda: ValueError("odd")
    compared = len(node.broker.compared)
    await eventually(lambda: len(node.broker.compared) > compared + 2)
    task.cancel()


async def test_200_000_channels_become_whole_and_the_loop_turns_meanwhile(node: Node) -> None:
    names = [f"a{number}" for number in range(200_000)]
    for name in names:
        node.broker.tops[name] = 1
        node.followers.follow(name, 10)
        follower = node.followers._followed[name].follower
        assert follower
        follower.position = at(1)
    for name in names[::10]:
        node.publish(name, lost=True)
    turns: list[float] = []

    async def turn() -> None:
        while True:
            turns.append(time.thread_time())
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    node.followers.doubt()
    async with asyncio.timeout(120):
        while node.followers.is_repairing:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    turning.cancel()
    assert len(node.delivered) == 20_000
    assert len(node.broker.reads) == 20_000
    spans = sorted(after - before for before, after in itertools.pairwise(turns))
    assert spans[int(len(spans) * 0.999)] < 0.02, "seconds of the CPU in one turn"


async def test_a_client_that_is_ahead_of_the_node_recovers_once_the_node_has_read(node: Node) -> None:
    """It received the publication from another node, before it reached this one."""
    await node.follow("a", top=5)
    node.publish("a", lost=True)
    opened = await node.followers.open("a", at(6))
    assert opened.recovery is not None
    assert opened.recovery.recovered
    assert opened.top == at(6)
    assert node.delivered == {"a": [6]}
    assert not node.broken


async def test_clients_that_are_ahead_of_the_broker_are_told_after_two_reads_for_all(node: Node) -> None:
    """Those that come while the first read is in progress may be ahead of it, and share another one."""
    await node.follow("a", top=5)
    clients = [node.followers.open("a", at(9)) for _ in range(20)]
    clients.append(node.followers.open("a", StreamPosition(5, "another")))
    for client in clients:
        opened = await client
        assert opened.recovery is not None
        assert not opened.recovery.recovered
        assert opened.top == at(5)
    assert node.broker.reads == ["a", "a"]
    assert not node.broken
