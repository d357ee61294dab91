"""Garbage collection in short steps."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Final

from hub.node.overload import memory_bytes

PERIOD_S: Final = 0.05
"""Seconds between two collections of the young objects."""

YOUNG_MAX: Final = 700
"""The young are collected within a period, too, once so many more objects were made than freed: a crowd that
connects makes tens of thousands in one period."""

_NEVER: Final = 2**31 - 1

PERIODS_PER_CHECK: Final = 20
"""Collections of the young objects between two looks at the memory."""

STEP_BYTES: Final = 32 << 20
"""The growth after which the objects that were made since the last such step are collected."""

GROWTH_BYTES_MIN: Final = 256 << 20
"""The growth before which there is no full collection."""

_BLOCK_BYTES: Final = 70
"""The mean size of Python's small blocks in a hub."""


def _used_bytes() -> int:
    """The resident memory, in which large buffers count; an estimate where the system does not tell."""
    return memory_bytes() or sys.getallocatedblocks() * _BLOCK_BYTES


class GarbageCollector:
    """Collects garbage also by time and by the growth of the memory, and not only on Python's own schedule.

    Python begins a collection when the objects that were made outnumber the objects that were freed. A hub
    that replaces objects, for example the position of a channel at each publication, frees as many as it
    makes. Hundreds of thousands of objects then become the young generation, and the next collection visits
    all of them at once, which takes hundreds of milliseconds with 200,000 channels. Here the young are
    collected every `PERIOD_S`, and after `YOUNG_MAX` more objects were made than freed.

    Of old objects there are two collections:

    - After each growth by `step` the objects made since the last step are collected and then frozen: the
      next step does not visit them. Its pause depends on the step and on what was replaced, not on all that
      the clients hold.
    - A full collection visits all that every client holds. A connection is in no cycle, and is freed without
      a collection, so a full collection waits until the memory has doubled.

    Args:
        step: bytes of growth between two collections of the newer objects.
        growth_min: bytes by which the memory grows at least before a full collection.
        used: measures the memory, in bytes.
    """

    def __init__(
        self,
        step: int = STEP_BYTES,
        growth_min: int = GROWTH_BYTES_MIN,
        used: Callable[[], int] = _used_bytes,
    ) -> None:
        self._step = step
        self._growth_min = growth_min
        self._used = used
        self._step_at = self._full_at = 0
        gc.enable()
        gc.set_threshold(YOUNG_MAX, 1, _NEVER)
        self._collect_all()

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
        """Collect old objects, if the memory has grown since it was smallest after the last collection."""
        used = self._used()
        if used > self._full_at:
            self._collect_all()
        elif used > self._step_at:
            self._collect_newer()
        else:
            self._full_at = min(self._full_at, self._limit(used))
            self._step_at = min(self._step_at, used + self._step)

    def _collect_newer(self) -> None:
        gc.collect()
        gc.freeze()
        self._step_at = self._used() + self._step

    def _collect_all(self) -> None:
        gc.unfreeze()
        self._collect_newer()
        self._full_at = self._limit(self._used())

    def _limit(self, used: int) -> int:
        return used + max(used, self._growth_min)
