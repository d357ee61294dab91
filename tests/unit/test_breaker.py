"""hub/broker/breaker.py: when calls may go."""

from __future__ import annotations

import pytest

from hub.broker.breaker import Breaker, BreakerState


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(failures_max=3, open_s=2.0)
    for _ in range(3):
        breaker.failed(now)
    return breaker


def test_it_begins_closed() -> None:
    breaker = Breaker()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allows(0.0)


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures_max=3, open_s=2.0)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.allows(0.0)
    for _ in range(3):
        assert breaker.state is BreakerState.CLOSED
        breaker.failed(0.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows(0.0)


def test_open_it_lets_one_through_after_its_time() -> None:
    breaker = opened(10.0)
    assert not breaker.allows(11.9)
    assert breaker.allows(12.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allows(12.0)


def test_a_trial_that_succeeds_closes_it() -> None:
    breaker = opened()
    assert breaker.allows(2.0)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allows(2.0)
    breaker.failed(2.0)
    assert breaker.allows(2.0), "the failures before it count no longer"


def test_a_trial_that_fails_opens_it_for_another_time() -> None:
    breaker = opened()
    assert breaker.allows(2.0)
    breaker.failed(2.5)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows(4.4)
    assert breaker.allows(4.5)


def test_a_trial_without_an_outcome_makes_room_for_another() -> None:
    breaker = opened()
    assert breaker.allows(2.0)
    assert not breaker.allows(3.9)
    assert breaker.allows(4.0)


def test_it_can_be_opened_at_once() -> None:
    breaker = Breaker(failures_max=3, open_s=2.0)
    breaker.trip(1.0)
    assert not breaker.allows(2.9)
    assert breaker.allows(3.0)


@pytest.mark.parametrize("arguments", [(0, 1.0), (1, 0.0)])
def test_limits(arguments: tuple[int, float]) -> None:
    with pytest.raises(AssertionError):
        Breaker(*arguments)
