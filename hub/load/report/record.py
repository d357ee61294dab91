"""A finished run as it lies in its folder: `run.json`, and a line a second in `samples.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

RUN: Final = "run.json"
SAMPLES: Final = "samples.jsonl"


class Figures(msgspec.Struct, frozen=True):
    """What was measured under one name.

    Args:
        n: how many, the failed ones among them.
        fail: how many failed.
        p50: the median time in milliseconds; of none nothing.
        p95: what 95 % did not exceed, and
        p99: 99 %, and
        max: all.
    """

    n: int
    fail: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class NodeFigures(msgspec.Struct, frozen=True):
    """A node of the hub, as it said itself. What it did not say is missing.

    Args:
        cpu: percent of a core.
        memory: resident bytes.
        connections: open ones.
        lag_s: how late its event loop was, in seconds.
        outbox_bytes: that wait for slow readers.
    """

    cpu: float | None = None
    memory: float | None = None
    connections: float | None = None
    lag_s: float | None = None
    outbox_bytes: float | None = None


class GeneratorFigures(msgspec.Struct, frozen=True):
    """The busiest of the processes that make the load.

    Args:
        cpu: percent of a core.
        lag_s: how late its greenlets were, in seconds.
    """

    cpu: float = 0.0
    lag_s: float = 0.0


class Sample(msgspec.Struct, frozen=True):
    """One second.

    Args:
        t: seconds since the run began.
        users: that were there.
        stats: what was measured in this second, by name.
        nodes: by name; one that is dead is not among them.
        disconnects: connections that ended since the run began, by the code that users saw; 1006 is no close
            frame.
    """

    t: float
    users: int = 0
    stats: dict[str, Figures] = {}
    nodes: dict[str, NodeFigures] = {}
    generator: GeneratorFigures = GeneratorFigures()
    disconnects: dict[str, int] = {}


class InjectedFault(msgspec.Struct, frozen=True):
    """What was done to the hub on purpose, and when, in seconds since the run began."""

    t: float
    name: str


class JudgedLevel(msgspec.Struct, frozen=True):
    """A service level.

    Args:
        name: the unit last, as in `receive_p99_ms`.
        limit: the most that is allowed.
        value: what the run had; nothing, where there was nothing to be measured.
        ok: whether it held.
    """

    name: str
    limit: float
    value: float | None
    ok: bool


class Failure(msgspec.Struct, frozen=True):
    """What users failed at, and how often.

    Args:
        name: of what was measured.
        error: what it failed with.
    """

    name: str
    error: str
    n: int


class LoadRun(msgspec.Struct, frozen=True):
    """A whole run.

    Args:
        began: the moment in ISO 8601.
        totals: what was measured in the whole run, by name.
        counts: of messages that were `lost`, `repeated` and `disordered`, and what else is counted.
        passed: whether each level held, and nothing is said against the figures.
        warnings: why the figures are not to be trusted.
        errors: what failed.
        samples: second by second.
    """

    scenario: str
    began: str
    passed: bool
    arguments: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    faults: list[InjectedFault] = []
    totals: dict[str, Figures] = {}
    counts: dict[str, int] = {}
    levels: list[JudgedLevel] = []
    warnings: list[str] = []
    errors: list[Failure] = []
    samples: list[Sample] = []


class RunError(Exception):
    """A folder has no run that could be read."""


def read(folder: Path) -> LoadRun:
    """The run in a folder.

    Raises:
        RunError: there is none, or it is not as it should be.
    """
    path = folder / RUN
    try:
        run = msgspec.json.decode(path.read_bytes(), type=LoadRun)
        path = folder / SAMPLES
        samples = msgspec.json.Decoder(Sample).decode_lines(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; is {folder} a finished run?") from error
    except msgspec.DecodeError as error:
        raise RunError(f"{path} is no file of a run: {error}") from error
    return msgspec.structs.replace(run, samples=samples)
