"""The timer wheel of a node: each deadline is met, and a wheel with nothing to do asks for nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

from hub.node.boundary import Boundary
from hub.node.environment import Clock
from hub.node.timers import SLOT_S, TimerWheel
from hub.telemetry import Metrics


class ClockByHand(Clock):
    """A clock whose calls a test can count."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.now = lambda: self.time
        self.calls: list[tuple[float, int, list[Callable[[], object]]]] = []
        self.made = 0

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        self.made += 1
        entry = [callback]
        heappush(self.calls, (when, self.made, entry))
        return entry.clear

    def run_to(self, time: float) -> None:
        while self.calls and self.calls[0][0] <= time:
            when, _, entry = heappop(self.calls)
            self.time = max(self.time, when)
            for callback in list(entry):
                callback()
        self.time = time


class Due:
    """Something that has a deadline.

    Args:
        next_s: seconds after each tick until the next deadline; 0 for none.
    """

    def __init__(self, wheel: TimerWheel, deadline: float, next_s: float = 0.0) -> None:
        self.wheel = wheel
        self.deadline = deadline
        self.next_s = next_s
        self.ticks: list[float] = []
        self.failures: list[BaseException] = []
        self.fails = False

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        if self.fails:
            raise RuntimeError("tick")
        if self.next_s:
            self.deadline = now + self.next_s
            self.wheel.add(self)

    def fail(self, place: str, error: BaseException) -> None:
        self.failures.append(error)


def a_wheel() -> tuple[TimerWheel, ClockByHand]:
    clock = ClockByHand()
    wheel = TimerWheel(Boundary(Metrics()), clock)
    wheel.start()
    return wheel, clock


def test_each_is_ticked_within_a_slot_of_its_deadline() -> None:
    chance = random.Random(7)
    wheel, clock = a_wheel()
    due = [Due(wheel, clock.time + chance.uniform(0, 300)) for _ in range(1000)]
    for each in due:
        wheel.add(each)
    assert len(wheel) == 1000
    clock.run_to(clock.time + 301)
    assert len(wheel) == 0
    for each in due:
        [ticked] = each.ticks
        assert each.deadline <= ticked <= each.deadline + 2 * SLOT_S


def test_a_wheel_with_nothing_to_do_asks_for_nothing() -> None:
    wheel, clock = a_wheel()
    clock.run_to(clock.time + 1000)
    assert clock.made == 0
    each = Due(wheel, clock.time + 25)
    wheel.add(each)
    clock.run_to(clock.time + 1000)
    assert clock.made == 1
    assert len(each.ticks) == 1


def test_deadlines_that_move() -> None:
    wheel, clock = a_wheel()
    later, earlier, gone, past = (Due(wheel, clock.time + seconds) for seconds in (10, 10, 10, -5))
    for each in (later, earlier, gone, past):
        wheel.add(each)
    later.deadline += 20
    earlier.deadline -= 9
    wheel.add(earlier)
    wheel.discard(gone)
    wheel.discard(gone)
    began = clock.time
    clock.run_to(began + 0.2)
    assert len(past.ticks) == 1
    clock.run_to(began + 1.3)
    assert len(earlier.ticks) == 1
    clock.run_to(began + 29)
    assert (later.ticks, gone.ticks) == ([], [])
    clock.run_to(began + 31)
    assert len(later.ticks) == 1
    assert len(earlier.ticks) == len(past.ticks) == 1


def test_what_ticks_again_and_again() -> None:
    wheel, clock = a_wheel()
    each = Due(wheel, clock.time + 1, next_s=1.0)
    wheel.add(each)
    clock.run_to(clock.time + 100)
    assert 80 <= len(each.ticks) <= 100
    hasty = Due(wheel, clock.time, next_s=1e-9)
    wheel.add(hasty)
    clock.run_to(clock.time + 1)
    assert len(hasty.ticks) <= 11, "a tick comes at most once a slot"


def test_a_tick_that_raises_ends_its_own_alone() -> None:
    wheel, clock = a_wheel()
    due = [Due(wheel, clock.time + 1) for _ in range(3)]
    due[1].fails = True
    for each in due:
        wheel.add(each)
    clock.run_to(clock.time + 2)
    assert [len(each.ticks) for each in due] == [1, 1, 1]
    assert [len(each.failures) for each in due] == [0, 1, 0]


def test_a_wheel_that_has_stopped_calls_nothing() -> None:
    wheel, clock = a_wheel()
    before, after = Due(wheel, clock.time + 1), Due(wheel, clock.time + 1)
    wheel.add(before)
    wheel.stop()
    wheel.add(after)
    clock.run_to(clock.time + 10)
    assert (before.ticks, after.ticks) == ([], [])
