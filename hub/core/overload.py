"""Decides whether a node is overloaded, and which measures it takes. Time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SMOOTHING_S: Final = 1.0
"""Seconds over which the lag is averaged, because a single pause is not an overload."""

LAG_SAMPLE_MAX: Final = 4.0
"""A sample of the lag counts as this many times its bound at the most, so that one long pause has little
effect."""

CLIMB_S: Final = 1.0
"""Seconds after a step until the next one is taken, if a value is still over its bound."""

CALM_BELOW: Final = 0.7
"""A value is calm below this share of its bound. Between calm and the bound, the step does not change."""

CALM_S: Final = 3.0
"""Seconds for which all values must be calm until the first step back. Each further step back follows after
`CLIMB_S`."""


class Step(IntEnum):
    """What an overloaded node gives up. Each step includes the ones before it."""

    NORMAL = 0
    """Nothing."""
    OPTIONAL = 1
    """Joins and leaves are not sent, and presence is renewed half as often."""
    ADMISSION = 2
    """New connections are refused."""
    SHEDDING = 3
    """The clients that read slowest are disconnected. Only bytes lead to this step, not lag."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Measured values of a node, or the bounds of these values, where 0 means no bound.

    Args:
        lag_s: seconds by which the event loop is late.
        outbox_bytes: bytes that wait for slow readers.
        memory_bytes: resident memory of the process.
    """

    lag_s: float = 0.0
    outbox_bytes: int = 0
    memory_bytes: int = 0


class Load:
    """Decides the step, with hysteresis.

    Args:
        bounds: the highest accepted values.
        now: monotonic seconds.
    """

    def __init__(self, bounds: Measures, now: float) -> None:
        self.step = Step.NORMAL
        self.lag_s = 0.0
        """The smoothed lag."""
        self._bounds = bounds
        self._last_lag_s = 0.0
        self._looked_at = now
        self._stepped_at = -math.inf
        self._calm_since = now

    def look(self, measures: Measures, now: float) -> Step:
        """Process the values measured since the last call. Returns the step to take."""
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
        # A stop of the process shows as one long sample. An overload shows in the sample after it, too.
        lag_s, self._last_lag_s = min(lag_s, self._last_lag_s), lag_s
        sample = min(lag_s, LAG_SAMPLE_MAX * self._bounds.lag_s) if self._bounds.lag_s else lag_s
        self.lag_s += weight * (sample - self.lag_s)
        self._looked_at = now

    def _go(self, step: Step, now: float) -> None:
        self.step = step
        self._stepped_at = now


def _share(value: float, bound: float) -> float:
    return value / bound if bound else 0.0
