"""A link that a test can cut: the browser's own offline mode leaves open WebSockets alive."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """A TCP relay on a port of this machine, to a hub.

    Args:
        target: the hub's port.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self.swallow_up = False
        """Whether what the browser sends is lost."""
        self.swallow_down = False
        """Whether what the hub sends is lost."""
        self.refuses_websockets = False
        """Whether it is one of those that let no WebSocket through."""
        self.refused = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection, and each that comes."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        """Let connections through again, and all that they carry."""
        self._is_cut = self.swallow_up = self.swallow_down = False

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if self._is_cut:
                return
            first = await reader.read(65_536)
            if self.refuses_websockets and b"\r\nupgrade: websocket" in first.lower():
                self.refused += 1
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            far_writer.write(first)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, far_writer, "swallow_up"))
                    group.create_task(self._pump(far_reader, writer, "swallow_down"))
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except OSError:
            return  # the hub is not there
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                if not getattr(self, swallow):
                    writer.write(chunk)
                    await writer.drain()
        writer.transport.abort()
