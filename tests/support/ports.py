"""Ports to listen on."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A port below those that the system gives to whoever connects: it stays free until it is taken."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
