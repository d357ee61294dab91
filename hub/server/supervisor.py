"""Several nodes on one port: a process for each, supervised, and replaced one after another."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, Final, TypeAlias

from hub.errors import HubError
from hub.settings import Settings
from hub.telemetry import get_logger

BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

STEADY_S: Final = 60.0
"""A worker that lived this long is restarted as if it had never died."""

START_TIMEOUT_S: Final = 30.0
"""What a new worker has until it serves; the one it is to replace stays otherwise."""

_LOOK_PERIOD_S: Final = 0.1
_AT_TERMINAL: Final = os.isatty(2)

_log = get_logger("hub.workers")


def meant(sig: int) -> int:
    """What a signal asks for. A terminal that is closed sends SIGHUP too, and that is the end."""
    return signal.SIGTERM if sig == signal.SIGHUP and _AT_TERMINAL and not os.isatty(2) else sig


@contextmanager
def catching(handler: Callable[[int, FrameType | None], Any], *signals: int) -> Generator[None, None, None]:
    """Have a handler called at signals while the context lasts."""
    before = {sig: signal.signal(sig, handler) for sig in signals}
    try:
        yield
    finally:
        for sig, was in before.items():
            signal.signal(sig, was)


Target: TypeAlias = Callable[[Settings, socket.socket, Event], None]


class Worker:
    """One node's process, its listening socket, and when it may be started next.

    The supervisor holds the socket, so that who waits in its queue is served by the next process.

    Args:
        number: from 1, for the log.
        start: starts a process on a socket, with the event that it sets once it serves.
        bind: makes a socket.
    """

    def __init__(
        self,
        number: int,
        start: Callable[[socket.socket, Event], BaseProcess],
        bind: Callable[[], socket.socket],
    ) -> None:
        self.number = number
        self._start = start
        self._bind = bind
        self._deaths = 0
        self._started_at = 0.0
        self._start_at: float | None = None
        self._socket: socket.socket | None = None
        self._ready: Event | None = None
        self.process: BaseProcess | None = None
        self.successor: BaseProcess | None = None
        self.leaving: BaseProcess | None = None

    @property
    def processes(self) -> list[BaseProcess]:
        """Those that are alive."""
        every = (self.leaving, self.process, self.successor)
        return [process for process in every if process is not None and process.is_alive()]

    @property
    def is_rolling(self) -> bool:
        """Whether its process is being replaced."""
        return self.successor is not None or self.leaving is not None

    def look(self, now: float) -> bool:
        """Start the process where it is due, and see to one that died or is being replaced.

        Returns False where a process that was to replace it did not come up.
        """
        if self.process is None:
            if self._start_at is None or now >= self._start_at:
                self.process = self._begin(now)
        elif not self.process.is_alive():
            self._bury(now)
        if self.leaving is not None and not self.leaving.is_alive():
            self.leaving = None
            _log.info("worker.rolled", worker=self.number)
        return self.successor is None or self._succeed(self.successor, now)

    def roll(self, now: float) -> None:
        """Begin to replace the process by a new one. Where it is dead, the one to come is new anyway."""
        if self.process is not None:
            self.successor = self._begin(now)

    def release(self) -> None:
        """Listen no more. Whoever asks is refused, unless a process of this worker still listens."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _begin(self, now: float) -> BaseProcess:
        self._started_at = now
        self._ready = _CONTEXT.Event()
        self._socket = self._socket or self._bind()
        return self._start(self._socket, self._ready)

    def _bury(self, now: float) -> None:
        assert self.process is not None, "it died"
        # With a new socket: the kernel deals no more clients to one that nobody looks after.
        self.release()
        self._deaths = 1 if now - self._started_at > STEADY_S else self._deaths + 1
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(self._deaths, 10))
        wait_s = random.uniform(0, backoff_s)  # noqa: S311 - jitter
        _log.error("worker.died", worker=self.number, code=self.process.exitcode, restart_s=round(wait_s, 2))
        self._start_at = now + wait_s
        self.process, self.successor = self.successor, None

    def _succeed(self, successor: BaseProcess, now: float) -> bool:
        if self._ready is not None and self._ready.is_set():
            assert self.process is not None, "it is replaced while it lives"
            os.kill(self.process.pid or 0, signal.SIGHUP)
            self.leaving, self.process, self.successor = self.process, successor, None
        elif not successor.is_alive() or now - self._started_at > START_TIMEOUT_S:
            code = successor.exitcode
            reason = "the new process is late" if code is None else f"the new process ended with {code}"
            _log.error("roll.failed", worker=self.number, reason=reason)
            successor.kill()
            self.successor = None
            return False
        return True


_CONTEXT: Final = multiprocessing.get_context("spawn")
"""A fresh interpreter for each process: nothing of an event loop or a thread is inherited."""


class Supervisor:
    """Runs as many workers as are set, until a signal ends them.

    SIGTERM and SIGINT go on to the workers, which drain; a second one too, which ends their drain. SIGHUP
    replaces the workers one after another, each by a process with the settings read anew: it must serve
    before the old one drains, and if it does not, all stays as it is.

    Args:
        count: of workers.
        target: what a worker's process runs.
        load: reads the settings.
        bind: makes a listening socket, one of several on the port.
    """

    def __init__(
        self,
        count: int,
        target: Target,
        load: Callable[[], Settings],
        bind: Callable[[Settings], socket.socket],
    ) -> None:
        self._settings = settings = load()
        self._load = load

        def start(sock: socket.socket, ready: Event) -> BaseProcess:
            process = _CONTEXT.Process(target=target, args=(self._settings, sock, ready))
            process.start()
            return process

        self.workers = [Worker(number, start, lambda: bind(settings)) for number in range(1, count + 1)]
        self._to_roll: list[Worker] = []
        self._signals: list[int] = []

    def run(self) -> None:
        """Supervise until the end."""
        with catching(lambda sig, _: self._signals.append(sig), signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            _log.info("workers.started", workers=len(self.workers))
            while not self._is_told_to_end():
                self._look(time.monotonic())
                time.sleep(_LOOK_PERIOD_S)
            while any(worker.processes for worker in self.workers):
                for worker in self.workers:
                    if not worker.processes:
                        worker.release()
                time.sleep(_LOOK_PERIOD_S)
                self._is_told_to_end()

    def _is_told_to_end(self) -> bool:
        """Do what signals ask for."""
        taken, self._signals = self._signals, []
        ends = [sig for sig in taken if meant(sig) != signal.SIGHUP]
        for _ in (sig for sig in ends if sig == signal.SIGTERM):
            # It comes to this process alone; a terminal sends the others to the whole group.
            for worker in self.workers:
                for process in worker.processes:
                    process.terminate()
        if taken and not ends:
            self._begin_roll()
        return bool(ends)

    def _look(self, now: float) -> None:
        for worker in self.workers:
            if not worker.look(now):
                self._to_roll.clear()
        if self._to_roll and not any(worker.is_rolling for worker in self.workers):
            self._to_roll.pop(0).roll(now)

    def _begin_roll(self) -> None:
        try:
            self._settings = self._load()
        except HubError as exc:
            _log.error("roll.failed", reason=str(exc))
        else:
            self._to_roll = list(self.workers)
