"""A balancer that knows nothing of clients: each request goes to a node of chance."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Sequence

_CONNECTION = re.compile(rb"\r\nconnection: [^\r]*", re.IGNORECASE)


class Balancer:
    """Passes requests on to ports of this machine: `async with Balancer([8000, 8001]) as balancer`.

    Args:
        ports: of the nodes.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests = dict.fromkeys(ports, 0)
        """How many went where."""

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        port = random.choice(self._ports)
        self.requests[port] += 1
        try:
            await self._pass_on(port, reader, writer)
        finally:
            writer.close()

    async def _pass_on(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"\r\nupgrade:" not in head.lower():
                # The next request is another connection, and so goes where chance will have it.
                head = _CONNECTION.sub(b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
            to_writer.write(head)
            try:
                async with asyncio.TaskGroup() as group:
                    back = group.create_task(_pump(to_reader, writer))
                    there = group.create_task(_pump(reader, to_writer))
                    back.add_done_callback(lambda _: there.cancel())
            finally:
                to_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
