"""One timer for everything on a node that has a deadline: connections, and sessions in their grace."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from hub.node.boundary import Boundary

SLOT_S: Final = 0.1
"""How late a tick may come. One slot, of hundreds on a busy node, is one turn of the event loop."""


class Timed(Protocol):
    """Something that has a deadline."""

    @property
    def deadline(self) -> float:
        """Monotonic seconds."""

    def tick(self, now: float) -> None:
        """The deadline has come."""

    def fail(self, place: str, error: BaseException) -> None:
        """`tick` raised: end this, and only this."""


class TimerWheel:
    """Calls `tick` on what is due, in slots of `SLOT_S`.

    A deadline that moves later costs nothing: what comes up early is put into its new slot. A deadline that
    moves earlier has to be added again. A tick that raises ends what it belongs to; the others of its slot
    are called all the same.

    Args:
        boundary: records what a tick raises.
    """

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
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
        """End. Nothing is called from now on."""
        if self._timer:
            self._timer.cancel()
        self._slots.clear()
        self._slot_of.clear()

    def add(self, timed: Timed) -> None:
        """Call `tick` at the deadline; it replaces an earlier `add`."""
        self.discard(timed)
        slot = max(self._slot(timed.deadline) + 1, self._position + 1)
        in_slot = self._slots.get(slot)
        if in_slot is None:
            in_slot = self._slots[slot] = set()
        in_slot.add(timed)
        self._slot_of[timed] = slot

    def discard(self, timed: Timed) -> None:
        """Do not call `tick` any more."""
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
                continue  # the tick of another discarded it
            try:
                if timed.deadline <= now:
                    timed.tick(now)
                else:
                    self.add(timed)
            except Exception as error:
                self._end(timed, error)

    def _end(self, timed: Timed, error: Exception) -> None:
        try:
            timed.fail("timer", error)
        except Exception as failure:
            self._boundary.failed("timer", failure)
