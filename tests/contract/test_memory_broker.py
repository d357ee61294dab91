"""hub/broker/memory.py beyond the contract: delivery within the call, and memory that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Raw
from support.brokers import Listener

from hub.broker import memory
from hub.broker.base import POSITION_TTL_S, HistoryPolicy
from hub.broker.memory import MemoryBroker
from hub.protocol.messages import IDEMPOTENCY_TTL_S, ClientInfo

KEEP = HistoryPolicy(size=10, ttl_s=60)


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def broker(clock: Clock, listener: Listener) -> AsyncIterator[MemoryBroker]:
    broker = MemoryBroker(clock=clock, wall_clock=lambda: 1_700_000_000.5)
    await listener.start(broker)
    yield broker
    await broker.stop()


def held(broker: MemoryBroker) -> int:
    """Entries of every kind that the broker keeps."""
    return len(broker._streams) + len(broker._idempotent) + len(broker._presence)


async def test_a_publication_is_delivered_before_publish_returns(
    broker: MemoryBroker, listener: Listener
) -> None:
    broker.subscribe("c")
    future = broker.publish("c", Raw(b"1"), history=KEEP)
    assert future.done()
    [publication] = listener.publications("c")
    assert publication.time == 1_700_000_000_500


async def test_a_long_history_keeps_its_position_as_long(broker: MemoryBroker, clock: Clock) -> None:
    policy = HistoryPolicy(size=10, ttl_s=2 * POSITION_TTL_S)
    first = await broker.publish("c", Raw(b"1"), history=policy)
    clock.now += 2 * POSITION_TTL_S - 1
    stream = await broker.history("c")
    assert (stream.top, len(stream.publications)) == (first, 1)


async def test_the_sweep_frees_what_has_expired(broker: MemoryBroker, clock: Clock) -> None:
    for number in range(2_500):
        name = f"c{number}"
        broker.publish(name, Raw(b"1"), history=KEEP, idempotency_key="k")
        broker.presence_add(name, "client-1", ClientInfo(), 60)
    broker.presence_add("c0", "client-2", ClientInfo(), 90)
    await broker.sweep()
    assert held(broker) == 7_500
    clock.now += 60
    await broker.sweep()
    assert not any(stream.publications for stream in broker._streams.values())
    assert list(broker._presence) == ["c0"]
    clock.now += IDEMPOTENCY_TTL_S
    await broker.sweep()
    assert not broker._idempotent
    clock.now += POSITION_TTL_S
    await broker.sweep()
    assert held(broker) == 0


async def test_old_keys_make_room_without_a_sweep(broker: MemoryBroker, clock: Clock) -> None:
    for number in range(100):
        broker.publish("c", Raw(b"1"), idempotency_key=str(number))
    clock.now += IDEMPOTENCY_TTL_S
    for number in range(100):
        broker.publish("c", Raw(b"1"), idempotency_key=f"new {number}")
    assert len(broker._idempotent) == 100


async def test_limits(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STREAMS_MAX", 3)
    monkeypatch.setattr(memory, "IDEMPOTENCY_KEYS_MAX", 3)
    tops = {name: (await broker.history(name)).top for name in "abc"}
    await broker.publish("a", Raw(b"1"), history=KEEP)
    await broker.history("d")
    assert (await broker.history("a")).top.epoch == tops["a"].epoch
    assert (await broker.history("b")).top.epoch != tops["b"].epoch
    for number in range(9):
        broker.publish("c", Raw(b"1"), idempotency_key=str(number))
    assert [key for _, key in broker._idempotent] == ["6", "7", "8"]


async def test_it_sweeps_by_itself(clock: Clock, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SWEEP_INTERVAL_S", 0)
    swept = asyncio.Event()

    class Observed(MemoryBroker):
        async def sweep(self) -> None:
            await super().sweep()
            swept.set()

    broker = Observed(clock=clock)
    await listener.start(broker)
    broker.presence_add("c", "client-1", ClientInfo(), 60)
    clock.now += 60
    swept.clear()
    await swept.wait()
    assert not broker._presence
    await broker.stop()


async def test_a_broker_that_starts_again_has_forgotten_its_earlier_life(
    broker: MemoryBroker, listener: Listener
) -> None:
    await broker.subscribe("c")
    first = await broker.publish("c", Raw(b"1"), history=KEEP, idempotency_key="k")
    await broker.presence_add("c", "client-1", ClientInfo(), 60)
    await broker.session_revoke("ann", "", 60)
    await broker.append_bus(b"x")
    await broker.stop()
    await listener.start(broker)
    assert await broker.presence("c") == {}
    assert (await broker.session_resume("ann", "c-1", [], "s1", 60)).verdict == "resumed"
    assert (await broker.read_bus("", 10)).entries == []
    second = await broker.publish("c", Raw(b"2"), history=KEEP, idempotency_key="k")
    assert (second.offset, second.epoch != first.epoch) == (1, True)
    assert len(listener.publications("c")) == 1


async def test_a_sweep_that_raises_is_reported_and_goes_on(
    clock: Clock, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SWEEP_INTERVAL_S", 0)
    swept = asyncio.Semaphore(0)

    class Failing(MemoryBroker):
        async def sweep(self) -> None:
            swept.release()
            raise RuntimeError("a sweep")

    broker = Failing(clock=clock)
    await listener.start(broker)
    for _ in range(3):
        await swept.acquire()
    await broker.stop()
    assert {str(error) for _, error in listener.failures} == {"a sweep"}
