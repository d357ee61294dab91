"""The levels of what must not grow: tasks, timers, descriptors, subscriptions and memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from loadtests.chaos.app import LEVELS
from loadtests.chaos.stage import Stage

POLL_S = 1.0
TIMEOUT_S = 60.0


@dataclass
class Levels:
    """Of all nodes together.

    Args:
        tasks: running, by the name of their coroutine.
        timers: pending, by the name of their callback.
        descriptors: open files and sockets.
        subscriptions: of Redis, over all pub/sub channels.
        connections: that Redis has from the nodes.
    """

    tasks: Counter[str] = field(default_factory=Counter)
    timers: Counter[str] = field(default_factory=Counter)
    descriptors: int = 0
    subscriptions: int = 0
    connections: int = 0

    def above(self, start: Levels) -> dict[str, str]:
        """The levels that are above those at the start, each with what is new."""
        found = {}
        for name in ("tasks", "timers"):
            now, then = getattr(self, name), getattr(start, name)
            if now.total() > then.total():
                found[name] = f"{then.total()} → {now.total()}: {dict(now - then)}"
        for name in ("descriptors", "subscriptions", "connections"):
            now, then = getattr(self, name), getattr(start, name)
            if now > then:
                found[name] = f"{then} → {now}"
        return found


async def measure(stage: Stage) -> Levels:
    """Measure now."""
    levels = Levels()
    async with httpx.AsyncClient(timeout=10.0, headers={"Connection": "close"}) as client:
        for node in stage.cluster.nodes:
            answer = (await client.get(f"{node.url}{LEVELS}")).json()
            levels.tasks.update(answer["tasks"])
            levels.timers.update(answer["timers"])
            levels.descriptors += answer["descriptors"]
    channels = await stage.call("PUBSUB", "CHANNELS")
    if channels:
        levels.subscriptions = sum((await stage.call("PUBSUB", "NUMSUB", *channels))[1::2])
    clients = (await stage.call("CLIENT", "LIST")).decode().splitlines()
    levels.connections = sum("cmd=client" not in each for each in clients)
    return levels


async def lowest(stage: Stage) -> Levels:
    """Measure until nothing falls any more: of each level the lowest of a few measurements."""
    seen = []
    for _ in range(5):
        seen.append(await measure(stage))
        await asyncio.sleep(POLL_S / 2)
    return Levels(
        min((each.tasks for each in seen), key=Counter.total),
        min((each.timers for each in seen), key=Counter.total),
        *(
            min(getattr(each, name) for each in seen)
            for name in ("descriptors", "subscriptions", "connections")
        ),
    )


async def back_to(stage: Stage, start: Levels) -> dict[str, str]:
    """Wait until all levels are back at those of the start. Returns those that stay above, after a time."""
    above: dict[str, str] = {"all": "not measured"}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TIMEOUT_S
    while above and loop.time() < deadline:
        await asyncio.sleep(POLL_S)
        above = (await measure(stage)).above(start)
    return above


def memory(stage: Stage) -> list[int]:
    """Resident bytes of each node."""
    return [int(psutil.Process(node.pid).memory_info().rss) for node in stage.cluster.nodes]


def peaks(stage: Stage) -> list[int]:
    """The most resident bytes that each node ever held."""
    found = []
    for node in stage.cluster.nodes:
        status = Path(f"/proc/{node.pid}/status").read_text()
        found.append(1024 * int(status.partition("VmHWM:")[2].split()[0]))
    return found
