"""A hub on this machine to be loaded: nodes, a Redis between several, and the faults that may befall them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

CONFIG: Final = Path(__file__).parent / "hub.toml"
FREEZE_S: Final = 5.0
START_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 30.0
_LOOK_PERIOD_S: Final = 0.05


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class LocalServer:
    """A server in a process of its own, on a port of this machine. It can be started again after its end.

    Args:
        command: that starts it.
        port: where it listens.
        question: what it answers once it serves.
        answer: how the answer begins.
        log: the file that takes what it writes.
    """

    def __init__(self, command: Sequence[str], port: int, question: bytes, answer: bytes, log: Path) -> None:
        self.port = port
        self._command = command
        self._question = question
        self._answer = answer
        self._output = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "it was started"
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            RuntimeError: it ended, or did not serve in time; the text is what it wrote last.
        """
        environ = {key: value for key, value in os.environ.items() if not key.startswith("HUB_")}
        with self._output.open("ab") as file:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=environ, stdout=file, stderr=file
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._serves():
                    if self._process.returncode is not None:
                        raise RuntimeError(f"{self._command[0]} ended: {self._said()}")
                    await asyncio.sleep(_LOOK_PERIOD_S)  # of another process
        except TimeoutError:
            raise RuntimeError(f"{self._command[0]} did not serve in {START_TIMEOUT_S:g} s") from None

    async def _serves(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(self._question)
            return (await reader.readline()).startswith(self._answer)
        except OSError:
            return False
        finally:
            writer.close()

    def _said(self) -> str:
        return self._output.read_text(errors="replace").strip().rpartition("\n")[2]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "it was started"
        self._process.send_signal(number)

    async def wait(self) -> None:
        """Wait for its end.

        Raises:
            TimeoutError: it did not end in time.
        """
        assert self._process is not None, "it was started"
        await asyncio.wait_for(self._process.wait(), END_TIMEOUT_S)

    async def kill(self) -> None:
        """End it with no chance to say goodbye."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def redis_server(folder: Path) -> LocalServer:
    """A Redis server that keeps its data, in a folder, over a restart.

    Raises:
        RuntimeError: Redis is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("several nodes need redis-server: install Redis, or give --nodes 1")
    port = free_port()
    options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always")
    command = (program, "--port", str(port), "--dir", str(folder), *options)
    return LocalServer(command, port, b"PING\r\n", b"+PONG", folder / "redis.log")


def hub_node(folder: Path, *arguments: str) -> LocalServer:
    """A node with arguments of `hub serve`, and a log in a folder."""
    port = free_port()
    command = (sys.executable, "-m", "hub", "serve", "--port", str(port), *arguments)
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return LocalServer(command, port, request, b"HTTP/1.1 200", folder / f"node-{port}.log")


class LocalHub:
    """`async with LocalHub(nodes) as hub`.

    Args:
        count: of nodes. Several have Redis between them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = AsyncExitStack()
        self.redis: LocalServer | None = None
        self.nodes: list[LocalServer] = []

    async def __aenter__(self) -> LocalHub:
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-load-")))
            arguments = ["--config", str(CONFIG)]
            if self._count > 1:
                self.redis = redis_server(folder)
                self._stack.push_async_callback(self.redis.kill)
                await self.redis.start()
                arguments += ["--redis", f"redis://127.0.0.1:{self.redis.port}"]
            self.nodes = [hub_node(folder, *arguments) for _ in range(self._count)]
            for node in self.nodes:
                self._stack.push_async_callback(node.kill)
            await asyncio.gather(*(node.start() for node in self.nodes))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{node.port}" for node in self.nodes]


async def kill_node(hub: LocalHub) -> None:
    """The last node is gone at once, and comes back after two seconds."""
    await hub.nodes[-1].kill()
    await asyncio.sleep(2.0)
    await hub.nodes[-1].start()


async def roll(hub: LocalHub) -> None:
    """Each node drains and begins anew, one after the other."""
    for node in hub.nodes:
        node.signal(signal.SIGTERM)
        await node.wait()
        await node.start()


async def restart_redis(hub: LocalHub) -> None:
    """Redis is killed, and comes back with its data after two seconds."""
    assert hub.redis
    await hub.redis.kill()
    await asyncio.sleep(2.0)
    await hub.redis.start()


async def freeze_redis(hub: LocalHub) -> None:
    """Redis stands still for five seconds."""
    assert hub.redis
    hub.redis.signal(signal.SIGSTOP)
    await asyncio.sleep(FREEZE_S)
    hub.redis.signal(signal.SIGCONT)


FAULTS: Final[dict[str, Callable[[LocalHub], Awaitable[None]]]] = {
    "kill-node": kill_node,
    "roll": roll,
    "restart-redis": restart_redis,
    "freeze-redis": freeze_redis,
}
"""By the name that `--at` takes."""

NEED_REDIS: Final = {"restart-redis", "freeze-redis"}
