"""Hubs to test against: one in the test's own event loop, or one in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from support.limits import WAIT_S
from support.ports import free_port

from hub.app import create_app
from hub.config import load
from hub.server.listener import listen
from hub.server.server import HubServer, make_config
from hub.settings import Settings


class _Server(HubServer):
    """A server that leaves the test runner's signal handlers alone and says when it has started."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.up = asyncio.Event()

    async def main_loop(self) -> None:
        # uvicorn looks ten times a second whether it is to end, and there are hundreds of tests.
        for counter in itertools.count():
            if await self.on_tick(counter):
                return
            await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Running:
    """A hub that serves on a port of this machine.

    Args:
        port: the port that it got.
        app: the ASGI app; its `state.hub` is the `Hub`, where it was made from settings.
        server: the server under it.
    """

    def __init__(self, port: int, app: Any, server: HubServer) -> None:
        self.port = port
        self.app = app
        self.server = server
        self.url = f"http://127.0.0.1:{port}"
        self.websocket_url = f"ws://127.0.0.1:{port}/connection/websocket"


@contextlib.asynccontextmanager
async def running(
    app: Any,
    settings: Settings | None = None,
    *,
    drain: Callable[[float], Awaitable[None]] | None = None,
) -> AsyncIterator[Running]:
    """Serve in this event loop, on a free port of 127.0.0.1, until the block ends.

    Args:
        app: settings, of which a hub is made, or an ASGI app.
        settings: those of the server under an app; the defaults where they are not given.
        drain: what the server calls to drain an app. A hub made from settings drains itself.

    Raises:
        StartupError: the app did not start.
    """
    if isinstance(app, Settings):
        settings = app
        app = create_app(settings)
        drain = app.state.hub.drain
    settings = settings or load(env={})
    sock = listen("127.0.0.1", 0)
    hubs = getattr(app.state, "hubs", ()) if isinstance(app, Starlette) else ()
    config = make_config(app, settings, nodes=[hub.node for hub in hubs])
    server = _Server(config, settings, drain)
    task = asyncio.create_task(server.serve([sock]))
    up = asyncio.create_task(server.up.wait())
    try:
        await asyncio.wait({task, up}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        assert up.done(), f"the app did not start in {WAIT_S} s"
        yield Running(server.port, app, server)
    finally:
        up.cancel()
        server.should_exit = True
        async with asyncio.timeout(WAIT_S):
            await task


class _Plain(uvicorn.Server):
    """uvicorn as it is, but for the test runner's signal handlers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@contextlib.asynccontextmanager
async def under_uvicorn(
    app: Any, *, ws: Literal["websockets-sansio", "none"] = "websockets-sansio"
) -> AsyncIterator[int]:
    """Serve an app under uvicorn as it is, on a free port of 127.0.0.1, which is given.

    Args:
        app: the ASGI app.
        ws: uvicorn's WebSocket engine; `none` passes handshakes on as plain HTTP.
    """
    sock = listen("127.0.0.1", 0)
    server = _Plain(uvicorn.Config(app, ws=ws, lifespan="on", log_config=None, timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve([sock]))
    try:
        async with asyncio.timeout(WAIT_S):
            await server.up.wait()
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task


class Process:
    """A hub in a process of its own: `async with Process("--dev") as hub`.

    Args:
        arguments: those after `hub serve`; the port is chosen here.
        env: more environment variables.
        cwd: the folder to run in.
        files_max: the limit on the process's file descriptors.
        program: what Python runs in place of the command `hub`.
        prefix: of the hub's paths, in a program whose app has the hub under a path.
    """

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        files_max: int | None = None,
        program: Sequence[str] = ("-m", "hub"),
        prefix: str = "",
    ) -> None:
        self.port = free_port()
        self.prefix = prefix
        self.url = f"http://127.0.0.1:{self.port}{prefix}"
        self.websocket_url = f"ws://127.0.0.1:{self.port}{prefix}/connection/websocket"
        self._arguments = arguments
        self._program = program
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HUB_")}
        # A hub under test shares its cores with a browser, and is not overloaded for being late.
        never_late = {} if "--config" in arguments else {"HUB_SERVER__LAG_MAX_S": "0"}
        self._env = {**inherited, **never_late, **(env or {})}
        self._cwd = cwd
        self._files_max = files_max
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log: list[bytes] = []

    @property
    def log(self) -> str:
        """All that the process has written, to both of its outputs, so far."""
        return b"".join(self._log).decode(errors="replace")

    async def line(self, text: str, count: int = 1) -> str:
        """Wait until the process has written a text in so many lines, and return the last of them."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    whole = self.log.rpartition("\n")[0].splitlines()
                    if len(found := [line for line in whole if text in line]) >= count:
                        return found[-1]
                    await asyncio.sleep(0.02)  # of another process
        except TimeoutError:
            raise AssertionError(f"the hub does not write {text!r}:\n{self.log}") from None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "the process was not started"
        return self._process.pid

    async def __aenter__(self) -> Process:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it answers `/livez`.

        Raises:
            AssertionError: with its log, where it ended or stayed silent.
        """
        command = [sys.executable, *self._program, "serve", "--port", str(self.port), *self._arguments]
        if self._files_max is not None:
            command = ["prlimit", f"--nofile={self._files_max}:{self._files_max}", *command]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env=self._env,
            cwd=self._cwd,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(WAIT_S):
                while not await self._alive():
                    assert self._process.returncode is None, f"the hub ended:\n{self.log}"
                    await asyncio.sleep(0.02)  # another process's listener announces itself by nothing else
        except BaseException as exc:
            await self.kill()
            if isinstance(exc, TimeoutError):
                raise AssertionError(f"the hub does not answer:\n{self.log}") from None
            raise

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(65_536):
            self._log.append(chunk)

    async def _alive(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            request = f"GET {self.prefix}/livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "the process was not started"
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end, for a bounded time.

        Returns:
            Its exit code; minus the signal's number where one ended it.
        """
        assert self._process is not None, "the process was not started"
        assert self._reader is not None
        async with asyncio.timeout(WAIT_S):
            code = await self._process.wait()
            await self._reader
        return code

    async def stop(self) -> int:
        """End it as an operator would, with everybody disconnected at once, and return its exit code."""
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGINT)
        try:
            return await self.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the hub did not end:\n{self.log}") from None

    async def kill(self) -> None:
        """End it with no chance to say goodbye."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self.wait()
