"""hub.node.door: how a crowd comes in, a few in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hub.node.door import BURST_S, PER_TURN, WAIT_MAX_S, Door

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


def test_a_crowd_that_comes_once_may_wait_and_one_that_does_not_end_is_told() -> None:
    line = Door(100).handshakes
    assert line.wait(nobody, NOW)
    assert line.wait(nobody, NOW + BURST_S)
    assert not line.wait(nobody, NOW + BURST_S + 0.01)


async def test_where_the_line_moves_fast_enough_all_who_come_may_wait() -> None:
    line = Door(100).handshakes
    while line.passes():
        pass
    late = NOW + BURST_S
    for _ in range(PER_TURN):
        assert line.wait(lambda: None, NOW)
    assert line.wait(lambda: None, late)
    assert not line.wait(nobody, late + 0.01), "the first of them has waited for seconds"
    await asyncio.sleep(0)
    assert line.wait(lambda: None, late + WAIT_MAX_S / 2)
    assert not line.wait(nobody, late + 2 * WAIT_MAX_S)
