"""Garbage collection in short steps."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Final

PERIOD_S: Final = 0.05
"""Seconds between two collections of the young objects."""

PERIODS_PER_CHECK: Final = 20
"""Collections of the young objects between two looks at the growth of the heap."""

GROWTH_MIN: Final = 4_000_000
"""Blocks of memory, of about 70 bytes each, by which the heap grows at least before a full collection."""


class GarbageCollector:
    """Collects garbage by time and by the growth of the heap, in place of Python's own schedule.

    Python begins a collection when the objects that were made outnumber the objects that were freed. A hub
    that replaces objects, for example the position of a channel at each publication, frees as many as it
    makes. Hundreds of thousands of objects then become the young generation, and the next collection visits
    all of them at once, which takes hundreds of milliseconds with 200,000 channels.

    A full collection visits all that every client holds. A connection is in no cycle, and is freed without a
    collection, so a full collection waits until the heap has doubled.

    Args:
        growth_min: blocks of memory by which the heap grows at least before a full collection.
    """

    def __init__(self, growth_min: int = GROWTH_MIN) -> None:
        self._growth_min = growth_min
        self._blocks_max = 0
        gc.disable()
        self._collect_all()
        gc.freeze()

    def start(self) -> None:
        """Collect from now on, as long as the event loop runs."""
        self._collect_young(asyncio.get_running_loop(), PERIODS_PER_CHECK)

    def _collect_young(self, loop: asyncio.AbstractEventLoop, periods: int) -> None:
        gc.collect(1)
        if not periods:
            self.check_growth()
            periods = PERIODS_PER_CHECK
        loop.call_later(PERIOD_S, self._collect_young, loop, periods - 1)

    def check_growth(self) -> None:
        """Run a full collection if the heap has doubled since it was smallest after the last one."""
        blocks = sys.getallocatedblocks()
        if blocks > self._blocks_max:
            self._collect_all()
        else:
            self._blocks_max = min(self._blocks_max, self._limit(blocks))

    def _collect_all(self) -> None:
        gc.collect()
        self._blocks_max = self._limit(sys.getallocatedblocks())

    def _limit(self, blocks: int) -> int:
        return blocks + max(blocks, self._growth_min)
