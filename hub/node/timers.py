"""One timer for everything on a node that has a deadline: connections, and sessions in their grace."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Protocol

from hub.node.boundary import Boundary
from hub.node.environment import Clock

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
        clock: of the node.
    """

    def __init__(self, boundary: Boundary, clock: Clock) -> None:
        self._boundary = boundary
        self._clock = clock
        self._slots: dict[int, set[Timed]] = {}
        self._order: list[int] = []
        """The numbers of the slots, as a heap."""
        self._slot_of: dict[Timed, int] = {}
        self._armed = math.inf
        """The slot that the clock's call is for: infinite without a call, -1 once the wheel has stopped."""
        self._cancel: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def start(self) -> None:
        """Begin to turn."""
        self._position = self._slot(self._clock.now())

    def stop(self) -> None:
        """End. Nothing is called from now on."""
        if self._cancel is not None:
            self._cancel()
        self._armed = -1
        self._slots.clear()
        self._order.clear()
        self._slot_of.clear()

    def add(self, timed: Timed) -> None:
        """Call `tick` at the deadline; it replaces an earlier `add`."""
        self.discard(timed)
        slot = max(self._slot(timed.deadline) + 1, self._position + 1)
        in_slot = self._slots.get(slot)
        if in_slot is None:
            in_slot = self._slots[slot] = set()
            heappush(self._order, slot)
            if slot < self._armed:
                self._arm(slot)
        in_slot.add(timed)
        self._slot_of[timed] = slot

    def discard(self, timed: Timed) -> None:
        """Do not call `tick` any more."""
        slot = self._slot_of.pop(timed, None)
        if slot in self._slots:
            self._slots[slot].discard(timed)

    def _slot(self, time: float) -> int:
        return int(time / SLOT_S)

    def _arm(self, slot: int) -> None:
        if self._cancel is not None:
            self._cancel()
        self._armed = slot
        self._cancel = self._clock.call_at(slot * SLOT_S, self._turn)

    def _turn(self) -> None:
        now = self._clock.now()
        self._armed, self._cancel = math.inf, None
        self._position = max(self._position, self._slot(now))
        due: list[Timed] = []
        while self._order and self._order[0] * SLOT_S <= now:
            due.extend(self._slots.pop(heappop(self._order)))
        if self._order:
            self._arm(self._order[0])
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
