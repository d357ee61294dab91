"""Numbers for people: with their unit, to about three places; and round numbers for the axes of a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

Unit = Literal["ms", "s", "bytes", "percent", "rate", "count", "share"]
"""Of a figure; `rate` is a count for each second, `share` a part of one."""

NOTHING: Final = "\N{EN DASH}"


def text(value: float | None, unit: Unit) -> str:
    """A figure with its unit."""
    if value is None or not math.isfinite(value):
        return NOTHING
    match unit:
        case "ms":
            return _time(value / 1000)
        case "s":
            return _time(value)
        case "bytes":
            return _scaled(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)
        case "percent":
            return f"{_places(value)} %"
        case "share":
            return f"{_places(value * 100)} %"
        case "rate":
            return f"{_places(value)}/s"
        case "count":
            return _places(value)


def clock(seconds: float) -> str:
    """A moment of a run: 1:05, or 1:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ticks(most: float, unit: Unit, count: int = 4) -> list[float]:
    """Round numbers from nothing to at least the highest value, a few of them."""
    if most <= 0 or not math.isfinite(most):
        return [0.0, 1.0]
    base = 1024 ** min(4, int(math.log(most, 1024))) if unit == "bytes" and most >= 1 else 1
    step = _round_up(most / base / count) * base
    if unit in ("bytes", "count") and step < 1:
        step = 1.0
    return [step * index for index in range(math.ceil(most / step - 1e-9) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Powers of ten, the first not over the lowest value and the last not under the highest. At least two."""
    low = math.floor(math.log10(least) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(most) - 1e-9))
    return [10.0**power for power in range(low, high + 1)]


def clock_ticks(seconds: float, count: int = 6) -> list[float]:
    """Round moments of a run that takes so long."""
    steps: Sequence[float] = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((step for step in steps if seconds / step <= count), 3600 * math.ceil(seconds / 3600 / count))
    return [step * index for index in range(int(seconds // step) + 1)]


def _round_up(value: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * (1 - 1e-9))


def _time(seconds: float) -> str:
    size = abs(seconds)
    if size >= 600:
        return f"{_places(seconds / 60)} min"
    if size >= 1:
        return f"{_places(seconds)} s"
    if size >= 0.001 or not size:
        return f"{_places(seconds * 1000)} ms"
    return f"{_places(seconds * 1_000_000)} µs"


def _scaled(value: float, units: Sequence[str], base: int) -> str:
    index = 0
    while abs(value) >= base * 0.9995 and index < len(units) - 1:
        value, index = value / base, index + 1
    return f"{_places(value)} {units[index]}"


def _places(value: float) -> str:
    """Three places, and no zeros behind the point."""
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2
    shown = f"{value:,.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
