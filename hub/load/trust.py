"""Why the figures of a run are not to be trusted, if at all. The rules are here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hub.load.report.record import GeneratorFigures

CPU_MAX: Final = 85.0
"""Percent of a core; a process that takes more has no time to spare."""

LAG_MAX_S: Final = 0.05
"""A generator that is later than this adds its own delay to what its users measure."""

SHARE_MAX: Final = 0.2
"""Of the seconds of a run, in which the generator may be over one of these: when all arrive, or come back."""


def nothing_measured(totals: Mapping[str, Any], *, silent: bool) -> Iterator[str]:
    """What was not measured, so that no level could be missed.

    Args:
        totals: `totals` and `counts`, as a run leaves them.
        silent: whether the users of the scenario receive nothing.
    """
    if not silent and not totals["counts"]["received"]:
        yield "nothing was received"
    if set(totals["totals"]) <= {"probe"}:
        yield "nothing was measured"
    probe = totals["totals"].get("probe", {"n": 0, "fail": 0})
    if probe["n"] == probe["fail"]:
        yield "the probe heard nothing"


def generator_limits(seconds: Sequence[GeneratorFigures]) -> Iterator[str]:
    """In which respects the generator was the limit of a run, and not the hub; none where it was not.

    Args:
        seconds: what the busiest of its processes said, second by second.
    """
    busy = [each.cpu for each in seconds if each.cpu > CPU_MAX]
    late = [each.lag_s for each in seconds if each.lag_s > LAG_MAX_S]
    if len(busy) > SHARE_MAX * len(seconds):
        yield (
            f"the generator was the limit: its busiest process took over {CPU_MAX:.0f} % of a core in"
            f" {len(busy):,} of {len(seconds):,} seconds, {max(busy):.0f} % at most"
        )
    if len(late) > SHARE_MAX * len(seconds):
        yield (
            f"the generator was the limit: it was itself over {LAG_MAX_S * 1000:.0f} ms late in"
            f" {len(late):,} of {len(seconds):,} seconds, {max(late) * 1000:,.0f} ms at most"
        )
