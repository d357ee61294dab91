"""Garbage collection in short steps: a pause does not grow with what was replaced since the last one."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from support.limits import WAIT_S

from hub.server.garbage import GarbageCollector

REPLACED = 50_000


class Node:
    """A member of a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _own_collector() -> Iterator[None]:
    """Give the process its own schedule of collections back."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def test_objects_that_replace_others_do_not_pile_up_as_young() -> None:
    GarbageCollector().start()
    values = {number: [number] for number in range(REPLACED)}
    async with asyncio.timeout(WAIT_S):
        for _ in range(3):
            for number in values:
                values[number] = [number]
            while len(gc.get_objects(0)) + len(gc.get_objects(1)) > REPLACED / 10:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)


def test_objects_of_a_crowd_do_not_pile_up_until_the_next_period() -> None:
    GarbageCollector()
    values = [[number] for number in range(REPLACED)]
    assert len(gc.get_objects(0)) + len(gc.get_objects(1)) < REPLACED / 10
    assert values


async def test_a_young_cycle_is_freed_soon() -> None:
    GarbageCollector().start()
    node = weakref.ref(Node())
    async with asyncio.timeout(WAIT_S):
        while node() is not None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


def _old_cycle() -> weakref.ref[Node]:
    """A cycle that became garbage when it was no longer young."""
    node = Node()
    gc.collect(1)
    return weakref.ref(node)


class Memory:
    """The memory that a collector measures: `used` bytes."""

    def __init__(self, used: int) -> None:
        self.used = used

    def __call__(self) -> int:
        return self.used


def test_old_garbage_is_freed_after_a_step_of_growth() -> None:
    memory = Memory(1000)
    collector = GarbageCollector(step=100, growth_min=10_000, used=memory)
    for _ in range(3):
        old = _old_cycle()
        memory.used += 100
        collector.check_growth()
        assert old() is not None
        memory.used += 1
        collector.check_growth()
        assert old() is None


def test_a_step_visits_only_what_was_made_since_the_last_one() -> None:
    memory = Memory(1000)
    collector = GarbageCollector(step=100, growth_min=10_000, used=memory)
    node = Node()
    memory.used += 101
    collector.check_growth()
    assert not any(each is node for each in gc.get_objects()), "the node is frozen"
    frozen = weakref.ref(node)
    del node
    memory.used += 101
    collector.check_growth()
    assert frozen() is not None


def test_a_full_collection_waits_until_the_memory_has_doubled() -> None:
    memory = Memory(1000)
    collector = GarbageCollector(step=100, growth_min=0, used=memory)
    for size in (2000, 4000):
        node = Node()
        memory.used += 101
        collector.check_growth()
        frozen = weakref.ref(node)
        del node
        memory.used = size
        collector.check_growth()
        assert frozen() is not None
        memory.used = size + 1
        collector.check_growth()
        assert frozen() is None
        memory.used = size
        collector.check_growth()


def test_a_full_collection_waits_for_some_growth() -> None:
    memory = Memory(10)
    collector = GarbageCollector(step=100_000, growth_min=10_000, used=memory)
    old = _old_cycle()
    memory.used = 10_010
    collector.check_growth()
    assert old() is not None
    memory.used = 10_011
    collector.check_growth()
    assert old() is None


def test_the_limits_fall_with_the_memory() -> None:
    memory = Memory(1_000_000)
    collector = GarbageCollector(step=100_000, growth_min=0, used=memory)
    memory.used = 1000
    collector.check_growth()
    old = _old_cycle()
    memory.used = 2001
    collector.check_growth()
    assert old() is None


async def test_the_growth_of_the_process_is_noticed() -> None:
    collector = GarbageCollector(step=1 << 20)
    old = _old_cycle()
    collector.start()
    buffers = []
    async with asyncio.timeout(WAIT_S):
        while old() is not None:
            buffers.append(b"x" * (1 << 20))
            await asyncio.sleep(0.01)
    assert len(buffers) > 1
