"""Several nodes on one port: a process for each, supervised."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final

from hub.settings import Settings
from hub.telemetry import get_logger

BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

STEADY_S: Final = 60.0
"""A worker that lived this long is restarted as if it had never died."""

_LOOK_PERIOD_S: Final = 0.1

_log = get_logger("hub.workers")


class Worker:
    """One node's process, and when it may be started next.

    Args:
        number: from 1, for the log.
        start: starts its process.
    """

    def __init__(self, number: int, start: Callable[[], BaseProcess]) -> None:
        self.number = number
        self._start = start
        self._deaths = 0
        self._started_at = 0.0
        self._start_at: float | None = None
        self.process: BaseProcess | None = None

    def look(self, now: float) -> None:
        """Start the process where it is due, and see to one that died."""
        if self.process is None:
            if self._start_at is None or now >= self._start_at:
                self.process = self._start()
                self._started_at = now
        elif not self.process.is_alive():
            self._deaths = 1 if now - self._started_at > STEADY_S else self._deaths + 1
            backoff_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(self._deaths, 10))
            wait_s = random.uniform(0, backoff_s)  # noqa: S311 - jitter
            _log.error(
                "worker.died", worker=self.number, code=self.process.exitcode, restart_s=round(wait_s, 2)
            )
            self._start_at = now + wait_s
            self.process = None


class Supervisor:
    """Runs as many workers as are set, until a signal ends them.

    SIGTERM and SIGINT go on to the workers, which drain; a second one too, which ends their drain.

    Args:
        count: of workers.
        target: what a worker's process runs.
        settings: handed to it.
    """

    def __init__(self, count: int, target: Callable[[Settings], None], settings: Settings) -> None:
        # A fresh interpreter for each: nothing of an event loop or a thread is inherited.
        context = multiprocessing.get_context("spawn")

        def start() -> BaseProcess:
            process = context.Process(target=target, args=(settings,))
            process.start()
            return process

        self.workers = [Worker(number, start) for number in range(1, count + 1)]
        self._ending = False

    def run(self) -> None:
        """Supervise until the end."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._on_signal)
        _log.info("workers.started", workers=len(self.workers))
        while not self._ending:
            for worker in self.workers:
                worker.look(time.monotonic())
            time.sleep(_LOOK_PERIOD_S)
        for worker in self.workers:
            if worker.process is not None:
                worker.process.join()

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        self._ending = True
        for worker in self.workers:
            # A terminal sends SIGINT to the whole group; SIGTERM comes to this process alone.
            if sig == signal.SIGTERM and worker.process is not None and worker.process.is_alive():
                worker.process.terminate()
