"""What Locust does not measure by itself: publications, finer response times, and the generator's own lag.

Each process has its counts; in a run of several the workers' come to the master with their reports.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import gevent
import psutil
from locust import events, runners, stats
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from hub.load.histogram import bucket
from hub.load.users.ledger import Counts

COUNTS = Counts()
"""Of this process."""

REPORT_PERIOD_S = 0.5
"""How often workers report: Locust's own 3 s would leave seconds without figures."""

LAG_PERIOD_S = 0.1
"""How often a process looks how late its own greenlets are."""


class Generator:
    """How much this process, which makes the load, is itself the limit."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        """The longest delay of a greenlet since the last report."""
        self._process: psutil.Process | None = None

    def watch(self) -> None:
        """Look at the delay of this very greenlet, for ever."""
        self._process = psutil.Process()  # not before: Locust forks its workers
        self._process.cpu_percent()
        while True:
            due = time.monotonic() + LAG_PERIOD_S
            gevent.sleep(LAG_PERIOD_S)
            self.lag_s = max(self.lag_s, time.monotonic() - due)

    def report(self) -> dict[str, float]:
        """CPU in percent of a core, and lag in seconds, since the last report."""
        lag_s, self.lag_s = self.lag_s, 0.0
        return {"cpu": self._process.cpu_percent() if self._process else 0.0, "lag_s": lag_s}


GENERATOR = Generator()
DISCONNECTS: Counter[str] = Counter()
"""Connections of this process's users that ended, by the code that they saw."""

OTHERS: dict[str, dict[str, Any]] = {}
"""By worker, what it reported last; on the master alone."""


def totals() -> Counts:
    """The counts of all processes."""
    counts = Counts(COUNTS.received, COUNTS.lost, COUNTS.repeated, COUNTS.disordered, COUNTS.told)
    for report in OTHERS.values():
        counts.add(report["counts"])
    return counts


def disconnects() -> dict[str, int]:
    """Those of all processes, by code."""
    codes = Counter(DISCONNECTS)
    for report in OTHERS.values():
        codes.update(report["disconnects"])
    return dict(codes)


def generators() -> list[dict[str, float]]:
    """How busy each process is. The master makes no load where it has workers."""
    return [report["generator"] for report in OTHERS.values()] or [GENERATOR.report()]


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Count in this process."""
    stats.bucket_response_time = bucket  # type: ignore[assignment]
    runners.WORKER_REPORT_INTERVAL = REPORT_PERIOD_S
    # The loop's time is that of its last turn: a timer of --run-time would count what imports took.
    gevent.get_hub().loop.update_now()
    if not isinstance(environment.runner, MasterRunner):
        gevent.spawn(GENERATOR.watch)


@events.test_start.add_listener
def reset(environment: Environment, **_: Any) -> None:
    """A test begins with nothing counted."""
    COUNTS.__init__()  # type: ignore[misc]
    DISCONNECTS.clear()
    OTHERS.clear()


@events.report_to_master.add_listener
def report(client_id: str, data: dict[str, Any]) -> None:
    """A worker reports."""
    data["hub"] = {
        "counts": COUNTS.by_name(),
        "disconnects": dict(DISCONNECTS),
        "generator": GENERATOR.report(),
    }


@events.worker_report.add_listener
def collect(client_id: str, data: dict[str, Any]) -> None:
    """The master hears a worker."""
    if "hub" in data:
        OTHERS[client_id] = data["hub"]


def is_worker(environment: Environment) -> bool:
    """Whether another process has the figures of all."""
    return isinstance(environment.runner, WorkerRunner)
