"""One run: a cluster, clients, a fault, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from loadtests.faults.clients import Publisher, Subscriber, subscribed
from loadtests.faults.cluster import NAMESPACE, NEVER_OVERLOADED, Cluster, History
from loadtests.faults.injections import Fault, Scene
from loadtests.faults.verdict import Verdict, judge

CONNECT_STEP = 50
CONNECT_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 30.0
AFTER_S = 2.5
"""Publishing goes on for at least so long after a fault: longer than a link's longest back-off."""


async def run(
    fault: Fault, *, subscribers: int, seconds: float, rate: float = 5.0, freeze_s: float = 10.0
) -> Verdict:
    """Inject a fault while two nodes serve.

    Args:
        subscribers: on each node.
        seconds: of publishing; the fault begins after a quarter of it, and publishing outlasts it.
        rate: publications a second into each channel, from each node.
        freeze_s: how long a server stands still that is frozen.
    """
    channels = [f"{NAMESPACE}:{number}" for number in range(fault.channels)]
    async with Cluster(fault.redis, NEVER_OVERLOADED) as cluster:
        ports = [cluster.ports, cluster.ports[::-1]]
        clients: list[Subscriber] = []
        for number in range(subscribers):
            clients += [Subscriber(each, channels[number % len(channels)]) for each in ports]
            if number % CONNECT_STEP == CONNECT_STEP - 1:
                await subscribed(clients, CONNECT_TIMEOUT_S)
        await subscribed(clients, CONNECT_TIMEOUT_S)
        assert all(client.subscribed.is_set() for client in clients), "not all could subscribe"
        publishers = [Publisher(each, number, channels) for number, each in enumerate(ports)]
        try:
            await asyncio.gather(*(publisher.ready.wait() for publisher in publishers))
            verdict = await _publish_and_judge(
                Scene(cluster, publishers, freeze_s), fault, clients, channels, seconds, rate
            )
        finally:
            for client in (*clients, *publishers):
                client.end()
            await asyncio.sleep(0)
    return verdict


async def _publish_and_judge(
    scene: Scene,
    fault: Fault,
    clients: Sequence[Subscriber],
    channels: list[str],
    seconds: float,
    rate: float,
) -> Verdict:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    steady = [
        asyncio.create_task(publisher.publish_steadily(rate * len(channels)))
        for publisher in scene.publishers
    ]
    await asyncio.sleep(seconds / 4)
    await fault.inject(scene)
    await asyncio.sleep(max(end - loop.time(), AFTER_S))
    for task in steady:
        task.cancel()
    histories = await _settled(scene, clients, channels)
    reads = scene.cluster.history_reads() - len(channels)  # but for those of the judge
    return judge(clients, scene.publishers, histories, history_reads=reads)


async def _settled(scene: Scene, clients: Sequence[Subscriber], channels: list[str]) -> dict[str, History]:
    """Wait until publishers have their answers and subscribers what there is, or for long enough."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_TIMEOUT_S
    while any(publisher.waiting for publisher in scene.publishers) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    histories = await scene.cluster.histories(channels)
    while loop.time() < deadline:
        tops = {channel: (history.epoch, history.offset) for channel, history in histories.items()}
        if all((client.epoch, client.offset) == tops[client.channel] for client in clients):
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # for what comes once too often, and for histories that are on their way
    return histories
