"""What a report shows of a run: its charts as plain numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from hub.load.report.record import Figures, GeneratorFigures, JudgedLevel, LoadRun, NodeFigures, Sample
from hub.load.report.units import Unit

POINTS_MAX: Final = 400
"""Most points of a line; of a longer run each stands for several seconds."""

PERCENTILES: Final = ("p50", "p95", "p99", "max")
ORDER: Final = ("probe", "receive", "receive late", "publish", "reconnect", "connect", "subscribe", "history")
"""Of what is measured; other names follow by the alphabet."""

DELIVERIES: Final = ("receive", "receive late")

Fold = Literal["max", "min", "mean"]
"""What becomes of the seconds that one point stands for."""

Point = float | None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Args:
        points: a value for each time of the chart, or nothing.
    """

    name: str
    points: Sequence[Point]

    @property
    def most(self) -> Point:
        """The highest value."""
        return max((point for point in self.points if point is not None), default=None)

    @property
    def least(self) -> Point:
        """The lowest value over nothing."""
        return min((point for point in self.points if point is not None and point > 0), default=None)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over the time of a run.

    Args:
        key: that is the same for the same chart of another run.
        title: what is shown.
        about: the same in a sentence, with how to read it.
        unit: of its values.
        times: in seconds since the run began.
        seconds: that each point stands for.
        lines: what is drawn.
        limit: the service level, where there is one.
        logarithmic: whether the scale is, from the lowest to the highest decade.
    """

    key: str
    title: str
    about: str
    unit: Unit
    times: Sequence[float]
    seconds: int
    lines: Sequence[Line]
    limit: float | None = None
    logarithmic: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be drawn."""
        return not any(point is not None for line in self.lines for point in line.points)


def charts(run: LoadRun) -> list[Chart]:
    """All charts of a run, in their order."""
    return [*_latencies(run), *_rates(run), *_nodes(run)]


def measured(run: LoadRun) -> list[str]:
    """The names of what was measured, the most telling first."""
    return in_order({*run.totals, *(name for sample in run.samples for name in sample.stats)})


def in_order(names: Iterable[str]) -> list[str]:
    """Names of what was measured, the most telling first."""
    given = set(names)
    return [name for name in ORDER if name in given] + sorted(given.difference(ORDER))


def nodes(run: LoadRun) -> list[str]:
    """The names of the nodes."""
    return list(dict.fromkeys(name for sample in run.samples for name in sample.nodes))


def failures(run: LoadRun) -> int:
    """How many requests failed."""
    return sum(figures.fail for figures in run.totals.values())


def unit_of(level: JudgedLevel) -> Unit:
    """The unit that a level's name ends in."""
    for suffix, unit in _SUFFIXES.items():
        if level.name.endswith(suffix):
            return unit
    return "count"


_SUFFIXES: Final[dict[str, Unit]] = {
    "_ms": "ms",
    "_s": "s",
    "_bytes": "bytes",
    "_percent": "percent",
    "_share": "share",
}


def _limit(run: LoadRun, pattern: str) -> float | None:
    """The limit of the level whose name is so."""
    return next((level.limit for level in run.levels if re.fullmatch(pattern, level.name)), None)


def _chart(
    run: LoadRun,
    key: str,
    title: str,
    about: str,
    unit: Unit,
    lines: dict[str, Callable[[Sample], Point]],
    *,
    fold: Fold = "max",
    limit: float | None = None,
    logarithmic: bool = False,
) -> Chart:
    """A chart of what functions find in each sample."""
    size = -(-len(run.samples) // POINTS_MAX) or 1
    groups = [run.samples[start : start + size] for start in range(0, len(run.samples), size)]
    drawn = [
        Line(name, [_folded([of(sample) for sample in group], fold) for group in groups])
        for name, of in lines.items()
    ]
    times = [group[-1].t for group in groups]
    return Chart(key, title, about, unit, times, size, drawn, limit, logarithmic)


def _folded(points: Sequence[Point], fold: Fold) -> Point:
    there = [point for point in points if point is not None]
    if not there:
        return None
    match fold:
        case "max":
            return max(there)
        case "min":
            return min(there)
        case "mean":
            return sum(there) / len(there)


def _latencies(run: LoadRun) -> Iterator[Chart]:
    for name in measured(run):
        chart = _chart(
            run,
            f"latency {name}",
            f"Latency: {name}",
            f"How long {name} took in each second, as percentiles, on a logarithmic scale.",
            "ms",
            {percentile: _percentile(name, percentile) for percentile in PERCENTILES},
            limit=_limit(run, f"{re.escape(name.replace(' ', '_'))}_p99_ms"),
            logarithmic=True,
        )
        if not chart.is_empty:
            yield chart


def _percentile(name: str, percentile: str) -> Callable[[Sample], Point]:
    def of(sample: Sample) -> Point:
        figures = sample.stats.get(name)
        return getattr(figures, percentile) if figures else None

    return of


def _rates(run: LoadRun) -> Iterator[Chart]:
    seconds = {
        sample.t: max(sample.t - before, 1e-3)
        for before, sample in zip([0.0, *(sample.t for sample in run.samples)], run.samples, strict=False)
    }

    def rate(name: str, of: Callable[[Figures], int]) -> Callable[[Sample], Point]:
        return lambda sample: of(sample.stats[name]) / seconds[sample.t] if name in sample.stats else 0.0

    names = measured(run)
    deliveries = {name: rate(name, lambda each: each.n) for name in names if name in DELIVERIES}
    calls = {name: rate(name, lambda each: each.n) for name in names if name not in DELIVERIES}
    failed = {
        name: rate(name, lambda each: each.fail)
        for name in names
        if any(sample.stats[name].fail for sample in run.samples if name in sample.stats)
    }
    about = "Publications that readers received, each second."
    yield _chart(run, "deliveries", "Messages received", about, "rate", deliveries, fold="mean")
    about = "What users asked of the hub, each second."
    yield _chart(run, "calls", "Calls", about, "rate", calls, fold="mean")
    about = "Failed requests, each second; a message lost, repeated or out of order is a failed receive."
    yield _chart(run, "failures", "Failures", about, "rate", failed, fold="mean")


def _nodes(run: LoadRun) -> Iterator[Chart]:
    names = nodes(run)

    def each(of: Callable[[NodeFigures], Point]) -> dict[str, Callable[[Sample], Point]]:
        return {name: _node(name, of) for name in names}

    def beside(of: Callable[[GeneratorFigures], float]) -> dict[str, Callable[[Sample], Point]]:
        return {"generator": lambda sample: of(sample.generator)}

    users: dict[str, Callable[[Sample], Point]] = {"users": lambda sample: sample.users}
    connections = users | each(lambda node: node.connections)
    about = "Users that were asked for, and connections that each node held."
    yield _chart(run, "connections", "Connections", about, "count", connections, fold="min")
    about = "Connections that ended, each second, by the code that users saw; 1006 is none."
    yield _chart(run, "disconnects", "Disconnects by code", about, "rate", _disconnects(run), fold="mean")
    about = "How late the event loop of each node was, and the generator itself."
    lag = each(lambda node: node.lag_s) | beside(lambda generator: generator.lag_s)
    yield _chart(run, "lag", "Event-loop lag", about, "s", lag, limit=_limit(run, "node_lag_s"))
    about = "Bytes that wait on each node for readers who are behind."
    outboxes = each(lambda node: node.outbox_bytes)
    limit = _limit(run, "(node_)?outbox_bytes")
    yield _chart(run, "outboxes", "Outboxes", about, "bytes", outboxes, limit=limit)
    about = "CPU of each node, and of the busiest process of the generator; 100 % is one core."
    cpu = each(lambda node: node.cpu) | beside(lambda generator: generator.cpu)
    yield _chart(run, "cpu", "CPU", about, "percent", cpu, limit=_limit(run, "node_cpu_percent"))
    about = "Resident memory of each node."
    memory = each(lambda node: node.memory)
    yield _chart(run, "memory", "Memory", about, "bytes", memory, limit=_limit(run, "node_memory_bytes"))


def _node(name: str, of: Callable[[NodeFigures], Point]) -> Callable[[Sample], Point]:
    return lambda sample: of(sample.nodes[name]) if name in sample.nodes else None


def _disconnects(run: LoadRun) -> dict[str, Callable[[Sample], Point]]:
    """By code; the samples count them since the run began."""
    codes = sorted({code for sample in run.samples for code in sample.disconnects})
    ended: dict[tuple[str, float], float] = {}
    for before, sample in pairwise([Sample(0.0), *run.samples]):
        for code in codes:
            count = sample.disconnects.get(code, 0) - before.disconnects.get(code, 0)
            ended[code, sample.t] = max(0, count) / max(sample.t - before.t, 1e-3)

    def of(code: str) -> Callable[[Sample], Point]:
        return lambda sample: ended[code, sample.t]

    return {code: of(code) for code in codes}
