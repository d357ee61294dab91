"""The figures of each second and of the whole run, in a folder: what verdicts and reports are made of."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.stats import StatsEntry

from hub.load.histogram import summary
from hub.load.users import counting

PERIOD_S = 1.0


class Sampler:
    """Writes a line each second of a test, and the totals in the end.

    Args:
        environment: Locust's.
        folder: where to.
    """

    def __init__(self, environment: Environment, folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._last: dict[str, tuple[dict[float, int], int, int]] = {}
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def begin(self) -> None:
        """A test begins."""
        self._last.clear()
        self._greenlet = gevent.spawn(self._write)

    def end(self) -> None:
        """It is over, and all workers have reported."""
        if self._greenlet is not None:
            self._greenlet.kill()
        entries = self._environment.stats.entries.values()
        totals = {
            "totals": {
                entry.name: summary(_times(entry), entry.num_requests, entry.num_failures)
                for entry in entries
            },
            "counts": counting.totals().by_name(),
            "errors": [
                {"name": error.name, "error": str(error.error), "n": error.occurrences}
                for error in self._environment.stats.errors.values()
            ],
        }
        (self._folder / "totals.json").write_text(json.dumps(totals, indent=1))

    def _write(self) -> None:
        with (self._folder / "samples.jsonl").open("w") as file:
            while True:
                gevent.sleep(PERIOD_S)
                runner = self._environment.runner
                generators = counting.generators()
                line = {
                    "at": time.time(),
                    "users": runner.user_count if runner else 0,
                    "stats": {name: figures for name, figures in self._since_last() if figures["n"]},
                    "generator": {key: max(each[key] for each in generators) for key in ("cpu", "lag_s")},
                    "processes": len(generators),
                    "disconnects": counting.disconnects(),
                    "counts": counting.totals().by_name(),
                }
                file.write(json.dumps(line) + "\n")
                file.flush()

    def _since_last(self) -> list[tuple[str, dict[str, Any]]]:
        return [(entry.name, self._difference(entry)) for entry in self._environment.stats.entries.values()]

    def _difference(self, entry: StatsEntry) -> dict[str, Any]:
        times, requests, failures = self._last.get(entry.name, ({}, 0, 0))
        if entry.num_requests < requests:  # the statistics were reset
            times, requests, failures = {}, 0, 0
        now = _times(entry)
        new = {value: more for value, count in now.items() if (more := count - times.get(value, 0))}
        self._last[entry.name] = (now, entry.num_requests, entry.num_failures)
        return summary(new, entry.num_requests - requests, entry.num_failures - failures)


def _times(entry: StatsEntry) -> dict[float, int]:
    """How often each response time came, in milliseconds."""
    return {float(value): count for value, count in entry.response_times.items()}


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Sample where the figures of all processes are."""
    folder = environment.parsed_options.samples if environment.parsed_options else ""
    if folder and not counting.is_worker(environment):
        sampler = Sampler(environment, Path(folder))
        environment.events.test_start.add_listener(lambda **_: sampler.begin())
        environment.events.quitting.add_listener(lambda **_: sampler.end())
