"""The set: what is measured, and how good it should be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec

from loadtests.bench.programs import BenchError, Measured, Mode, in_turns, load
from loadtests.bench.results import Row, Sample
from loadtests.bench.servers import CHANNELS, Kind, floor, hub, token, two_nodes

TARGETS: Final = ((1, 0.8), (4, 3.0), (16, 8.0))
"""Of fan-out: publishes in flight, and times the floor."""
PING_S: Final = 25.0
TURN_S: Final = 0.05
"""Of those who are measured in turns: shorter than what else the machine does goes on for."""
LARGE_BYTES: Final = 16_000
"""Messages that fill an outbox of 1 MiB within a second."""
SLOW_MEMORY_MIB: Final = 4.0
"""One outbox, which is 1 MiB, and what the memory of a process varies by."""


@dataclass(frozen=True)
class Effort:
    """How long it is measured, and with how many.

    Args:
        repeat: runs of each experiment; medians are taken.
        seconds: of measured time, but for what follows.
        slow_s: the same, with a slow reader.
        idle_s: the same, of idle clients.
        idle_clients: how many.
        connects: clients that connect, for their rate.
    """

    repeat: int
    seconds: float
    warmup_s: float
    slow_s: float
    idle_s: float
    idle_clients: int
    connects: int

    @property
    def times(self) -> dict[str, float]:
        """What the generator is told of it."""
        return {"seconds": self.seconds, "warmup": self.warmup_s}


Run: TypeAlias = Callable[[], Awaitable[Measured]]

FULL: Final = Effort(3, 5.0, 1.0, 10.0, 60.0, 9_000, 6_000)
QUICK: Final = Effort(1, 1.0, 0.3, 1.5, 5.0, 2_000, 2_000)


@dataclass(frozen=True)
class Experiment:
    """Rows that are measured together.

    Args:
        measure: measures once, and gives a sample for each row. It is told how many runs there were before.
        clients: how many it needs at once.
    """

    rows: tuple[Row, ...]
    measure: Callable[[Effort, int], Awaitable[Sequence[Sample]]]
    clients: Callable[[Effort], int] = lambda _: 1_000


async def run(kind: Kind, mode: Mode, **options: Any) -> Measured:
    """Run the generator on a new server."""
    async with kind() as server:
        return await load(mode, server.ports, server.pids, **options)


async def both(turn: int, one: Run, other: Run) -> tuple[Measured, Measured]:
    """Make two runs, each first every other time."""
    if turn % 2:
        second = await other()
        return await one(), second
    return await one(), await other()


def sample(of: Callable[[Measured], float], one: Measured, other: Measured) -> Sample:
    """A figure of two runs."""
    return Sample(of(one), of(other), one.cpu_us, other.cpu_us, one.generator, other.generator)


async def beside_floor(turn: int, kind: Kind, mode: Mode, **options: float) -> tuple[Measured, Measured]:
    """Run the generator on a kind of server, and on the floor."""
    return await both(turn, partial(run, kind, mode, **options), partial(run, floor, mode, **options))


async def window(clients: int, in_flight: int, effort: Effort, turn: int) -> Sequence[Sample]:
    """So many publishes in flight, always."""
    one, other = await beside_floor(turn, hub, "window", clients=clients, window=in_flight, **effort.times)
    return [sample(lambda found: found.rate, one, other)]


Spoken: TypeAlias = Mapping[str, str]
"""What the generator is told of an encoding and a transport: JSON over a WebSocket where it is nothing."""


async def spoken(otherwise: Spoken, effort: Effort, turn: int) -> Sequence[Sample]:
    """The same in another encoding or over another transport, and in JSON over a WebSocket.

    For each second of CPU time, since the generator does not take as long to read one as the other; and with
    a generator that stays awake, since one that reads faster sleeps more often, and a write that has to wake
    its reader costs the server more. Two processes, and one at two times, differ by more than encodings do:
    so both are connected to one server, and measured in short turns. As those who came first differ from
    those who came after them too, there are two such servers.
    """
    first, json_after = await by_turns(effort, otherwise, {})
    json_first, after = await by_turns(effort, {}, otherwise)
    one, other = together(*first, *after), together(*json_first, *json_after)
    return [sample(lambda found: 1e6 / found.cpu_us, one, other)]


async def by_turns(effort: Effort, *kinds: Spoken) -> list[list[Measured]]:
    """Measure several kinds of subscribers of one server, each in its own channel. Returns their turns."""
    options = {"clients": 1_000, "window": 4, "awake": 1, "seconds": TURN_S, "warmup": TURN_S / 5}
    turns: list[list[Measured]] = [[] for _ in kinds]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(hub())
        measures = []
        for channel, kind in zip(CHANNELS, kinds, strict=True):
            run = in_turns(
                server.ports, server.pids, channel=channel, token=token(channel), **options, **kind
            )
            measures.append(await stack.enter_async_context(run))
        in_order = list(zip(turns, measures, strict=True))
        for _ in range(round(effort.seconds / 2 / TURN_S)):
            for found, measure in in_order:
                found.append(await measure())
            in_order.reverse()
    return turns


def together(*runs: Measured) -> Measured:
    """Several runs on one server as one; but for its CPU time and deliveries, what it says is of the last."""
    return msgspec.structs.replace(
        runs[-1],
        seconds=sum(run.seconds for run in runs),
        deliveries=sum(run.deliveries for run in runs),
        cpu_s=sum(run.cpu_s for run in runs),
        watched=[msgspec.structs.replace(runs[-1].watched[0], cpu_s=sum(run.server_cpu_s for run in runs))],
    )


async def two_nodes_window(effort: Effort, turn: int) -> Sequence[Sample]:
    """The same on two nodes, for each second of CPU time: they may use more cores than the floor."""
    one, other = await beside_floor(turn, two_nodes, "window", clients=1_000, window=4, **effort.times)
    return [sample(lambda found: 1e6 / found.cpu_us, one, other)]


async def half_rate(effort: Effort, turn: int) -> Sequence[Sample]:
    """Half of the messages a second of which the floor is capable."""
    best = await run(floor, "window", clients=1_000, window=16, **effort.times)
    rate = best.rate / 1_000 / 2
    one, other = await beside_floor(turn, hub, "rate", clients=1_000, rate=rate, **effort.times)
    return [sample(lambda found: found.latency_ms.p99, one, other)]


async def calm_rate(effort: Effort, turn: int) -> Sequence[Sample]:
    """A rate that is nothing to either."""
    one, other = await beside_floor(turn, hub, "rate", clients=500, rate=20, **effort.times)
    return [sample(lambda found: found.latency_ms.p50, one, other)]


async def idle(effort: Effort, turn: int) -> Sequence[Sample]:
    """Clients who are subscribed, and only answer pings."""
    found = await run(hub, "idle", clients=effort.idle_clients, seconds=effort.idle_s, warmup=1.0)
    if effort.idle_s > PING_S and found.pings < found.connections:
        raise BenchError(
            f"{found.connections:,} idle clients heard {found.pings:,} pings in {effort.idle_s:g} s"
        )
    [node] = found.watched
    kib = (node.rss_end - node.rss_before) / found.connections / 1024
    percent = 100 * node.cpu_s / found.seconds
    return [Sample(kib, generator=found.generator), Sample(percent, generator=found.generator)]


async def connects(effort: Effort, turn: int) -> Sequence[Sample]:
    """Clients who connect, 64 of them at once."""
    one, other = await beside_floor(turn, hub, "connects", clients=effort.connects, in_flight=64)
    rate, floor_rate = (found.connections / found.seconds for found in (one, other))
    return [Sample(rate, floor_rate, generator=one.generator, beside_generator=other.generator)]


async def slow(policy: str, effort: Effort, turn: int) -> Sequence[Sample]:
    """Fifty subscribers, with and without another one that never reads."""
    quiet = partial(
        run, partial(hub, policy), "rate", rate=100, size=LARGE_BYTES, seconds=effort.slow_s, warmup=1.0
    )
    one, without = await both(turn, partial(quiet, clients=51, silent=1), partial(quiet, clients=50))
    latency = sample(lambda found: found.latency_ms.p99, one, without)
    peak, peak_without = (found.watched[0].rss_peak / 2**20 for found in (one, without))
    return [latency, Sample(peak, peak_without, None, None, one.generator, without.generator)]


def fanout(subscribers: int, in_flight: int, at_least: float) -> Experiment:
    """Fan-out to so many, with so many publishes in flight."""
    name = f"fanout-{subscribers}-{in_flight}"
    title = f"fan-out to {subscribers:,}, {in_flight} in flight"
    row = Row(name, title, "deliveries/s", "floor", "ratio", at_least=at_least)
    return Experiment((row,), partial(window, subscribers, in_flight))


def fanout_over(
    name: str, title: str, at_least: float, at_most: float | None = None, **otherwise: str
) -> Experiment:
    """Fan-out in an encoding, or over a transport, beside JSON over a WebSocket."""
    row = Row(
        f"fanout-{name}",
        f"fan-out to 1,000 over {title}, 4 in flight",
        "deliveries/CPU-s",
        "JSON over a WebSocket",
        "ratio",
        at_least=at_least,
        at_most=at_most,
    )
    return Experiment((row,), partial(spoken, otherwise), lambda _: 2_000)


def slow_reader(policy: str) -> Experiment:
    """What a slow reader does to others under a policy, and to the node's memory."""
    name, reader = f"slow-{policy.replace('_', '-')}", f"one that never reads, `{policy}`"
    others = Row(name, f"p99 beside {reader}", "ms", "without it", "ratio", at_most=1.1)
    title = f"peak memory with {reader}"
    memory = Row(f"{name}-memory", title, "MiB", "without it", "difference", at_most=SLOW_MEMORY_MIB)
    return Experiment((others, memory), partial(slow, policy))


TWO_NODES: Final = Row(
    "two-nodes",
    "two nodes over Redis, 1,000, 4 in flight",
    "deliveries/CPU-s",
    "floor",
    "ratio",
    at_least=1.5,
)
P99: Final = Row("p99", "p99 to 1,000, at half of the floor's best rate", "ms", "floor", "ratio", at_most=2.0)
P50: Final = Row("p50", "p50 to 500, at 20 messages/s", "ms", "floor", "difference", at_most=1.0)
PAIR: Final = Row(
    "pair", "one publisher, one subscriber, 64 in flight", "deliveries/s", "floor", "itself", at_least=40_000
)
IDLE_MEMORY: Final = Row("idle-memory", "memory of an idle subscriber", "KiB", "", "itself", at_most=12.0)
IDLE_CPU: Final = Row(
    "idle-cpu", "CPU for all idle subscribers, with heartbeats", "% of a core", "", "itself", at_most=3.0
)
CONNECTS: Final = Row(
    "connects", "connects, 64 at once, until their reply", "clients/s", "floor", "itself", at_least=3_000
)

EXPERIMENTS: Final = (
    *(fanout(1_000, in_flight, at_least) for in_flight, at_least in TARGETS),
    *(fanout(100, in_flight, at_least) for in_flight, at_least in TARGETS),
    fanout_over("json", "JSON, beside itself", 0.98, 1.02),
    fanout_over("protobuf", "Protobuf", 1.0, encoding="protobuf"),
    fanout_over("msgpack", "MessagePack", 1.0, encoding="msgpack"),
    fanout_over("http-stream", "HTTP streaming", 0.6, transport="http_stream"),
    fanout_over("sse", "SSE", 0.6, transport="sse"),
    Experiment((TWO_NODES,), two_nodes_window),
    Experiment((P99,), half_rate),
    Experiment((P50,), calm_rate),
    Experiment((PAIR,), partial(window, 1, 64)),
    Experiment((IDLE_MEMORY, IDLE_CPU), idle, lambda effort: effort.idle_clients),
    Experiment((CONNECTS,), connects, lambda effort: effort.connects),
    *(slow_reader(policy) for policy in ("disconnect", "drop_oldest", "latest")),
)
