"""A circuit breaker: refuses calls at once while they keep failing, and tries one now and then. Pure."""

from __future__ import annotations

import enum
from typing import Final

FAILURES_MAX: Final = 5
OPEN_S: Final = 1.0


class BreakerState(enum.Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """Every call may go."""
    OPEN = "open"
    """No call may go."""
    HALF_OPEN = "half-open"
    """One call is on trial; the others may not go."""


class Breaker:
    """Counts failures in a row, and opens when there are too many.

    When an open breaker's time is over, it lets one call through as a trial. Success closes the breaker,
    failure opens it again. If the outcome of a trial is never told, another trial may go after the same time.

    Args:
        failures_max: failures in a row that open the breaker.
        open_s: seconds that it stays open.
    """

    __slots__ = ("_failures_max", "_open_s", "_until", "failures", "state")

    def __init__(self, failures_max: int = FAILURES_MAX, open_s: float = OPEN_S) -> None:
        assert failures_max > 0
        assert open_s > 0
        self._failures_max = failures_max
        self._open_s = open_s
        self.failures = 0
        """How many calls failed in a row."""
        self._until = 0.0
        self.state = BreakerState.CLOSED

    def admit(self, now: float) -> bool:
        """Admit a call, or not. In the state `HALF_OPEN` the call that is admitted is the trial."""
        if self.state is BreakerState.CLOSED:
            return True
        if now < self._until:
            return False
        self.state = BreakerState.HALF_OPEN
        self._until = now + self._open_s
        return True

    def succeeded(self) -> None:
        """Record that a call succeeded."""
        self.failures = 0
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """Record that a call failed in a way that makes the next ones fail, too."""
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN or self.failures >= self._failures_max:
            self.state = BreakerState.OPEN
            self._until = now + self._open_s
