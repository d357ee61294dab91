"""More clients come than a node can take in: what those see who are there, and what those get who are not.

`python -m loadtests.overload` makes figures of docs/reliability.md. First as many come as the node takes, one
after another; then twice as many a second, whether they are taken or not. What is measured is seen by clients
in a process of their own: the crowd's is slow by itself, and gives way to all others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import httpx
import uvloop
from support.rawws import frame, handshake
from websockets.frames import Opcode

from loadtests.crowd import Crowd
from loadtests.faults.clients import PATH, Publisher, login_token
from loadtests.faults.cluster import NAMESPACE, Cluster
from loadtests.probes import p99, probing, quantile

CHANNELS = 100
BEFORE_S = 10.0
CAPACITY_S = 4.0
AT_ONCE = 64
"""Clients that come at a time while the capacity is measured."""

STAY_S = 1.0
PATIENCE_S = 10.0
HEALTHY_S = 10.0
P99_FACTOR_MAX = 3.0
REFUSED_S = 0.25
"""A refusal that takes longer was not made at once."""

SEEN_PER_S = 20.0
"""Clients a second that come beside the flood, to see how long it takes."""

NICENESS = 10
LAG_PERIOD_S = 0.01


@dataclass
class Visits:
    """What became of those who came.

    Args:
        served_s: how long it took until each was connected and subscribed.
        refused_s: how long it took until each was refused, by 503 or by a close code.
        failed: who got neither.
        took_s: from the first to the last that came.
        late_s: how late their own event loop was, at the 99th percentile.
    """

    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    failed: int = 0
    took_s: float = 0.0
    late_s: float = 0.0

    @property
    def count(self) -> int:
        return len(self.served_s) + len(self.refused_s) + self.failed


class Visitor(asyncio.Protocol):
    """Comes, connects, subscribes, stays for a moment and goes."""

    def __init__(self, port: int, channel: str) -> None:
        self._port = port
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._came_at = self._loop.time()
        self._data = b""
        self._said = False
        self.outcome: asyncio.Future[tuple[str, float]] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._transport.write(handshake(self._port, PATH, {}))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._data.startswith(b"HTTP/1.1 503"):
            self._end("refused")
        elif not self._said and b"\r\n\r\n" in self._data:
            self._said = True
            lines = (
                {"id": 1, "connect": {"token": login_token()}},
                {"id": 2, "subscribe": {"channel": self._channel, "recoverable": True}},
            )
            self._transport.write(frame(Opcode.TEXT, "\n".join(map(json.dumps, lines)).encode()))
        elif b'{"id":2,"subscribe"' in self._data:
            self._settle("served")
            self._loop.call_later(STAY_S, self._transport.abort)
        elif b"\x0b\xc5" in self._data or b"\x0d\xb0" in self._data:  # 3013 and 3504
            self._end("refused")

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle("failed")

    def _end(self, outcome: str) -> None:
        self._settle(outcome)
        self._transport.abort()

    def _settle(self, outcome: str) -> None:
        self._data = b""
        if not self.outcome.done():
            self.outcome.set_result((outcome, self._loop.time() - self._came_at))


async def visit(port: int, channel: str, visits: Visits) -> None:
    """Come once."""
    visitor = Visitor(port, channel)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().create_connection(lambda: visitor, "127.0.0.1", port)
            outcome, took_s = await visitor.outcome
    except (OSError, TimeoutError):
        outcome, took_s = "failed", 0.0
    if outcome == "served":
        visits.served_s.append(took_s)
    elif outcome == "refused":
        visits.refused_s.append(took_s)
    else:
        visits.failed += 1


async def capacity(port: int, channel: str, seconds: float) -> float:
    """How many clients a second a node takes in."""
    visits = Visits()
    ends_at = time.monotonic() + seconds

    async def keep_coming() -> None:
        while time.monotonic() < ends_at:
            await visit(port, channel, visits)

    await asyncio.gather(*(keep_coming() for _ in range(AT_ONCE)))
    return len(visits.served_s) / seconds


async def flood(port: int, channel: str, rate: float, seconds: float) -> Visits:
    """So many come each second, whatever becomes of them."""
    visits = Visits()
    late_s: list[float] = []
    watching = asyncio.create_task(watch_lag(late_s))
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(visit(port, channel, visits))
        visits.took_s = time.monotonic() - began
    watching.cancel()
    visits.late_s = quantile(late_s, 0.99)
    return visits


async def watch_lag(late_s: list[float]) -> None:
    """Note how late the event loop of this process is, until cancelled."""
    while True:
        due = time.monotonic() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        late_s.append(time.monotonic() - due)


def _elsewhere(pipe: Connection, call: Any, arguments: tuple[Any, ...]) -> None:
    os.nice(NICENESS)
    pipe.send(None)
    pipe.recv()
    pipe.send(uvloop.run(call(*arguments)))


@asynccontextmanager
async def elsewhere(
    call: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any
) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """A coroutine function, to be run in a process of its own that gives way to all others."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_elsewhere, args=(theirs, call, arguments), daemon=True)
    process.start()

    async def run() -> Any:
        ours.send(None)
        return await asyncio.to_thread(ours.recv)

    try:
        await asyncio.to_thread(ours.recv)
        yield run
    finally:
        process.join(5)
        process.kill()


@dataclass
class Figures:
    """What an overload did.

    Args:
        per_s: clients a second that the node took in before.
        visits: those who came at twice that rate.
        seen: a few more, beside them, by whom it is seen how long it takes.
        before_s: the 99th percentile of a publication's way to those who are there.
        meanwhile_s: the same during the flood.
        healthy_s: from its end until the node says that it is healthy.
    """

    per_s: float = 0.0
    visits: Visits = field(default_factory=Visits)
    seen: Visits = field(default_factory=Visits)
    before_s: float = 0.0
    meanwhile_s: float = 0.0
    healthy_s: float = 0.0
    dropped: int = 0

    @property
    def failed(self) -> int:
        return self.visits.failed + self.seen.failed

    def faults(self) -> list[str]:
        """What is not as it should be."""
        slow_s = quantile(self.seen.refused_s, 0.99)
        checks = {
            f"p99 went from {self.before_s * 1000:.1f} to {self.meanwhile_s * 1000:.1f} ms": (
                self.meanwhile_s > P99_FACTOR_MAX * self.before_s
            ),
            f"{self.dropped} of those who were there were cut off": self.dropped > 0,
            f"{self.failed} got neither a place nor a refusal": self.failed > 0,
            f"a refusal took {slow_s:.2f} s": slow_s > REFUSED_S,
            f"the node was healthy after {self.healthy_s:.1f} s": self.healthy_s > HEALTHY_S,
        }
        return [fault for fault, holds in checks.items() if holds]


async def run(
    clients: int, rate: float, seconds: float, before_s: float = BEFORE_S, capacity_s: float = CAPACITY_S
) -> Figures:
    """Flood a node.

    Args:
        clients: that are there.
        rate: publications a second, over all channels.
        seconds: of the flood.
        before_s: how long to look at what is usual.
        capacity_s: how long to measure what the node takes in.
    """
    figures = Figures()
    channels = [f"{NAMESPACE}:{number}" for number in range(CHANNELS)]
    async with Cluster() as cluster:
        port, visited = cluster.ports[0], f"{NAMESPACE}:visited"
        async with Crowd([port], channels, clients) as crowd, probing(port, channels) as probes:
            publisher = Publisher([port], 1, channels)
            await publisher.ready.wait()
            steady = asyncio.create_task(publisher.publish_steadily(rate))
            await asyncio.sleep(before_s)
            figures.before_s = p99(probes)
            async with elsewhere(capacity, port, visited, capacity_s) as measure:
                figures.per_s = await measure()
            await healthy(cluster.nodes[0].url)
            async with elsewhere(flood, port, visited, 2 * figures.per_s, seconds) as come:
                for probe in probes:
                    probe.times_s.clear()
                figures.visits, figures.seen = await asyncio.gather(
                    come(), flood(port, visited, SEEN_PER_S, seconds)
                )
            figures.meanwhile_s = p99(probes)
            figures.healthy_s = await healthy(cluster.nodes[0].url)
            figures.dropped = len((await crowd.moves()).lost_at)
            steady.cancel()
            publisher.end()
    return figures


async def healthy(url: str) -> float:
    """Wait until a node is. Returns the seconds that it took."""
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
        while (await client.get("/readyz")).json()["status"] != "healthy":  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)
    return time.monotonic() - began


def main() -> int:
    """Run, and fail where something is not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overload", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--clients", type=int, default=1000, help="that are there")
    parser.add_argument("--rate", type=float, default=200.0, help="publications a second, over all channels")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the flood")
    arguments = parser.parse_args()
    figures = uvloop.run(run(arguments.clients, arguments.rate, arguments.seconds))
    visits, seen = figures.visits, figures.seen
    print(
        f"the node takes in {figures.per_s:,.0f} a second; {visits.count / visits.took_s:,.0f} came:", end=" "
    )
    print(f"served {len(visits.served_s):,}, refused {len(visits.refused_s):,}, failed {figures.failed}")
    for name, values in (("served", seen.served_s), ("refused", seen.refused_s)):
        print(f"{name}_s", *(f"{quantile(values, part):.3f}" for part in (0.5, 0.99, 1.0)), len(values))
    print(f"the crowd's event loop was {visits.late_s * 1000:.0f} ms late, that of the others", end=" ")
    print(f"{seen.late_s * 1000:.0f} ms")
    print(
        f"p99 {figures.before_s * 1000:.1f} ms before, {figures.meanwhile_s * 1000:.1f} ms meanwhile,",
        end=" ",
    )
    print(f"cut off {figures.dropped}, healthy after {figures.healthy_s:.1f} s")
    for fault in figures.faults():
        print(f"MISSED: {fault}")
    return 1 if figures.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
