"""hub.node.queue: how a crowd comes in, one in each turn of the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

from hub.node.boundary import Boundary
from hub.node.queue import BURST_S, SHORT, WAIT_MAX_S, AdmissionQueue, AdmissionTurns
from hub.telemetry import Metrics

NOW = 1_000.0


def nobody() -> None:
    raise AssertionError("no turn has come")


async def test_one_goes_through_at_once_and_the_next_one_in_the_next_turn() -> None:
    queue = AdmissionTurns(100).handshakes
    for _ in range(3):
        assert queue.admit()
        assert not queue.admit()
        await asyncio.sleep(0)


async def test_those_who_wait_go_in_order_and_before_those_who_come() -> None:
    queue = AdmissionTurns(100).handshakes
    gone: list[int] = []
    assert queue.admit()
    for number in range(3):
        assert queue.wait(partial(gone.append, number), NOW)
    for turn in range(1, 4):
        await asyncio.sleep(0)
        assert gone == list(range(turn))
        assert not queue.admit()
    await asyncio.sleep(0)
    assert queue.admit()


async def test_who_is_inside_goes_before_those_at_the_turns() -> None:
    turns = AdmissionTurns(100)
    gone: list[str] = []
    assert turns.handshakes.admit()
    assert turns.handshakes.wait(lambda: gone.append("handshake"), NOW)
    assert not turns.connects.admit()
    assert turns.connects.wait(lambda: gone.append("connect"), NOW)
    await asyncio.sleep(0)
    assert gone == ["connect"]
    await asyncio.sleep(0)
    assert gone == ["connect", "handshake"]


def test_one_more_than_may_wait_is_told() -> None:
    queue = AdmissionTurns(2).handshakes
    assert queue.wait(nobody, NOW)
    assert queue.wait(nobody, NOW)
    assert not queue.wait(nobody, NOW)


async def waits_long(queue: AdmissionQueue, clients: int) -> float:
    """Have clients wait for as long as a flood may that comes once. Returns the time."""
    assert queue.admit()
    for _ in range(clients):
        assert queue.wait(lambda: None, NOW)
    return NOW + BURST_S + 0.01


async def test_a_flood_that_comes_once_may_wait_for_long() -> None:
    queue = AdmissionTurns(1000).handshakes
    late = await waits_long(queue, SHORT + 10)
    assert queue.wait(lambda: None, late - 1)
    assert queue.wait(lambda: None, late - 0.1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert queue.wait(lambda: None, late + 0.1), "more come than go through"


async def test_a_flood_that_does_not_end_is_refused() -> None:
    queue = AdmissionTurns(1000).handshakes
    late = await waits_long(queue, SHORT + 1)
    assert queue.wait(lambda: None, late - WAIT_MAX_S / 2)
    assert queue.should_reject(late), "nobody went through"
    assert not queue.wait(nobody, late)


async def test_a_short_queue_refuses_nobody_however_long_it_lasts() -> None:
    queue = AdmissionTurns(1000).handshakes
    late = await waits_long(queue, SHORT - 1)
    assert queue.wait(lambda: None, late)
    assert queue.wait(lambda: None, late + 60)
    assert not queue.wait(nobody, late + 60), "it is short no longer"


async def test_a_queue_that_was_empty_starts_over() -> None:
    queue = AdmissionTurns(1000).handshakes
    late = await waits_long(queue, SHORT + 1)
    assert not queue.wait(nobody, late)
    for _ in range(SHORT + 3):
        await asyncio.sleep(0)
    assert not queue.should_reject(late)
    assert queue.wait(nobody, late)
    assert queue.wait(nobody, late + BURST_S)


async def test_what_letting_a_client_in_raises_holds_up_nobody() -> None:
    boundary = Boundary(Metrics())
    queue = AdmissionTurns(10, boundary).handshakes
    gone: list[int] = []
    assert queue.admit()
    assert queue.wait(nobody, NOW)
    assert queue.wait(lambda: gone.append(1), NOW)
    for _ in range(3):
        await asyncio.sleep(0)
    assert gone == [1]
