"""hub.node.door: how a crowd comes in, a few in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hub.node.door import BURST_S, PER_TURN, WAIT_MAX_S, Door, Line

NOW = 1_000.0


def nobody() -> None:
    raise AssertionError("no turn has come")


async def test_so_many_go_through_at_once_and_the_next_ones_in_the_next_turn() -> None:
    line = Door(100).handshakes
    for _ in range(3):
        for _ in range(PER_TURN):
            assert line.passes()
        assert not line.passes()
        await asyncio.sleep(0)


async def test_those_who_wait_go_in_order_and_before_those_who_come() -> None:
    line = Door(100).handshakes
    gone: list[int] = []
    while line.passes():
        pass

    def go(number: int) -> Callable[[], None]:
        return lambda: gone.append(number)

    count = 2 * PER_TURN + 1
    for number in range(count):
        assert line.wait(go(number), NOW)
    for turn in (1, 2):
        await asyncio.sleep(0)
        assert gone == list(range(turn * PER_TURN))
        assert not line.passes()
    await asyncio.sleep(0)
    assert gone == list(range(count))
    assert line.passes()


async def test_who_is_inside_goes_before_those_at_the_door() -> None:
    door = Door(100)
    gone: list[str] = []
    while door.handshakes.passes():
        pass
    assert door.handshakes.wait(lambda: gone.append("handshake"), NOW)
    for _ in range(PER_TURN):
        assert not door.connects.passes()
        assert door.connects.wait(lambda: gone.append("connect"), NOW)
    await asyncio.sleep(0)
    assert gone == ["connect"] * PER_TURN
    await asyncio.sleep(0)
    assert gone[PER_TURN:] == ["handshake"]


def test_one_more_than_may_wait_is_told() -> None:
    line = Door(2).handshakes
    assert line.wait(nobody, NOW)
    assert line.wait(nobody, NOW)
    assert not line.wait(nobody, NOW)


async def stands(line: Line, crowd: int) -> float:
    """Have a line stand for as long as a crowd may that comes once. Returns the time."""
    while line.passes():
        pass
    for _ in range(crowd):
        assert line.wait(lambda: None, NOW)
    return NOW + BURST_S + 0.01


async def test_a_crowd_that_comes_once_may_wait_for_long() -> None:
    line = Door(100).handshakes
    late = await stands(line, 10 * PER_TURN)
    assert line.wait(lambda: None, NOW + 1.1)
    await asyncio.sleep(0)
    assert line.wait(lambda: None, late - 0.1), "more go through than come"
    assert line.wait(lambda: None, late)


async def test_in_a_crowd_that_does_not_end_who_comes_is_told() -> None:
    line = Door(100).handshakes
    late = await stands(line, PER_TURN)
    assert line.wait(lambda: None, late - WAIT_MAX_S / 2)
    assert not line.wait(nobody, late), "nobody went through"
    await asyncio.sleep(0)
    assert line.wait(lambda: None, late), "the first has not waited for long"
    assert not line.wait(nobody, late + WAIT_MAX_S)


async def test_a_line_that_was_empty_begins_anew() -> None:
    line = Door(100).handshakes
    late = await stands(line, PER_TURN)
    assert not line.wait(nobody, late)
    await asyncio.sleep(0)
    assert line.wait(nobody, late)
    assert line.wait(nobody, late + BURST_S)
