"""Listening sockets, and how many sockets a process may hold."""

from __future__ import annotations

import errno
import resource
import socket
from typing import Final

from hub.errors import StartupError
from hub.settings import Settings
from hub.telemetry import get_logger

BACKLOG: Final = 4096
"""Connections that wait in the kernel to be accepted. In a reconnect storm many arrive at once."""

FILES_RESERVED: Final = 64
"""Descriptors that clients cannot have: for the process itself, and for sockets that are being refused."""

_log = get_logger("hub.server")


def listen(host: str, port: int, *, user_timeout_s: float = 0.0, is_shared: bool = False) -> socket.socket:
    """Bind a listening socket.

    Args:
        host: an address of this machine, or its name.
        port: 0 for one that is free.
        user_timeout_s: seconds after which the kernel gives up a connection whose peer acknowledges nothing;
            0 for the kernel's own default of many minutes.
        is_shared: whether other processes listen there too, and the kernel deals connections out.

    Raises:
        StartupError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=is_shared)
    except OSError as exc:
        raise StartupError(_why_not(host, port, exc)) from None
    # Accepted sockets inherit both. asyncio knows TCP by a protocol number that `create_server` does not set.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if user_timeout_s and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout_s * 1000))
    sock.setblocking(False)
    return sock


def _why_not(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"{host}:{port} is taken by another program: choose another port with --port or HUB_PORT"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to listen on {host}:{port}: choose a port over 1023 with --port or HUB_PORT"
    if exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
        return f"{host} is no address of this machine: choose one with --host or HUB_SERVER__HOST"
    return f"cannot listen on {host}:{port}: {exc.strerror or exc}"


def bind(settings: Settings) -> socket.socket:
    """Listen at the settings' address.

    Raises:
        StartupError: it cannot be had.
    """
    client, server = settings.client, settings.server
    return listen(
        server.host,
        server.port,
        user_timeout_s=client.stall_timeout_s,
        is_shared=server.workers > 1,
    )


def sockets_max(wanted: int) -> int:
    """How many sockets of clients to hold at once.

    Args:
        wanted: at most so many; 0 for as many as the limit on descriptors leaves room for.
    """
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return wanted or 1 << 30
    room = max(1, min(files_max * 9 // 10, files_max - FILES_RESERVED))
    return min(wanted, room) if wanted else room


def raise_file_limit() -> None:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as exc:
            _log.warning("server.limit", limit="open files", value=soft, reason=str(exc))
