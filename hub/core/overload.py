"""When a node is overloaded, and how far it goes to be well. Pure: measures and a time in, a step out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SMOOTHING_S: Final = 1.0
"""Lag is averaged over about this long: one pause is no overload."""

LAG_SAMPLE_MAX: Final = 4.0
"""A longer sample counts as so many times its bound, so that one long pause is soon forgotten."""

CLIMB_S: Final = 1.0
"""What is still over its bound so long after a step makes the next one be taken."""

CALM_BELOW: Final = 0.7
"""The part of its bound below which a measure is calm. Between the two nothing changes."""

CALM_S: Final = 3.0
"""How long all must be calm until the first step back; each further one is taken a `CLIMB_S` later."""


class Step(IntEnum):
    """What an overloaded node gives up; each step holds the ones before it."""

    NORMAL = 0
    """Nothing."""
    OPTIONAL = 1
    """Joins and leaves are not told, and presence is renewed half as often."""
    ADMISSION = 2
    """New connections are refused."""
    SHEDDING = 3
    """Those who read slowest are disconnected. Only bytes lead here: a slow reader costs no time."""


@dataclass(frozen=True, slots=True)
class Measures:
    """How a node is; also the bounds to it, where 0 means that nothing is bounded.

    Args:
        lag_s: seconds that the event loop is late.
        outbox_bytes: that wait for slow readers.
        memory_bytes: of the process.
    """

    lag_s: float = 0.0
    outbox_bytes: int = 0
    memory_bytes: int = 0


class Load:
    """Decides the step, with hysteresis.

    Args:
        bounds: what is over them is too much.
        now: monotonic seconds.
    """

    def __init__(self, bounds: Measures, now: float) -> None:
        self.step = Step.NORMAL
        self.lag_s = 0.0
        """The smoothed lag."""
        self._bounds = bounds
        self._looked_at = now
        self._stepped_at = -math.inf
        self._calm_since = now

    def look(self, measures: Measures, now: float) -> Step:
        """Take what was measured since the last look. Returns the step to be on."""
        self._smooth(measures.lag_s, now)
        lag = _share(self.lag_s, self._bounds.lag_s)
        memory = _share(measures.memory_bytes, self._bounds.memory_bytes)
        size = max(memory, _share(measures.outbox_bytes, self._bounds.outbox_bytes))
        if max(lag, size) >= CALM_BELOW:
            self._calm_since = now
        if max(lag, size) >= 1.0:
            highest = Step.SHEDDING if size >= 1.0 else Step.ADMISSION
            if self.step < highest and now >= self._stepped_at + CLIMB_S:
                self._go(Step(self.step + 1), now)
        elif self.step and now >= max(self._calm_since + CALM_S, self._stepped_at + CLIMB_S):
            self._go(Step(self.step - 1), now)
        return self.step

    def _smooth(self, lag_s: float, now: float) -> None:
        weight = 1.0 - math.exp((self._looked_at - now) / SMOOTHING_S)
        sample = min(lag_s, LAG_SAMPLE_MAX * self._bounds.lag_s) if self._bounds.lag_s else lag_s
        self.lag_s += weight * (sample - self.lag_s)
        self._looked_at = now

    def _go(self, step: Step, now: float) -> None:
        self.step = step
        self._stepped_at = now


def _share(value: float, bound: float) -> float:
    return value / bound if bound else 0.0
