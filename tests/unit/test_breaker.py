"""hub/broker/breaker.py: which calls are admitted."""

from __future__ import annotations

import pytest

from hub.broker.breaker import Breaker, BreakerState


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(failures_max=3, open_s=2.0)
    for _ in range(3):
        breaker.failed(now)
    return breaker


def test_a_new_breaker_is_closed() -> None:
    breaker = Breaker()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(0.0)


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures_max=3, open_s=2.0)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.admit(0.0)
    for _ in range(3):
        assert breaker.state is BreakerState.CLOSED
        breaker.failed(0.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit(0.0)


def test_an_open_breaker_admits_one_call_after_its_time() -> None:
    breaker = opened(10.0)
    assert not breaker.admit(11.9)
    assert breaker.admit(12.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.admit(12.0)


def test_a_trial_that_succeeds_closes_it() -> None:
    breaker = opened()
    assert breaker.admit(2.0)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(2.0)
    breaker.failed(2.0)
    assert breaker.admit(2.0), "the failures before it count no longer"


def test_a_trial_that_fails_keeps_it_open() -> None:
    breaker = opened()
    assert breaker.admit(2.0)
    breaker.failed(2.5)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admit(4.4)
    assert breaker.admit(4.5)


def test_after_a_trial_without_an_outcome_another_is_admitted() -> None:
    breaker = opened()
    assert breaker.admit(2.0)
    assert not breaker.admit(3.9)
    assert breaker.admit(4.0)


@pytest.mark.parametrize("arguments", [(0, 1.0), (1, 0.0)])
def test_limits(arguments: tuple[int, float]) -> None:
    with pytest.raises(AssertionError):
        Breaker(*arguments)
