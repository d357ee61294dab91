"""A rolling restart of two nodes over Redis, under load: who is away for how long, and what is lost.

`python -m loadtests.roll` makes figures of docs/reliability.md. The subscribers are processes of their own.
This one publishes, and has probes on the node that does not restart: what those see who are not moved.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import uvloop

from hub.cli.roll import roll_hub
from loadtests.crowd import Crowd
from loadtests.faults.clients import Publisher, sdk_backoff
from loadtests.faults.cluster import API_KEY, NAMESPACE, Cluster
from loadtests.faults.verdict import Verdict
from loadtests.probes import p99, probing

CHANNELS = 100
DRAIN_TIMEOUT_S = 30.0
BEFORE_S = 10.0
BACK_S = 2.0
"""What a client has to come back, after the drain's window."""
P99_FACTOR_MAX = 2.0


@dataclass
class Figures:
    """What a rolling restart did.

    Args:
        before_s: the 99th percentile of a publication's way before it, on each node.
        unmoved_s: the same on the other node while one restarts, for each.
        back_s: from the call to restart a node until the last of its clients is back, for each.
        took_s: how long each restart took.
        refused: handshakes that were refused.
        logins: of those who came back, how many asked the app for a token.
    """

    verdict: Verdict = field(default_factory=Verdict)
    before_s: list[float] = field(default_factory=list)
    unmoved_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    refused: int = 0
    logins: int = 0

    def faults(self, window_s: float) -> list[str]:
        """What is not as it should be."""
        verdict = self.verdict
        found = []
        if verdict.lost or verdict.duplicated or verdict.out_of_order or verdict.told:
            found.append(f"not all arrived once and in order: {verdict}")
        if self.logins:
            found.append(f"{self.logins} had to log in")
        if max(self.back_s) > window_s + BACK_S:
            found.append(f"a client was back after {max(self.back_s):.1f} s")
        for before_s, unmoved_s in zip(self.before_s, self.unmoved_s, strict=True):
            if unmoved_s > P99_FACTOR_MAX * before_s:
                found.append(f"p99 went from {before_s * 1000:.1f} to {unmoved_s * 1000:.1f} ms")
        return found


async def run(
    clients: int,
    rate: float,
    window_s: float,
    before_s: float = BEFORE_S,
    env: Mapping[str, str] | None = None,
) -> Figures:
    """Restart two nodes, one after the other, as `hub roll` does.

    Args:
        clients: on both together.
        rate: publications a second, over all channels.
        window_s: of the drain.
        before_s: how long to look at what is usual.
        env: more of the nodes' environment.
    """
    figures = Figures()
    channels = [f"{NAMESPACE}:{number}" for number in range(CHANNELS)]
    env = {
        "HUB_SERVER__DRAIN_WINDOW_S": str(window_s),
        "HUB_SERVER__DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        **(env or {}),
    }
    async with Cluster(env=env) as cluster:
        ports = cluster.ports
        async with (
            Crowd(ports, channels, clients // 2) as one,
            Crowd(ports[::-1], channels, clients - clients // 2) as two,
        ):
            publishers = [
                Publisher(each, number, channels) for number, each in enumerate((ports, ports[::-1]))
            ]
            await asyncio.gather(*(publisher.ready.wait() for publisher in publishers))
            steady = [asyncio.create_task(each.publish_steadily(rate / 2)) for each in publishers]
            for port in ports:
                async with probing(port, channels) as probes:
                    await asyncio.sleep(before_s)
                    figures.before_s.insert(0, p99(probes))  # those of the node that stays, for each
            for index in range(len(ports)):
                async with probing(ports[1 - index], channels) as probes:
                    await _roll(cluster, index, figures, [one, two], clients)
                    figures.unmoved_s.append(p99(probes))
                await asyncio.sleep(sdk_backoff(0))
            for task in steady:
                task.cancel()
            while any(publisher.waiting for publisher in publishers):  # noqa: ASYNC110 - it knows no event
                await asyncio.sleep(0.05)
            histories = await cluster.histories(channels)
            verdicts = [await crowd.judge(publishers, histories) for crowd in (one, two)]
            figures.verdict = _sum(verdicts)
            for publisher in publishers:
                publisher.end()
    return figures


async def _roll(
    cluster: Cluster, index: int, figures: Figures, crowds: Sequence[Crowd], clients: int
) -> None:
    began = time.monotonic()
    await asyncio.to_thread(roll_hub, cluster.nodes[index].url, API_KEY, DRAIN_TIMEOUT_S)
    figures.took_s.append(time.monotonic() - began)
    moves = [await crowd.moves() for crowd in crowds]
    while any(each.away for each in moves):
        await asyncio.sleep(0.1)
        moves = [await crowd.moves() for crowd in crowds]
    figures.back_s.append(max(at for each in moves for at in each.back_at) - began)
    figures.refused = sum(len(each.refused_at) for each in moves)
    figures.logins = sum(each.logins for each in moves) - clients


def _sum(verdicts: Sequence[Verdict]) -> Verdict:
    total = Verdict(published=verdicts[0].published, acknowledged=verdicts[0].acknowledged)
    for name in ("delivered", "lost", "duplicated", "out_of_order", "told", "dropped"):
        setattr(total, name, sum(getattr(verdict, name) for verdict in verdicts))
    return total


def main() -> int:
    """Run, and fail where something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.roll", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=2000, help="on both nodes together")
    parser.add_argument("--rate", type=float, default=200.0, help="publications a second, over all channels")
    parser.add_argument("--window", type=float, default=20.0, help="of the drain, in seconds")
    arguments = parser.parse_args()
    figures = uvloop.run(run(arguments.clients, arguments.rate, arguments.window))
    verdict = figures.verdict
    print(f"published {verdict.published:,}, acknowledged {verdict.acknowledged:,},", end=" ")
    print(f"delivered {verdict.delivered:,}, lost {verdict.lost}, duplicated {verdict.duplicated},", end=" ")
    print(f"out of order {verdict.out_of_order}, told {verdict.told}")
    print(f"sockets moved {verdict.dropped:,}, handshakes refused {figures.refused:,},", end=" ")
    print(f"logged in {figures.logins}")
    for name in ("took_s", "back_s", "before_s", "unmoved_s"):
        print(name, *(f"{value:.3f}" for value in getattr(figures, name)))
    for fault in figures.faults(arguments.window):
        print(f"MISSED: {fault}")
    return 1 if figures.faults(arguments.window) else 0


if __name__ == "__main__":
    sys.exit(main())
