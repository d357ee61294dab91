"""The client's waits, timers and addresses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.client.address import endpoint
from hub.client.backoff import RETRY_AFTER_MAX_S, backoff_s, retry_after_s
from hub.client.timers import Timers


@given(st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_its_bounds_and_never_the_bound_alone(attempt: int, chance: float) -> None:
    wait_s = backoff_s(attempt, 0.5, 20.0, chance)
    assert 0.5 <= wait_s <= 20.0
    if attempt > 6:
        assert wait_s == pytest.approx(0.5 + 19.5 * chance)  # chance decides, however often it was tried


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("-7", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("Tue, 14 Nov 2023 22:13:25 GMT", 5),
        ("Tue, 14 Nov 2023 22:13:25", 5),
        ("Tue, 14 Nov 2023 22:13:15 GMT", 0),
        ("Tue, 14 Nov 2123 22:13:25 GMT", RETRY_AFTER_MAX_S),
        ("Tue, 99 Nov 2023 22:13:25 GMT", 0),
    ],
)
def test_a_retry_after(header: str | None, wait_s: float) -> None:
    assert retry_after_s(header, 1_700_000_000) == wait_s


def test_timers_run_in_their_order() -> None:
    timers = Timers()
    ran: list[str] = []

    def add() -> None:
        timers.at(1, lambda: ran.append("d"))

    assert timers.deadline == math.inf
    timers.at(2, lambda: ran.append("b"))
    first = timers.at(1, lambda: ran.append("a"))
    timers.at(2, lambda: ran.append("c"))
    timers.at(2, add)
    timers.at(9, lambda: ran.append("later"))
    first.cancel()
    assert timers.deadline == 2
    timers.run(1.9)
    assert ran == []
    timers.run(2)
    assert ran == ["b", "c", "d"]
    assert timers.deadline == 9


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/connection/websocket"),
        ("https://hub.example/", "wss://hub.example/connection/websocket"),
        ("https://hub.example/live/", "wss://hub.example/live/connection/websocket"),
        ("ws://hub.example", "ws://hub.example/connection/websocket"),
        ("wss://hub.example/own/path", "wss://hub.example/own/path"),
        ("http://hub.example/connection/websocket?a=1#b", "ws://hub.example/connection/websocket?a=1"),
    ],
)
def test_an_address(url: str, address: str) -> None:
    assert endpoint(url) == address


@pytest.mark.parametrize("url", ["", "hub.example", "ftp://hub.example", "http://", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"no address of a hub|Invalid IPv6"):
        endpoint(url)
