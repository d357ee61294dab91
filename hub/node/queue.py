"""Where clients wait under load: one goes through in a turn of the event loop, the others wait in order.

Letting a client in takes a third of a millisecond or so, and a message to connected clients passes through
three turns: two clients in one turn would let in no more of them in a second, and double the message's time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from hub.node.boundary import Boundary

BURST_S: Final = 3.0
"""A queue that is not empty for up to this long refuses nobody: a flood that comes once, as from a node that
ended, is let in and sent nowhere. A client gives up after some five seconds."""

WAIT_MAX_S: Final = 0.1
"""A queue that was not empty for longer, and grows, refuses clients while the first has waited this long."""

SHORT: Final = 100
"""A queue of up to so many refuses nobody, however long it has not been empty: it keeps moving."""

_WINDOW_S: Final = 1.0
"""Over this time it is seen whether more clients come than go through."""


class AdmissionTurns:
    """Lets one client through in a turn of the event loop: first clients that connect, then handshakes.

    Without it a flood of clients would be one long turn, for which everybody who is connected waits.

    Args:
        waiting_max: clients that may wait in a queue.
        boundary: records what letting a client through raises.
    """

    def __init__(self, waiting_max: int, boundary: Boundary | None = None) -> None:
        self.connects: Final = AdmissionQueue(self, waiting_max)
        """Clients that are inside and say who they are: first, since much was spent on them."""
        self.handshakes: Final = AdmissionQueue(self, waiting_max)
        self._boundary = boundary
        self._is_free = True

    def take(self) -> bool:
        """Take this turn, unless it is taken. Returns whether it was free."""
        if not self._is_free:
            return False
        self._is_free = False
        asyncio.get_running_loop().call_soon(self._turn)
        return True

    def _turn(self) -> None:
        self._is_free = True
        for queue in (self.connects, self.handshakes):
            try:
                queue.move()
            except Exception as error:
                if self._boundary is None:
                    raise
                self._boundary.failed("admission", error)


class AdmissionQueue:
    """Clients that wait for one thing, in order.

    Args:
        turns: that they wait for.
        waiting_max: of them.
    """

    def __init__(self, turns: AdmissionTurns, waiting_max: int) -> None:
        self._turns = turns
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._waits_since = 0.0
        self._counts_since = 0.0
        self._came = self._gone = 0
        self._grows = False

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self) -> bool:
        """Let a client through now, if nobody waits and the turn is free. Returns whether it may."""
        return not self._waiting and self._turns.take()

    def wait(self, go: Callable[[], None], now: float) -> bool:
        """Have a client wait for a later turn. Returns False where it is refused.

        Args:
            go: lets it through.
            now: monotonic seconds.
        """
        if self.should_reject(now):
            return False
        if not self._waiting:
            self._waits_since = self._counts_since = now
            self._came = self._gone = 0
            self._grows = False
        self._came += 1
        self._waiting.append((now, go))
        return True

    def should_reject(self, now: float) -> bool:
        """Whether too many wait, or one more would have to wait for too long; a rejected client counts too.

        Args:
            now: monotonic seconds.
        """
        if now - self._counts_since > _WINDOW_S:
            self._grows = self._came > self._gone
            self._counts_since = now
            self._came = self._gone = 0
        if len(self._waiting) < self._waiting_max and not self._is_slow(now):
            return False
        self._came += 1
        return True

    def move(self) -> None:
        """Let the first client through, if one waits and the turn is free."""
        if self._waiting and self._turns.take():
            self._gone += 1
            self._waiting.popleft()[1]()

    def _is_slow(self, now: float) -> bool:
        if len(self._waiting) <= SHORT or not self._grows or now - self._waits_since <= BURST_S:
            return False
        return now - self._waiting[0][0] > WAIT_MAX_S
