"""A chart as SVG. It stretches to the room it has; its words are beside it, and keep their size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from hub.load.report.figures import Chart, Line
from hub.load.report.record import InjectedFault
from hub.load.report.units import clock, clock_ticks, decades, text, ticks

SIZE: Final = 1000
"""Width and height of the drawing's own coordinates."""

STYLES: Final = 5
"""Lines that can be told apart, by colour and by dashes; the next ones begin anew."""

QUIET: Final = {"max": STYLES, "users": STYLES, "generator": STYLES}
"""Lines that the others are seen against have a style of their own."""

LATENCY_FLOOR_MS: Final = 0.1
"""The scale of a latency begins no lower."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of a chart, and where they are.

    Args:
        ticks: the values of its lines.
        height: of a value: 0 at the bottom, 1 at the top.
    """

    ticks: Sequence[float]
    height: Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault in a chart.

    Args:
        left: where it is, as a part of the width.
        room: how much of the width its name may take.
        before: whether the name is to the left of the mark, for want of room.
    """

    number: int
    name: str
    t: float
    left: float
    room: float
    before: bool


def scale(same: Sequence[Chart]) -> Scale:
    """The scale that charts of several runs have in common."""
    limits = [chart.limit for chart in same if chart.limit is not None]
    lines = [line for chart in same for line in chart.lines]
    most = max(
        [point for line in lines if (point := line.most) is not None] + _near(limits, lines), default=0.0
    )
    if not same[0].logarithmic:
        steps = ticks(most, same[0].unit)
        return Scale(steps, lambda value: value / steps[-1])
    least = min((point for line in lines if (point := line.least) is not None), default=1.0)
    steps = decades(max(LATENCY_FLOOR_MS, least), max(LATENCY_FLOOR_MS, most))
    low, span = math.log10(steps[0]), math.log10(steps[-1] / steps[0])
    return Scale(steps, lambda value: max(0.0, (math.log10(max(value, steps[0])) - low) / span))


def svg(chart: Chart, scale: Scale, seconds: float, marks: Sequence[Mark], name: str) -> str:
    """A drawing.

    Args:
        seconds: that the width stands for.
        name: for ids that are no other's on the page.
    """
    body = [f'<line class="grid" x1="0" x2="{SIZE}" y1="{y}" y2="{y}"/>' for y in map(_y(scale), scale.ticks)]
    body += [
        f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{SIZE}"/>'
        for x in map(_x(seconds), clock_ticks(seconds))
    ]
    body += [
        f'<line class="fault" x1="{mark.left * SIZE:.1f}" x2="{mark.left * SIZE:.1f}" y1="0" y2="{SIZE}"/>'
        for mark in marks
    ]
    if chart.limit is not None and 0 <= scale.height(chart.limit) <= 1:
        y = _y(scale)(chart.limit)
        body.append(f'<line class="limit" x1="0" x2="{SIZE}" y1="{y}" y2="{y}"/>')
    for line, style in reversed(styled(chart.lines)):
        if path := _path(line, chart.times, _x(seconds), _y(scale)):
            body.append(f'<path class="line s{style}" d="{path}"/>')
    return (
        f'<svg viewBox="0 0 {SIZE} {SIZE}" preserveAspectRatio="none" role="img"'
        f' aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(chart.title)}</title>'
        f'<desc id="{name}-desc">{escape(" ".join(description(chart, marks)))}</desc>{"".join(body)}</svg>'
    )


def description(chart: Chart, marks: Sequence[Mark]) -> Iterator[str]:
    """A chart in words."""
    yield chart.about
    for line in chart.lines:
        if line.most is not None:
            yield f"{line.name}: {text(line.most, chart.unit)} at most."
    if chart.limit is not None:
        yield f"Service level: {text(chart.limit, chart.unit)}."
    for mark in marks:
        yield f"At {clock(mark.t)}: {mark.name}."


def styled(lines: Sequence[Line]) -> list[tuple[Line, int]]:
    """Each line with the number of its colour and dashes."""
    numbers = itertools.cycle(range(STYLES))
    return [(line, QUIET[line.name] if line.name in QUIET else next(numbers)) for line in lines]


def marks(faults: Sequence[InjectedFault], seconds: float) -> list[Mark]:
    """The marks of faults, each with the room up to the next."""
    placed = [min(1.0, max(0.0, fault.t / seconds)) for fault in faults]
    found = []
    for index, (fault, left) in enumerate(zip(faults, placed, strict=True)):
        behind = (placed[index + 1] if index + 1 < len(placed) else 1.0) - left
        ahead = left - (placed[index - 1] if index else 0.0)
        before = behind < 0.2 and ahead > behind and index == len(placed) - 1
        found.append(Mark(index + 1, fault.name, fault.t, left, ahead if before else behind, before))
    return found


def _near(limits: Sequence[float], lines: Sequence[Line]) -> list[float]:
    """The limits that are near enough to be shown without making the lines flat."""
    most = max((point for line in lines if (point := line.most) is not None), default=0.0)
    return [limit for limit in limits if limit <= 4 * most]


def _x(seconds: float) -> Callable[[float], float]:
    return lambda t: round(min(1.0, t / seconds) * SIZE, 1)


def _y(scale: Scale) -> Callable[[float], float]:
    return lambda value: round((1 - scale.height(value)) * SIZE, 1)


def _path(
    line: Line, times: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    """Lines from point to point; where there is none, a gap. A point alone is a short stroke."""
    parts: list[str] = []
    pen_is_down = False
    for t, value in zip(times, line.points, strict=True):
        if value is None:
            pen_is_down = False
            continue
        parts.append(f"{'L' if pen_is_down else 'M'}{x(t):g} {y(value):g}{'' if pen_is_down else 'h.1'}")
        pen_is_down = True
    return "".join(parts)
