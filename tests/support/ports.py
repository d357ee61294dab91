"""Ports to listen on."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from typing import Final

PORTS: Final = range(15_000, 30_000)
"""Below those that the system gives to whoever connects: a port stays free until a test listens on it."""

SHARES: Final = 4
"""Processes that run tests at once and are kept apart: each takes ports from a share of its own."""


def _shuffled() -> Iterator[int]:
    """Every port of this process's share, then all of them again, so that two callers never get one port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = PORTS[worker % SHARES :: SHARES]
    while True:
        yield from random.sample(share, len(share))


_ports = _shuffled()


def free_port() -> int:
    """Return a port that nobody listens on and that this process was not given lately."""
    for port in _ports:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports never run out")
