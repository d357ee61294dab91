"""Where Unix is absent, the client and the publisher run, and the server says that it does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from support import sdk

ROOT = Path(__file__).parents[2]

WITHOUT_UNIX = """
import os, signal, socket, sys

UNIX = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "uvloop"}


class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in UNIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


for name in UNIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent)
for name in ("fork", "getpgrp", "sysconf", "tcgetpgrp", "uname", "getuid", "getpgid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGQUIT", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("AF_UNIX", "TCP_USER_TIMEOUT", "SO_REUSEPORT"):
    if hasattr(socket, name):
        delattr(socket, name)
"""
"""Makes what Windows lacks absent in a process."""


def without_unix(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where the modules, calls and constants of Unix are absent."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX + program], cwd=ROOT, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    "program",
    [
        "import hub; hub.Hub(hub.Settings())",
        "import hub.client; hub.client.Client('http://127.0.0.1:1')",
        "from hub import Publisher; Publisher('http://127.0.0.1:1', 'key').close()",
        "import hub.cli.main",
        "import hub.node.node, hub.broker.redis.broker, hub.endpoints.asgi, hub.telemetry",
    ],
)
def test_everything_but_the_server_is_imported(program: str) -> None:
    ran = without_unix(
        f"try:\n    import resource\nexcept ImportError:\n    {program}\nelse:\n    raise SystemExit(9)"
    )
    assert ran.returncode == 0, ran.stderr


def test_the_server_says_in_one_line_where_it_does_not_run() -> None:
    ran = without_unix("from hub.cli.main import main; main(['serve'])")
    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert line.startswith("hub: the hub's server runs on Linux, macOS and other Unix systems")


async def test_the_publisher_publishes() -> None:
    async with sdk.live() as (_, server):
        program = (
            f"from hub import Publisher\nwith Publisher({server.url!r}, {sdk.API_KEY!r}) as hub:\n"
            "    print(hub.publish('chat:a', 1).offset)"
        )
        ran = await asyncio.to_thread(without_unix, program)
    assert (ran.returncode, ran.stdout) == (0, "1\n"), ran.stderr
