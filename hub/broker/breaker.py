"""The circuit breaker: when calls that keep failing are refused at once, when one is tried again. Pure."""

from __future__ import annotations

import enum
from typing import Final

FAILURES_MAX: Final = 5
OPEN_S: Final = 1.0


class BreakerState(enum.Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """All may go."""
    OPEN = "open"
    """None may."""
    HALF_OPEN = "half-open"
    """One is on trial; the others may not."""


class Breaker:
    """Counts failures in a row, and opens at a number of them.

    Open, it lets one call through when its time is over: success closes it, failure opens it again. A trial
    whose outcome is never told makes room for another one after the same time.

    Args:
        failures_max: failures in a row that open it.
        open_s: seconds that it stays open.
    """

    __slots__ = ("_failures", "_failures_max", "_open_s", "_until", "state")

    def __init__(self, failures_max: int = FAILURES_MAX, open_s: float = OPEN_S) -> None:
        assert failures_max > 0
        assert open_s > 0
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        self._until = 0.0
        self.state = BreakerState.CLOSED

    def allows(self, now: float) -> bool:
        """Whether a call may go now. In the state that it leaves open, the caller's call is the trial."""
        if self.state is BreakerState.CLOSED:
            return True
        if now < self._until:
            return False
        self.state = BreakerState.HALF_OPEN
        self._until = now + self._open_s
        return True

    def succeeded(self) -> None:
        """A call did what it should."""
        self._failures = 0
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """A call failed in a way that says that the next one will."""
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._failures_max:
            self.trip(now)

    def trip(self, now: float) -> None:
        """Open at once: it is known that calls fail."""
        self.state = BreakerState.OPEN
        self._until = now + self._open_s
