"""One run: a plan from the seed, its faults beside steady publishing, and what came of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from loadtests.chaos import hostile
from loadtests.chaos.clients import (
    Asking,
    Bystander,
    CarefulPublisher,
    Exile,
    HonestSubscriber,
    Kind,
    PlainSubscriber,
    StreamSubscriber,
)
from loadtests.chaos.exile import revoke
from loadtests.chaos.handlers import failing_connects, failing_handlers
from loadtests.chaos.levels import Levels, back_to, lowest, memory, peaks
from loadtests.chaos.outages import OUTAGES
from loadtests.chaos.stage import CONFIG, PEOPLE, SOUND, VICTIM, Stage
from loadtests.chaos.vandals import (
    expired_position,
    foreign_entry,
    garbage_in_the_bus_log,
    garbage_messages,
    garbage_on_the_bus,
    wrong_type,
)
from loadtests.chaos.verdict import Verdict, check
from loadtests.crowd import settled
from loadtests.faults.clients import Client, Subscriber, subscribed
from loadtests.faults.cluster import Cluster

PROGRAM = ("-m", "loadtests.chaos.app")
CONNECT_STEP = 50
CONNECT_TIMEOUT_S = 60.0
SETTLE_S = 5.0
"""Publishing goes on for so long after the last fault: longer than a connection's longest back-off."""
BYSTANDERS = 8
ASKING = 6
PAUSE_S = (0.2, 4.0)
"""Between two faults of a lane in a long run. A short run pauses less, so that it has all faults, too."""


async def drop_links(stage: Stage) -> str:
    """Break the connections of a part of the honest clients from their side."""
    chosen = stage.chance.sample(list(stage.honest), max(1, len(stage.honest) // 10))
    for client in chosen:
        client.drop_link()
    return f"{len(chosen)} clients dropped their connection"


async def revoke_anywhere(stage: Stage) -> str:
    """Revoke a user through any node."""
    return await revoke(stage)


INTRUSIONS: dict[str, Callable[[Stage], Awaitable[str]]] = {
    "drop-links": drop_links,
    "revoke": revoke_anywhere,
    "failing-handlers": failing_handlers,
    "failing-connects": failing_connects,
    "bus-garbage": garbage_on_the_bus,
    "bus-log-garbage": garbage_in_the_bus_log,
    "message-garbage": garbage_messages,
    "foreign-entry": foreign_entry,
    "wrong-type": wrong_type,
    "expired-position": expired_position,
    "odd-frames": hostile.odd_frames,
    "thousand-commands": hostile.thousand_commands,
    "history-flood": hostile.history_flood,
    "dripping-requests": hostile.dripping_requests,
    "wrong-keys": hostile.wrong_keys,
}
"""Faults that come from clients, handlers and foreign writers of Redis."""


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Args:
        seed: of all that is random.
        seconds: of faults.
        clients: that count messages, in the sound channels.
        channels: sound ones.
        rate: publications a second into each sound channel.
        only: names of faults, to run no others; empty for all.
    """

    seed: int
    seconds: float
    clients: int = 500
    channels: int = 20
    rate: float = 2.0
    only: frozenset[str] = frozenset()


async def run(plan: Plan) -> Verdict:
    """Run a plan."""
    assert plan.only <= OUTAGES.keys() | INTRUSIONS.keys(), f"unknown fault in {sorted(plan.only)}"
    loop = asyncio.get_running_loop()
    async with Cluster(config=CONFIG, program=PROGRAM) as cluster:
        chance = random.Random(plan.seed)  # noqa: S311 - replayed by its seed
        everybody: list[Client] = []
        stage = Stage(cluster, chance, [], [], {}, [], [])
        # What a client of the run cannot read is a fault of the hub, or of the run itself.
        loop.set_exception_handler(lambda _, context: stage.fail(f"a client failed: {context}"))
        try:
            await hostile.seed_flood(stage)
            await _warm_up(stage)
            empty = await lowest(stage)
            await _enter(stage, plan, everybody)
            full = memory(stage)
            stage.say(
                f"all clients are connected; memory of the nodes in MB: {[each >> 20 for each in full]}"
            )
            await _inject_all(stage, plan)
            return await _judge(stage, plan, empty, full, everybody)
        finally:
            for client in everybody:
                client.end()
            await asyncio.sleep(0)
            loop.set_exception_handler(None)


async def _warm_up(stage: Stage) -> None:
    """Have each node serve one client of each kind, so that what it makes once is there."""
    for ports in (stage.cluster.ports, stage.cluster.ports[::-1]):
        clients: list[Subscriber] = [PlainSubscriber(ports, f"{SOUND}:0")]
        clients += [
            StreamSubscriber(ports, f"{SOUND}:0", "sse", posts_elsewhere=each) for each in (False, True)
        ]
        await subscribed(clients, CONNECT_TIMEOUT_S)
        for client in clients:
            client.end()
    await asyncio.sleep(SETTLE_S)


async def _enter(stage: Stage, plan: Plan, everybody: list[Client]) -> None:
    """Connect all clients. Of the honest ones a quarter log in each time, half use reconnect tokens, and a
    quarter are streams."""
    ports = stage.cluster.ports
    channels = [f"{SOUND}:{number}" for number in range(plan.channels)]
    honest: list[HonestSubscriber] = []
    for number in range(plan.clients):
        order, channel = ports[:: 1 if number % 2 else -1], channels[number // 8 % plan.channels]
        match number // 2 % 4:
            case 0:
                client: HonestSubscriber = PlainSubscriber(order, channel)
            case 1:
                kind: Kind = "sse" if number // 8 % 2 else "http_stream"
                client = StreamSubscriber(order, channel, kind, posts_elsewhere=number // 16 % 2 == 1)
            case _:
                client = HonestSubscriber(order, channel)
        honest.append(client)
        everybody.append(client)
        if number % CONNECT_STEP == CONNECT_STEP - 1:
            await subscribed(honest, CONNECT_TIMEOUT_S)
    await subscribed(honest, CONNECT_TIMEOUT_S)
    assert all(client.subscribed.is_set() for client in honest), "not all could subscribe"
    stage.honest = honest
    stage.publishers = [
        CarefulPublisher(order, digit, channels) for digit, order in enumerate((ports, ports[::-1]))
    ]
    revocations = max(5, int(plan.seconds / 8))
    for number in range(revocations):
        user = f"exile-{number}"
        stage.exiles[user] = [Exile(order, user, PEOPLE) for order in (ports, ports[::-1], ports[::-1])]
    stage.bystanders = [
        Bystander(ports[:: 1 if number % 2 else -1], f"{VICTIM}:{number // 2}")
        for number in range(BYSTANDERS)
    ]
    stage.asking = [Asking(ports[:: 1 if number % 2 else -1], f"asking-{number}") for number in range(ASKING)]
    everybody += [
        *stage.publishers,
        *itertools.chain(*stage.exiles.values()),
        *stage.bystanders,
        *stage.asking,
    ]
    ready = [each.ready for each in stage.publishers] + [each.ready for each in stage.asking]
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        await asyncio.gather(*(event.wait() for event in ready))
        while not all(exile.is_in for exiles in stage.exiles.values() for exile in exiles):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _inject_all(stage: Stage, plan: Plan) -> None:
    """Run two lanes of faults beside steady publishing: outages, and all others."""
    rate = plan.rate * plan.channels / len(stage.publishers)
    steady = [asyncio.create_task(publisher.publish_steadily(rate)) for publisher in stage.publishers]
    end = time.monotonic() + plan.seconds
    stage.began = time.monotonic()
    try:
        # Each lane has a generator of its own: its faults do not depend on the speed of the other lane.
        await asyncio.gather(
            _lane(stage, plan, OUTAGES, end, random.Random(f"{plan.seed} outages"), is_outage=True),  # noqa: S311
            _lane(stage, plan, INTRUSIONS, end, random.Random(f"{plan.seed} others"), is_outage=False),  # noqa: S311
        )
        await asyncio.sleep(SETTLE_S)
    finally:
        for task in steady:
            task.cancel()


async def _lane(
    stage: Stage,
    plan: Plan,
    faults: Mapping[str, Callable[[Stage], Awaitable[str]]],
    end: float,
    chance: random.Random,
    *,
    is_outage: bool,
) -> None:
    """Draw faults until the time is over: every kind once in a round, each round in another order."""
    names = sorted(faults.keys() & plan.only if plan.only else faults)
    stage = replace(stage, chance=chance)
    pause_max_s = min(PAUSE_S[1], plan.seconds / 15)
    while names:
        for name in chance.sample(names, len(names)):
            await asyncio.sleep(chance.uniform(min(PAUSE_S[0], pause_max_s), pause_max_s))
            if time.monotonic() >= end:
                return
            await _inject(stage, name, faults[name], is_outage=is_outage)


async def _inject(
    stage: Stage, name: str, fault: Callable[[Stage], Awaitable[str]], *, is_outage: bool
) -> None:
    stage.injected[name] += 1
    try:
        if is_outage:
            async with stage.outage():
                said = await fault(stage)
        else:
            said = await fault(stage)
    except (OSError, TimeoutError, AssertionError, EOFError) as exc:
        stage.fail(f"{name} broke off: {exc!r}")
    else:
        stage.say(f"{name}: {said}")


async def _judge(
    stage: Stage, plan: Plan, empty: Levels, full: list[int], everybody: list[Client]
) -> Verdict:
    """Let everything settle, check it, have all clients leave, and compare the levels."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONNECT_TIMEOUT_S
    while any(publisher.waiting for publisher in stage.publishers) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    histories = await stage.cluster.histories(sorted({client.channel for client in stage.honest}))
    await settled(stage.honest, histories)
    verdict = await check(stage, histories)
    for client in everybody:
        client.end()
    above = await back_to(stage, empty)
    verdict.add_levels(above, full, memory(stage), peaks(stage))
    return verdict
