"""Timers without a clock: what is due, and when the next one is."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Timer:
    """Something to do at a time, unless it is cancelled before."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes."""
        self.action = None


class Timers:
    """The timers of one client."""

    __slots__ = ("_heap", "_numbers")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def at(self, due: float, action: Callable[[], None]) -> Timer:
        """Have `action` called by the first `run` at `due`, in monotonic seconds, or later."""
        timer = Timer(action)
        heappush(self._heap, (due, next(self._numbers), timer))
        return timer

    @property
    def deadline(self) -> float:
        """When `run` has something to do next, in monotonic seconds; infinite for never."""
        while self._heap and self._heap[0][2].action is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def run(self, now: float) -> None:
        """Call what is due, in its order. What that makes due at once is called too."""
        while self.deadline <= now:
            action = heappop(self._heap)[2].action
            assert action is not None, "a deadline is that of a timer which was not cancelled"
            action()
