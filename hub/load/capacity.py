"""The highest load that holds the service levels: by doubling, then by halving what is between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from hub.load.report.record import LoadRun

PRECISION: Final = 0.1
"""The search ends where what is known to hold and what is known to fail are no further apart, as a part."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one load.

    Args:
        users: how many.
        held: whether every service level held, and nothing is said against the figures.
        missed: those that did not, the one furthest over its limit first.
        warnings: why the figures are not to be trusted.
    """

    users: int
    held: bool
    missed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, users: int, run: LoadRun) -> Trial:
        """What a finished run says."""
        missed = [level for level in run.levels if not level.ok]
        missed.sort(key=lambda level: -_excess(level.value, level.limit))
        names = tuple(level.name for level in missed)
        return cls(users, run.passed, names, tuple(run.warnings))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a search found.

    Args:
        users: the most that held; 0 where none did.
        beyond: the trial with the fewest users that did not, where there is one.
        trials: all, in their order.
    """

    users: int
    beyond: Trial | None
    trials: tuple[Trial, ...]

    def told(self) -> Iterator[str]:
        """The outcome, in lines."""
        yield (
            f"{self.users:,} users held the service levels"
            if self.users
            else "no load held the service levels"
        )
        if self.beyond is None:
            yield "nothing gave out: more was not tried"
            return
        users, missed = self.beyond.users, ", ".join(self.beyond.missed)
        if self.beyond.warnings:
            yield f"at {users:,} users the run says nothing of the hub: {'; '.join(self.beyond.warnings)}"
        else:
            yield f"at {users:,} users gave out first: {missed}"


def search(load: Callable[[int], Trial], first: int, most: int) -> Capacity:
    """Find the capacity. Twice the load until one does not hold, then always the middle.

    A load whose figures are not to be trusted, as where the generator was the limit, says nothing of the hub:
    it counts as one that does not hold, and it is said why.

    Args:
        load: runs that many users, and says what became of them.
        first: users to begin with.
        most: users that are never exceeded.
    """
    assert 0 < first <= most
    trials: list[Trial] = []
    held, beyond, users = 0, None, first
    while True:
        trial = load(users)
        trials.append(trial)
        if trial.held:
            held = users
        else:
            beyond = trial
        if beyond is None:
            if held == most:
                break
            users = min(most, 2 * held)
        elif beyond.users - held <= max(1, PRECISION * beyond.users):
            break
        else:
            users = (held + beyond.users) // 2
    return Capacity(held, beyond, tuple(trials))


def _excess(value: float | None, limit: float) -> float:
    """How many times over its limit a figure is."""
    if value is None:
        return 0.0
    return value / limit if limit else float("inf")
