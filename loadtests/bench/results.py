"""What a run found: for each row of the set a judged figure, and the machine that it is of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

GENERATOR_SHARE_MAX = 0.85
"""Of a core; a generator that takes more may be what limits a figure."""


class Row(msgspec.Struct, frozen=True):
    """One line of the set.

    Args:
        name: that it is chosen by.
        title: what is measured.
        unit: of its figures.
        beside: what the other figure of the same run is of, where there is one.
        judged: what the target is for: the hub's figure itself, or how it stands to the other.
        at_least, at_most: the target; one of them, or both.
    """

    name: str
    title: str
    unit: str
    beside: str
    judged: Literal["itself", "ratio", "difference"]
    at_least: float | None = None
    at_most: float | None = None

    def value(self, hub: float, beside: float | None) -> float:
        """The judged figure of one run; a ratio in hundredths, as it is shown."""
        if self.judged == "itself":
            return hub
        assert beside is not None, f"{self.name} has nothing to be compared with"
        return round(hub / beside, 2) if self.judged == "ratio" else hub - beside

    def met(self, value: float) -> bool:
        """Whether a judged figure is as it should be."""
        low, high = self.at_least, self.at_most
        return (low is None or value >= low) and (high is None or value <= high)


class Sample(msgspec.Struct, frozen=True):
    """What one run found for a row.

    Args:
        hub: the figure, in the row's unit.
        beside: that of the floor, or of whatever it is compared with.
        cpu_us: CPU time of the hub's processes for each delivery, in microseconds.
        beside_cpu_us: the same of what it is compared with.
        generator: the share of a core that the generator took, and
        beside_generator: what it took for the other figure.
    """

    hub: float
    beside: float | None = None
    cpu_us: float | None = None
    beside_cpu_us: float | None = None
    generator: float = 0.0
    beside_generator: float | None = None


class Result(msgspec.Struct, frozen=True):
    """A row with its figures: medians over the runs, of each figure for itself."""

    row: Row
    hub: float
    beside: float | None
    value: float
    met: bool
    cpu_us: float | None
    beside_cpu_us: float | None
    generator: float
    beside_generator: float | None
    runs: list[Sample]

    @classmethod
    def of(cls, row: Row, runs: Sequence[Sample]) -> Result:
        """Judge a row by its runs."""
        value = statistics.median(row.value(run.hub, run.beside) for run in runs)
        return cls(
            row=row,
            hub=statistics.median(run.hub for run in runs),
            beside=_median(runs, lambda run: run.beside),
            value=value,
            met=row.met(value),
            cpu_us=_median(runs, lambda run: run.cpu_us),
            beside_cpu_us=_median(runs, lambda run: run.beside_cpu_us),
            generator=statistics.median(run.generator for run in runs),
            beside_generator=_median(runs, lambda run: run.beside_generator),
            runs=list(runs),
        )

    @property
    def limited(self) -> bool:
        """Whether the generator may have been the limit of a figure that is judged."""
        beside = 0.0 if self.row.judged == "itself" else self.beside_generator or 0.0
        return max(self.generator, beside) > GENERATOR_SHARE_MAX


class Environment(msgspec.Struct, frozen=True):
    """Where and of what the figures are.

    Args:
        commit: of the code; with a `+` where it was changed since.
        load_average: of the machine before the run, over one minute.
        congestion: TCP's congestion control.
        versions: of what the hub stands on.
    """

    date: str
    commit: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    congestion: str
    load_average: float
    versions: dict[str, str]


class Results(msgspec.Struct, frozen=True):
    """A whole run."""

    environment: Environment
    results: list[Result]


def read(text: str | bytes) -> Results:
    """Results from JSON."""
    return msgspec.json.decode(text, type=Results)


def write(path: Path, results: Results) -> None:
    """Keep results as JSON, a field a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def _median(runs: Sequence[Sample], of: Callable[[Sample], float | None]) -> float | None:
    values = [value for value in map(of, runs) if value is not None]
    return statistics.median(values) if values else None
