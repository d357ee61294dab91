"""Several nodes on one port: a process for each, supervised, and replaced one after another."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final

from hub.server.lifeline import READY, ROLL, to_worker
from hub.server.signals import catching, meaning_of, went_to_group
from hub.telemetry import get_logger

BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

STEADY_S: Final = 60.0
"""A worker that lived this long is restarted as if it had never died."""

START_TIMEOUT_S: Final = 30.0
"""What a new worker has until its event loop runs, and until it serves if it is to replace another worker."""

HUNG_AFTER_S: Final = 30.0
"""A worker whose event loop gives no sign of life for this long is killed, and started again."""

_LOOK_PERIOD_S: Final = 0.1
_LINK_BYTES: Final = 4096

_log = get_logger("hub.workers")


class WorkerProcess:
    """A process of a worker, and what it says of itself.

    Args:
        process: started already.
        link: this end of the socket pair whose other end the process has.
        now: monotonic seconds.
    """

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, now: float) -> None:
        link.setblocking(False)
        self.process = process
        self.is_ready = False
        """Whether it serves."""
        self.wants_roll = False
        """Whether it asked, since the last look, for all workers to be replaced."""
        self._link = link
        self._heard_at = now
        self._may_be_silent_s = START_TIMEOUT_S

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, if only to hang."""
        return self.process.poll() is None

    def look(self, number: int, now: float) -> None:
        """Read what the process said, and kill it if it hangs.

        Args:
            number: of the worker, for the log.
            now: monotonic seconds.
        """
        try:
            said = self._link.recv(_LINK_BYTES)
        except BlockingIOError:
            said = b""
        except OSError:
            return
        if said:
            self._heard_at = now
            self._may_be_silent_s = HUNG_AFTER_S
            self.is_ready |= READY in said
            self.wants_roll |= ROLL in said
        elif now - self._heard_at > self._may_be_silent_s and self.is_alive:
            _log.error("worker.hung", worker=number, silent_s=round(now - self._heard_at, 1))
            self.process.kill()
            self._heard_at = now

    def close(self) -> None:
        """Forget a process that ended."""
        self._link.close()


class Worker:
    """One node's processes, its listening socket, and when a process may be started next.

    The supervisor holds the socket, so that the next process serves the clients that wait in its queue.

    Args:
        number: from 1, for the log.
        start: starts a process on a socket.
        bind: makes a listening socket.
    """

    def __init__(
        self,
        number: int,
        start: Callable[[socket.socket], WorkerProcess],
        bind: Callable[[], socket.socket],
    ) -> None:
        self.number = number
        self._start = start
        self._bind = bind
        self._deaths = 0
        self._started_at = 0.0
        self._start_at: float | None = None
        self._socket: socket.socket | None = None
        self.current: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.leaving: WorkerProcess | None = None

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes that are alive."""
        every = (self.leaving, self.current, self.successor)
        return [process for process in every if process is not None and process.is_alive]

    @property
    def is_rolling(self) -> bool:
        """Whether its process is being replaced."""
        return self.successor is not None or self.leaving is not None

    def take_roll(self) -> bool:
        """Whether one of its processes asked, since the last call, for all workers to be replaced."""
        wants = False
        for process in self.processes:
            wants |= process.wants_roll
            process.wants_roll = False
        return wants

    def listen_to(self, now: float) -> None:
        """Read what its processes say, and kill those that hang.

        Args:
            now: monotonic seconds.
        """
        for process in self.processes:
            process.look(self.number, now)

    def look(self, now: float) -> bool:
        """Start the process when it is due, and act on one that died or is being replaced.

        Returns:
            False where a process that was to replace it did not come up.
        """
        self.listen_to(now)
        if self.current is None:
            if self._start_at is None or now >= self._start_at:
                self.current = self._begin(now)
        elif not self.current.is_alive:
            self._bury(self.current, now)
        if self.leaving is not None and not self.leaving.is_alive:
            self.leaving.close()
            self.leaving = None
            _log.info("worker.rolled", worker=self.number)
        return self.successor is None or self._succeed(self.successor, now)

    def roll(self, now: float) -> None:
        """Begin to replace the process by a new one. If it is dead, the next one is new anyway."""
        if self.current is not None:
            self.successor = self._begin(now)

    def release(self) -> None:
        """Stop listening. Newcomers are refused, unless a process of this worker still listens."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _begin(self, now: float) -> WorkerProcess:
        self._started_at = now
        self._socket = self._socket or self._bind()
        return self._start(self._socket)

    def _bury(self, dead: WorkerProcess, now: float) -> None:
        # With a new socket: the kernel deals no more clients to a socket that no process accepts on.
        self.release()
        self._deaths = 1 if now - self._started_at > STEADY_S else self._deaths + 1
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(self._deaths, 10))
        wait_s = random.uniform(0, backoff_s)  # noqa: S311 - jitter
        code = dead.process.poll()
        _log.error("worker.died", worker=self.number, code=code, restart_s=round(wait_s, 2))
        self._start_at = now + wait_s
        dead.close()
        self.current, self.successor = self.successor, None

    def _succeed(self, successor: WorkerProcess, now: float) -> bool:
        if successor.is_ready:
            assert self.current is not None, "it is replaced while it lives"
            self.current.process.send_signal(signal.SIGHUP)
            self.leaving, self.current, self.successor = self.current, successor, None
        elif not successor.is_alive or now - self._started_at > START_TIMEOUT_S:
            code = successor.process.poll()
            reason = "the new process is late" if code is None else f"the new process ended with {code}"
            _log.error("roll.failed", worker=self.number, reason=reason)
            successor.process.kill()
            successor.close()
            self.successor = None
            return False
        return True


class Supervisor:
    """Runs as many workers as are set, until a signal ends them.

    - SIGTERM and SIGINT go on to the workers, which drain; so does a second one, which ends their drain.
    - SIGHUP replaces the workers one after another, each by a process that reads its code and settings again.
      The new process must serve before the old one drains; if it does not, all stays as it is. The number of
      workers and their address stay as they are.
    - A worker that hangs is killed, and started again.
    - If the supervisor itself is killed, the workers drain and end.

    Args:
        count: of workers.
        command: starts a worker's process, which calls `lifeline.of_worker`. The process reads code and
            settings at its own start, so those of now, however long the supervisor has been running.
        bind: makes a listening socket, one of several on the port.
    """

    def __init__(self, count: int, command: Sequence[str], bind: Callable[[], socket.socket]) -> None:
        self._command = command
        self.workers = [Worker(number, self._start, bind) for number in range(1, count + 1)]
        self._to_roll: list[Worker] = []
        self._signals: list[int] = []

    def run(self) -> None:
        """Supervise until the end."""
        with catching(lambda sig, _: self._signals.append(sig), signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            _log.info("workers.started", workers=len(self.workers))
            while not self._take_signals():
                self._look(time.monotonic())
                time.sleep(_LOOK_PERIOD_S)
            while any(worker.processes for worker in self.workers):
                for worker in self.workers:
                    worker.listen_to(time.monotonic())
                    if not worker.processes:
                        worker.release()
                time.sleep(_LOOK_PERIOD_S)
                self._take_signals()

    def _start(self, sock: socket.socket) -> WorkerProcess:
        link, workers_link = socket.socketpair()
        with workers_link:
            process = subprocess.Popen(  # noqa: S603 - its own command line
                self._command,
                env=os.environ | to_worker(sock, workers_link),
                pass_fds=(sock.fileno(), workers_link.fileno()),
            )
        return WorkerProcess(process, link, time.monotonic())

    def _take_signals(self) -> bool:
        """Do what signals ask for.

        Returns:
            Whether the supervisor is to end.
        """
        taken, self._signals = self._signals, []
        ends = [sig for sig in taken if meaning_of(sig) != signal.SIGHUP]
        for sig in ends:
            if sig == signal.SIGHUP or went_to_group(sig):
                continue  # the workers got it too
            for worker in self.workers:
                for each in worker.processes:
                    each.process.send_signal(sig)
        if taken and not ends:
            self._to_roll = list(self.workers)
        return bool(ends)

    def _look(self, now: float) -> None:
        for worker in self.workers:
            if not worker.look(now):
                self._to_roll.clear()
        asking = [worker for worker in self.workers if worker.take_roll()]
        if asking:
            self._to_roll = list(self.workers)
        if self._to_roll and not any(worker.is_rolling for worker in self.workers):
            self._to_roll.pop(0).roll(now)
