"""hub/broker/redis/slot_queues.py: whatever servers do with calls, those of a slot are run in their order."""

from __future__ import annotations

import asyncio
import random

import pytest

from hub.broker.redis.commands import CallKind, CallLimits, RedisCall
from hub.broker.redis.slot_queues import SlotQueues
from hub.errors import BrokerError


class Server:
    """Takes calls, and runs or gives them back when told. It stands for a connection and its Redis."""

    def __init__(self) -> None:
        self.has: list[RedisCall] = []
        self.ran: list[int] = []

    def call(self, call: RedisCall) -> asyncio.Future[object]:
        call.future = asyncio.get_running_loop().create_future()
        call.deadline = asyncio.get_running_loop().time() + 2
        self.has.append(call)
        return call.future

    def adopt(self, call: RedisCall) -> None:
        self.has.append(call)

    def run(self, count: int = 1) -> None:
        for _ in range(count):
            call = self.has.pop(0)
            self.ran.append(int(call.parts[0]))
            if not call.future.done():
                call.future.set_result(None)


class World:
    def __init__(self, limits: CallLimits | None = None) -> None:
        self.here = Server()
        self.there = Server()
        self.place = self.here
        self.queues = SlotQueues(lambda _: self.place, limits or CallLimits())  # type: ignore[arg-type, return-value]
        self._made = 0

    def make(self) -> asyncio.Future[object]:
        self._made += 1
        return self.queues.call(RedisCall((b"%d" % self._made,), int, CallKind.READ, slot_key=b"hub{c}"))

    def give_back(self, server: Server, count: int = 1) -> None:
        for _ in range(count):
            self.queues.give_back(server.has.pop(0))


def numbers(server: Server) -> list[int]:
    return [int(call.parts[0]) for call in server.has]


async def test_a_call_goes_straight_to_its_server() -> None:
    world = World()
    world.make()
    world.make()
    assert numbers(world.here) == [1, 2]
    assert not world.queues.in_doubt


async def test_calls_made_behind_one_that_was_given_back_wait_for_it() -> None:
    world = World()
    first = world.make()
    world.give_back(world.here)
    assert world.queues.in_doubt
    world.make()
    assert numbers(world.here) == []
    world.place = world.there
    world.queues.go_on()
    assert numbers(world.there) == [1, 2]
    world.there.run(2)
    assert await first is None


async def test_calls_to_a_new_server_wait_for_those_that_the_old_one_still_has() -> None:
    world = World()
    world.make()
    world.make()
    world.place = world.there
    world.make()
    assert numbers(world.there) == []
    world.here.run()
    await asyncio.sleep(0)
    assert numbers(world.there) == []
    world.here.run()
    await asyncio.sleep(0)
    assert numbers(world.there) == [3]


async def test_what_the_old_server_gives_back_late_goes_before_what_was_made_since() -> None:
    world = World()
    world.make()
    world.make()
    world.place = world.there
    world.make()
    world.give_back(world.here)
    world.queues.go_on()
    assert numbers(world.there) == []  # the second is still with the old one
    world.give_back(world.here)
    world.queues.go_on()
    assert numbers(world.there) == [1, 2, 3]


async def test_a_call_whose_time_is_over_fails_and_holds_nobody_up() -> None:
    world = World(CallLimits(budget_s=0.05))
    first = world.make()
    world.here.has[0].deadline = 0.0
    world.give_back(world.here)
    waiting = world.make()
    for future in (first, waiting):
        with pytest.raises(BrokerError, match="not done in time"):
            await future
    world.make()
    assert numbers(world.here) == [3]


async def test_what_waits_is_bounded() -> None:
    world = World(CallLimits(pending_bytes_max=1000))
    world.make()
    world.give_back(world.here)
    waiting = [world.make() for _ in range(4)]
    with pytest.raises(BrokerError, match="too many"):
        await waiting[-1]
    assert not waiting[0].done()


async def test_what_waits_at_the_end_fails() -> None:
    world = World()
    first = world.make()
    world.give_back(world.here)
    second = world.make()
    world.queues.stop()
    for future in (first, second):
        with pytest.raises(BrokerError, match="stopped"):
            await future


@pytest.mark.parametrize("seed", range(200))
async def test_any_course_of_events_keeps_the_order(seed: int) -> None:
    chance = random.Random(seed)
    world = World()
    futures = []
    ran: list[int] = []
    for _ in range(60):
        match chance.randrange(5):
            case 0 | 1:
                futures.append(world.make())
            case 2:
                world.place = chance.choice([world.here, world.there])
                world.queues.go_on()
            case 3:
                server = chance.choice([world.here, world.there])
                count = chance.randint(0, len(server.has))
                ran.extend(numbers(server)[:count])
                server.run(count)
            case 4:
                # A server that refuses one call refuses all that it has.
                server = chance.choice([world.here, world.there])
                world.give_back(server, len(server.has))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    for _ in range(4):
        world.queues.go_on()
        for server in (world.here, world.there):
            ran.extend(numbers(server))
            server.run(len(server.has))
        await asyncio.sleep(0)
    assert ran == sorted(ran)
    assert len(ran) == len(futures)
    assert all(future.done() for future in futures)
