"""A network that fails: a TCP proxy whose connections a test cuts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from types import TracebackType


class Proxy:
    """Passes connections on to a port of this machine: `async with Proxy(port) as proxy`.

    Args:
        port: where they go; as `target` it may change.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.bytes_per_s = 0
        """How fast what the target says gets through, on connections made from now on; 0 for at once."""
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._down = False
        self._unheard: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.websocket_url = f"ws://127.0.0.1:{self.port}/connection/websocket"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.go_down()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection with no goodbye to either side. New ones may come."""
        for writer in list(self._open):
            writer.transport.abort()

    def go_down(self) -> None:
        """Break every connection, and refuse new ones until `come_up`."""
        self._down = True
        self.cut()

    def half_open(self) -> None:
        """From now on lose what the target says over the connections that there are; neither side is told."""
        self._unheard |= self._open

    def come_up(self) -> None:
        """Take connections again."""
        self._down = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._down:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, to_writer}
        if self._down:
            self.cut()
        await asyncio.gather(
            self._pump(reader, to_writer), self._pump(to_reader, writer, losing=self._unheard)
        )
        self._open -= {writer, to_writer}
        self._unheard -= {writer, to_writer}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setblocking(False)
        if self.bytes_per_s:
            # Else the kernel takes megabytes at once, and the target never notices.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.target))
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        losing: Collection[asyncio.StreamWriter] = (),
    ) -> None:
        bytes_per_s = self.bytes_per_s if losing is self._unheard else 0
        try:
            while data := await reader.read(65_536):
                if bytes_per_s:
                    await asyncio.sleep(len(data) / bytes_per_s)
                if writer not in losing:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
