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
    yield
    gc.unfreeze()
    gc.enable()


async def test_objects_that_replace_others_do_not_pile_up_as_young() -> None:
    GarbageCollector().start()
    values = {number: [number] for number in range(REPLACED)}
    async with asyncio.timeout(WAIT_S):
        for _ in range(3):
            for number in values:
                values[number] = [number]
            while len(gc.get_objects(0)) + len(gc.get_objects(1)) > REPLACED / 10:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)


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


async def test_a_full_collection_waits_until_the_heap_has_doubled() -> None:
    collector = GarbageCollector(growth_min=0)
    old = _old_cycle()
    for _ in range(3):
        collector.check_growth()
    assert old() is not None
    collector.start()
    heap = []
    async with asyncio.timeout(WAIT_S):
        while old() is not None:
            heap.append([[None] for _ in range(REPLACED)])
            await asyncio.sleep(0.001)
    old = _old_cycle()
    collector.check_growth()
    assert old() is not None, "the heap has not doubled again"


def test_the_limit_of_the_heap_falls_with_the_heap() -> None:
    heap = [[None] for _ in range(40 * REPLACED)]
    collector = GarbageCollector(growth_min=0)
    del heap
    collector.check_growth()
    old = _old_cycle()
    heap = [[None] for _ in range(40 * REPLACED)]
    collector.check_growth()
    assert heap
    assert old() is None
