"""Times by how often they came, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def bucket(time_ms: float) -> float:
    """A time with three digits: Locust's own has whole milliseconds, and two digits from 100 on."""
    if time_ms <= 0:
        return 0
    return round(time_ms, max(0, 2 - math.floor(math.log10(time_ms))))


def percentile(histogram: Mapping[float, int], share: float) -> float:
    """The value, in a histogram, that so much of it does not exceed; 0 for an empty one.

    Args:
        histogram: counts by value.
        share: from 0 to 1.
    """
    wanted = share * sum(histogram.values())
    seen = 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= wanted:
            return value
    return 0.0


def summary(histogram: Mapping[float, int], requests: int, failures: int) -> dict[str, Any]:
    """How many, how many failed, and how long they took in milliseconds."""
    figures: dict[str, Any] = {"n": requests, "fail": failures}
    if histogram:
        figures |= {name: percentile(histogram, share) for name, share in PERCENTILES.items()}
        figures["max"] = max(histogram)
    return figures
