"""The time of a hub under test: it stands still until a test lets it pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from hub.handlers.threads import in_threads
from hub.node.environment import Clock

QUIET_TURNS: Final = 25
"""Turns of the event loop in which no message moves, after which everything is taken to be at rest."""

TURNS_MAX: Final = 10_000
"""Clients that never come to rest are waited for no longer than so many turns."""

THREADS_S: Final = 10.0
"""Real seconds for which handlers that run in threads are waited for."""


class ManualClock(Clock):
    """A clock that `advance` moves. Unix time runs on with the system's, ahead by what was advanced."""

    def __init__(self) -> None:
        self._began = self._now = time.monotonic()
        self.now = lambda: self._now
        self.unix = lambda: time.time() + self._now - self._began
        self._calls: list[tuple[float, int, list[Callable[[], object]]]] = []
        self._numbers = count()
        self._moves = 0

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        entry = [callback]
        heappush(self._calls, (when, next(self._numbers), entry))
        return entry.clear

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        cancel = self.call_at(self._now + seconds, over.set)
        try:
            await over.wait()
        finally:
            cancel()

    def moved(self) -> None:
        """A message moved: what is under way is not at rest."""
        self._moves += 1

    async def settle(self) -> None:
        """Let all that is under way in the event loop arrive, and end the app's handlers that run in threads.

        Other threads, and sockets, are not waited for.
        """
        quiet = 0
        for _ in range(TURNS_MAX):
            moves = self._moves
            await asyncio.sleep(0)
            quiet = quiet + 1 if moves == self._moves else 0
            if quiet < QUIET_TURNS:
                continue
            threads = in_threads()
            if not threads or (await asyncio.wait(threads, timeout=THREADS_S))[1]:
                return
            quiet = 0

    async def advance(self, seconds: float) -> None:
        """Let time pass. What comes due happens at its time and in its order, with all that follows from it.

        Raises:
            ValueError: the number is negative.
        """
        if seconds < 0:
            raise ValueError(f"time passes forward only: advance({seconds}) is negative")
        await self.settle()
        ends_at = self._now + seconds
        while self._calls and self._calls[0][0] <= ends_at:
            when, _, entry = heappop(self._calls)
            if entry:
                self._now = max(self._now, when)
                entry[0]()
                await self.settle()
        self._now = ends_at
        await self.settle()
