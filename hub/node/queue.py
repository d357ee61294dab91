"""Where a crowd waits: one goes through in a turn of the event loop, and the others stand in line.

Whoever goes through takes a third of a millisecond or so, and a message to those who are there comes by three
turns: two in one turn are no more in a second, and twice the time for the message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

BURST_S: Final = 3.0
"""So long a line may stand with all who come let in: a crowd that comes once, as from a node that ended, is
taken in and sent nowhere. A client gives up after some five seconds."""

WAIT_MAX_S: Final = 0.1
"""In a line that has stood for longer, and while more come than go through, who comes is let in only where
the first has waited for less than this: the others are told at once."""

_WINDOW_S: Final = 1.0
"""Over so long it is seen whether more come than go through."""


class Door:
    """Lets one through in a turn of the event loop: those who connect, and then those who shake hands.

    Without it a crowd that comes at once would be one long turn, for which all who are connected wait.

    Args:
        waiting_max: who comes while so many stand in a line is not let in.
    """

    def __init__(self, waiting_max: int) -> None:
        self.connects: Final = Line(self, waiting_max)
        """Those who are inside, and say who they are: first, since much was spent on them."""
        self.handshakes: Final = Line(self, waiting_max)
        self._is_free = True

    def take(self) -> bool:
        """Whether one may go through in this turn, in which nobody else may then."""
        if not self._is_free:
            return False
        self._is_free = False
        asyncio.get_running_loop().call_soon(self._turn)
        return True

    def _turn(self) -> None:
        self._is_free = True
        for line in (self.connects, self.handshakes):
            line.move()


class Line:
    """Those who wait at a door for one thing, in order.

    Args:
        door: that they wait at.
        waiting_max: of them.
    """

    def __init__(self, door: Door, waiting_max: int) -> None:
        self._door = door
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._stands_since = 0.0
        self._counts_since = 0.0
        self._came = self._gone = 0
        self._swells = False

    def passes(self) -> bool:
        """Whether one may go through at once. It counts as having gone."""
        return not self._waiting and self._door.take()

    def wait(self, go: Callable[[], None], now: float) -> bool:
        """Call `go` in a later turn. Returns False where too many wait, or would have to for too long.

        Args:
            go: goes through; it must not raise.
            now: monotonic seconds.
        """
        if self.refuses(now):
            return False
        if not self._waiting:
            self._stands_since = self._counts_since = now
            self._came = self._gone = 0
            self._swells = False
        self._came += 1
        self._waiting.append((now, go))
        return True

    def refuses(self, now: float) -> bool:
        """Whether too many wait, or one more would have to for too long. Who is refused has come too.

        Args:
            now: monotonic seconds.
        """
        self._look(now)
        if len(self._waiting) < self._waiting_max and not self._is_slow(now):
            return False
        self._came += 1
        return True

    def move(self) -> None:
        """Let the first one through, where one waits and may go."""
        if self._waiting and self._door.take():
            self._gone += 1
            self._waiting.popleft()[1]()

    def _look(self, now: float) -> None:
        if now - self._counts_since > _WINDOW_S:
            self._swells = self._came > self._gone
            self._counts_since = now
            self._came = self._gone = 0

    def _is_slow(self, now: float) -> bool:
        if not self._waiting or not self._swells or now - self._stands_since <= BURST_S:
            return False
        return now - self._waiting[0][0] > WAIT_MAX_S
