"""A node is killed, and all its clients, of one channel, come to the other one at once.

`python -m loadtests.herd` measures when they are back, how often history is read for them, and how late the
survivor's event loop is meanwhile, which a probe beside the crowd sees as a late answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import uvloop

from loadtests.crowd import Crowd
from loadtests.faults.clients import Publisher
from loadtests.faults.cluster import NAMESPACE, Cluster
from loadtests.faults.verdict import Verdict
from loadtests.probes import Asker, quantile

BACK_S = 10.0
HISTORY_READS_MAX = 10
LAG_MAX_S = 0.25

BEFORE_S = 5.0
RATE = 2.0
"""Publications a second."""


@dataclass
class Figures:
    """What a herd did.

    Args:
        back_s: from the kill until half of them, 99 of 100, and all are subscribed again.
        reads: of the history, by Redis, for all of them.
        before_s: the longest that an answer of the survivor took before it.
        late_s: and since.
        refused: handshakes.
        logins: of those who came back, how many asked the app for a token.
    """

    back_s: list[float] = field(default_factory=list)
    reads: int = 0
    before_s: float = 0.0
    late_s: float = 0.0
    refused: int = 0
    logins: int = 0
    verdict: Verdict = field(default_factory=Verdict)

    def faults(self) -> list[str]:
        """What is not as it should be."""
        verdict = self.verdict
        checks = {
            f"all were back after {self.back_s[-1]:.1f} s": self.back_s[-1] > BACK_S,
            f"the history was read {self.reads} times": self.reads > HISTORY_READS_MAX,
            f"{self.logins} had to log in": self.logins > 0,
            f"the event loop was late by {self.late_s:.3f} s": self.late_s > LAG_MAX_S,
            f"not all arrived once and in order: {verdict}": bool(
                verdict.lost or verdict.duplicated or verdict.out_of_order or verdict.told
            ),
        }
        return [fault for fault, holds in checks.items() if holds]


async def run(clients: int, before_s: float = BEFORE_S, env: Mapping[str, str] | None = None) -> Figures:
    """Kill a node that holds so many clients.

    Args:
        clients: of one channel.
        before_s: how long to look at what is usual.
        env: more of the nodes' environment.
    """
    figures = Figures()
    channels = [f"{NAMESPACE}:all"]
    async with Cluster(env=env) as cluster:
        ports = cluster.ports
        async with Crowd(ports, channels, clients) as crowd:
            publisher, asker = Publisher(ports[::-1], 1, channels), Asker(ports[1:])
            await publisher.ready.wait()
            steady = asyncio.create_task(publisher.publish_steadily(RATE))
            await asyncio.sleep(before_s)
            figures.before_s = max(asker.times_s)
            reads = cluster.history_reads()
            asker.times_s.clear()
            killed_at = time.monotonic()
            await cluster.nodes[0].kill()
            for _ in itertools.count():
                moves = await crowd.moves()
                if len(moves.back_at) >= clients and not moves.away:
                    break
                await asyncio.sleep(0.2)
            figures.late_s = max(asker.times_s)
            figures.reads = cluster.history_reads() - reads
            back = sorted(at - killed_at for at in moves.back_at)
            figures.back_s = [quantile(back, part) for part in (0.5, 0.99, 1.0)]
            figures.refused, figures.logins = len(moves.refused_at), moves.logins - clients
            steady.cancel()
            while publisher.waiting:  # noqa: ASYNC110 - it knows no event
                await asyncio.sleep(0.05)
            figures.verdict = await crowd.judge([publisher], await cluster.histories(channels))
            for client in (publisher, asker):
                client.end()
    return figures


def main() -> int:
    """Run, and fail where something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.herd", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=5000, help="of the node that is killed")
    figures = uvloop.run(run(parser.parse_args().clients))
    print(json.dumps({"back_s": [round(each, 2) for each in figures.back_s], "reads": figures.reads}))
    print(f"late by {figures.late_s * 1000:.0f} ms (before: {figures.before_s * 1000:.0f} ms),", end=" ")
    print(f"refused {figures.refused}, logged in {figures.logins}; {figures.verdict}")
    for fault in figures.faults():
        print(f"MISSED: {fault}")
    return 1 if figures.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
