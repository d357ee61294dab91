"""hub.core.overload: when a node is overloaded, step by step, and when it is well again."""

from __future__ import annotations

import random

import pytest

from hub.core.overload import CALM_S, CLIMB_S, Load, Measures, Step

BOUNDS = Measures(lag_s=0.25, outbox_bytes=1_000, memory_bytes=10_000)
PERIOD_S = 0.125
RECOVERY_S = 10.0


class Node:
    """A node whose load a test sets, looked at every eighth of a second."""

    def __init__(self, bounds: Measures = BOUNDS) -> None:
        self.now = 100.0
        self.load = Load(bounds, self.now)

    def run(self, seconds: float, **measures: float) -> list[Step]:
        """Let it be so for some seconds; the step at each look."""
        steps = []
        for _ in range(round(seconds / PERIOD_S)):
            self.now += PERIOD_S
            steps.append(self.load.look(Measures(**measures), self.now))  # type: ignore[arg-type]
        return steps


def test_a_calm_node_gives_up_nothing() -> None:
    assert set(Node().run(20, lag_s=0.02, outbox_bytes=300, memory_bytes=6_000)) == {Step.NORMAL}


def test_one_pause_is_no_overload() -> None:
    node = Node()
    node.run(5)
    assert node.run(PERIOD_S, lag_s=0.9) == [Step.NORMAL]
    assert set(node.run(5)) == {Step.NORMAL}


@pytest.mark.parametrize("pause_s", [0.6, 2.0, 60.0])
def test_a_stop_of_the_process_is_no_overload(pause_s: float) -> None:
    node = Node()
    node.run(5)
    node.now += pause_s
    assert node.run(PERIOD_S, lag_s=pause_s) == [Step.NORMAL]
    assert set(node.run(5)) == {Step.NORMAL}


def test_lag_that_stays_ends_with_nobody_let_in_and_nobody_shed() -> None:
    node = Node()
    steps = node.run(20, lag_s=0.4)
    assert steps[-1] is Step.ADMISSION
    assert steps == sorted(steps)
    between = steps.index(Step.ADMISSION) - steps.index(Step.OPTIONAL)
    assert between * PERIOD_S == pytest.approx(CLIMB_S, abs=PERIOD_S)
    assert node.load.lag_s == pytest.approx(0.4)


@pytest.mark.parametrize("measure", ["outbox_bytes", "memory_bytes"])
def test_bytes_over_their_bound_take_every_step(measure: str) -> None:
    steps = Node().run(4, **{measure: 20_000})
    assert [steps.index(step) for step in Step if step] == [0, 8, 16]


def test_what_is_no_longer_bytes_climbs_no_further() -> None:
    node = Node()
    assert node.run(1.5, memory_bytes=10_000, lag_s=0.5)[-1] is Step.ADMISSION
    assert node.run(5, lag_s=0.5)[-1] is Step.ADMISSION


def test_between_the_bounds_nothing_changes() -> None:
    node = Node()
    node.run(1.5, outbox_bytes=1_000)
    assert node.load.step is Step.ADMISSION
    assert set(node.run(60, outbox_bytes=800)) == {Step.ADMISSION}


def test_it_goes_back_one_by_one_when_it_was_calm_for_long_enough() -> None:
    node = Node()
    node.run(4, outbox_bytes=1_000)
    steps = node.run(RECOVERY_S, outbox_bytes=600)
    times = [(steps.index(step) + 1) * PERIOD_S for step in (Step.ADMISSION, Step.OPTIONAL, Step.NORMAL)]
    assert times == pytest.approx([CALM_S, CALM_S + CLIMB_S, CALM_S + 2 * CLIMB_S], abs=2 * PERIOD_S)


def test_what_is_not_bounded_is_not_looked_at() -> None:
    node = Node(Measures())
    assert set(node.run(20, lag_s=9.0, outbox_bytes=1 << 40, memory_bytes=1 << 40)) == {Step.NORMAL}


@pytest.mark.parametrize("seed", range(50))
def test_after_any_load_it_is_well_in_ten_seconds(seed: int) -> None:
    chance = random.Random(seed)
    node = Node()
    last = Step.NORMAL
    for _ in range(30):
        lag_s = chance.choice([0.0, 0.1, 0.24, 0.26, 1.0, 30.0])
        node.now += lag_s  # a loop that is late is looked at late
        for step in node.run(
            chance.uniform(0.1, 3),
            lag_s=lag_s,
            outbox_bytes=chance.choice([0, 699, 701, 999, 1_001]),
            memory_bytes=chance.choice([0, 5_000, 9_000, 11_000]),
        ):
            assert abs(step - last) <= 1, f"seed {seed}"
            last = step
    assert node.run(RECOVERY_S)[-1] is Step.NORMAL, f"seed {seed}"
