"""hub.node.queue: how a crowd comes in, one in each turn of the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

from hub.node.queue import BURST_S, WAIT_MAX_S, Door, Line

NOW = 1_000.0


def nobody() -> None:
    raise AssertionError("no turn has come")


async def test_one_goes_through_at_once_and_the_next_one_in_the_next_turn() -> None:
    line = Door(100).handshakes
    for _ in range(3):
        assert line.passes()
        assert not line.passes()
        await asyncio.sleep(0)


async def test_those_who_wait_go_in_order_and_before_those_who_come() -> None:
    line = Door(100).handshakes
    gone: list[int] = []
    assert line.passes()
    for number in range(3):
        assert line.wait(partial(gone.append, number), NOW)
    for turn in range(1, 4):
        await asyncio.sleep(0)
        assert gone == list(range(turn))
        assert not line.passes()
    await asyncio.sleep(0)
    assert line.passes()


async def test_who_is_inside_goes_before_those_at_the_door() -> None:
    door = Door(100)
    gone: list[str] = []
    assert door.handshakes.passes()
    assert door.handshakes.wait(lambda: gone.append("handshake"), NOW)
    assert not door.connects.passes()
    assert door.connects.wait(lambda: gone.append("connect"), NOW)
    await asyncio.sleep(0)
    assert gone == ["connect"]
    await asyncio.sleep(0)
    assert gone == ["connect", "handshake"]


def test_one_more_than_may_wait_is_told() -> None:
    line = Door(2).handshakes
    assert line.wait(nobody, NOW)
    assert line.wait(nobody, NOW)
    assert not line.wait(nobody, NOW)


async def stands(line: Line, crowd: int) -> float:
    """Have a line stand for as long as a crowd may that comes once. Returns the time."""
    assert line.passes()
    for _ in range(crowd):
        assert line.wait(lambda: None, NOW)
    return NOW + BURST_S + 0.01


async def test_a_crowd_that_comes_once_may_wait_for_long() -> None:
    line = Door(100).handshakes
    late = await stands(line, 10)
    assert line.wait(lambda: None, late - 1)
    assert line.wait(lambda: None, late - 0.1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.wait(lambda: None, late + 0.1), "more come than go through"


async def test_in_a_crowd_that_does_not_end_who_comes_is_told() -> None:
    line = Door(100).handshakes
    late = await stands(line, 1)
    assert line.wait(lambda: None, late - WAIT_MAX_S / 2)
    assert line.refuses(late), "nobody went through"
    assert not line.wait(nobody, late)
    await asyncio.sleep(0)
    assert line.wait(lambda: None, late), "the first has not waited for long"
    assert not line.wait(nobody, late + WAIT_MAX_S)


async def test_a_line_that_was_empty_begins_anew() -> None:
    line = Door(100).handshakes
    late = await stands(line, 1)
    assert not line.wait(nobody, late)
    await asyncio.sleep(0)
    assert not line.refuses(late)
    assert line.wait(nobody, late)
    assert line.wait(nobody, late + BURST_S)
