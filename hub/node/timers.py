"""One timer for all connections of a node."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

SLOT_S: Final = 0.1
"""How late a connection may be looked at. One slot, of hundreds on a busy node, is one turn of the loop."""


class Timed(Protocol):
    """Something that has to be looked at from time to time."""

    @property
    def deadline(self) -> float: ...
    def tick(self, now: float) -> None: ...


class TimerWheel:
    """Calls `tick` on what is due, in slots of `SLOT_S`.

    A deadline that moves later costs nothing: what comes up early is put into its new slot. One that moves
    earlier has to be added again.
    """

    def __init__(self) -> None:
        self._slots: dict[int, set[Timed]] = {}
        self._slot_of: dict[Timed, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def start(self) -> None:
        """Begin to turn."""
        self._loop = asyncio.get_running_loop()
        self._position = self._slot(self._loop.time())
        self._arm()

    def stop(self) -> None:
        """End. Nothing is called any more."""
        if self._timer:
            self._timer.cancel()
        self._slots.clear()
        self._slot_of.clear()

    def add(self, timed: Timed) -> None:
        """Look at this by its deadline; an earlier deadline that it was added with gives way."""
        self.discard(timed)
        slot = max(self._slot(timed.deadline) + 1, self._position + 1)
        in_slot = self._slots.get(slot)
        if in_slot is None:
            in_slot = self._slots[slot] = set()
        in_slot.add(timed)
        self._slot_of[timed] = slot

    def discard(self, timed: Timed) -> None:
        """Look at this no more."""
        slot = self._slot_of.pop(timed, None)
        if slot in self._slots:
            self._slots[slot].discard(timed)

    def _slot(self, time: float) -> int:
        return int(time / SLOT_S)

    def _arm(self) -> None:
        self._timer = self._loop.call_at((self._position + 1) * SLOT_S, self._turn)

    def _turn(self) -> None:
        now = self._loop.time()
        due: list[Timed] = []
        while (self._position + 1) * SLOT_S <= now:
            self._position += 1
            due.extend(self._slots.pop(self._position, ()))
        self._arm()
        for timed in due:
            if self._slot_of.pop(timed, None) is None:
                continue  # discarded by the tick of another
            if timed.deadline <= now:
                timed.tick(now)
            else:
                self.add(timed)
