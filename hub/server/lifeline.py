"""The link between a worker and its supervisor: each notices when the other is gone, or hangs."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hub.telemetry import get_logger

BEAT_PERIOD_S: Final = 1.0
"""How often a worker's event loop says that it runs."""

BEAT: Final = b"."
READY: Final = b"!"
ROLL: Final = b"^"
"""What a worker sends: its event loop runs; it serves; it asks the supervisor to replace all workers."""

_log = get_logger("hub.workers")


WORKER: Final = "_HUB_WORKER"
"""The variable of the environment that tells a process that it is a worker. No setting begins so."""


def to_worker(sock: socket.socket, link: socket.socket) -> dict[str, str]:
    """Return the environment that gives a child of this process a listening socket and its end of a link.

    The child must inherit both descriptors.
    """
    return {WORKER: f"{os.getpid()} {sock.fileno()} {link.fileno()}"}


def of_worker() -> tuple[socket.socket, socket.socket] | None:
    """Take the listening socket and the link of this process, once; None where it is no worker.

    A child of a worker may inherit the variable, and is no worker: its parent is not the supervisor.
    """
    supervisor, *descriptors = map(int, os.environ.pop(WORKER, "0").split())
    if supervisor != os.getppid():
        return None
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for each in sockets:
        each.set_inheritable(False)
    return sockets[0], sockets[1]


class Lifeline:
    """The worker's end.

    Args:
        link: one end of a socket pair, whose other end the supervisor alone holds. Its end of file means that
            the supervisor is gone.
        end_timeout_s: how long this process may take to end once the supervisor is gone.
    """

    def __init__(self, link: socket.socket, end_timeout_s: float) -> None:
        link.setblocking(True)
        self._link = link
        self._end_timeout_s = end_timeout_s

    def start(self, on_orphaned: Callable[[], None]) -> None:
        """Begin to send beats from the running event loop, and to watch for the end of the supervisor.

        Args:
            on_orphaned: called in the event loop once the supervisor is gone, to end this process.
        """
        loop = asyncio.get_running_loop()
        self._beat(loop)
        watch = threading.Thread(target=self._watch, args=(loop, on_orphaned), daemon=True, name="lifeline")
        watch.start()

    def say_ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self._send(READY)

    def ask_for_roll(self) -> None:
        """Ask the supervisor to replace all workers, one after another."""
        self._send(ROLL)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._send(BEAT)
        loop.call_later(BEAT_PERIOD_S, self._beat, loop)

    def _send(self, message: bytes) -> None:
        # The supervisor may be gone, which the thread notices, or stopped, and then it waits for nothing.
        with suppress(OSError):
            self._link.send(message, socket.MSG_DONTWAIT)

    def _watch(self, loop: asyncio.AbstractEventLoop, on_orphaned: Callable[[], None]) -> None:
        """Wait for the end of the supervisor. This runs in a thread: the event loop may hang."""
        with suppress(OSError):
            while self._link.recv(1):
                pass
        _log.warning("worker.orphaned")
        try:
            loop.call_soon_threadsafe(on_orphaned)
        except RuntimeError:
            return  # the loop has ended already
        time.sleep(self._end_timeout_s)
        os._exit(1)
