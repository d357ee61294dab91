"""A TCP proxy whose links can be cut, be late, and go silent as a half-open connection does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from support.limits import WAIT_S


class Proxy:
    """Passes connections on to a port of this machine: `async with Proxy(port) as proxy`.

    Args:
        target: the port.
        late_s: seconds by which what is published comes later to those who subscribed.
    """

    def __init__(self, target: int, *, late_s: float = 0.0) -> None:
        self._target = target
        self._late_s = late_s
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.silences: Callable[[bool], bool] = lambda listening: False
        """Whether a connection's replies are swallowed; told whether it is one that subscribed."""
        self.swallowed = asyncio.Event()
        self.refuses = False
        """Whether new connections are reset."""

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=WAIT_S)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.refuses:
            writer.transport.abort()
            return
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, out]
        is_listening = False

        async def inward() -> None:
            nonlocal is_listening
            while data := await reader.read(65_536):
                is_listening = is_listening or b"SUBSCRIBE" in data
                out.write(data)

        async def outward() -> None:
            has_swallowed = False
            while data := await there.read(65_536):
                if self.silences(is_listening):
                    has_swallowed = True
                    self.swallowed.set()
                elif has_swallowed:
                    return  # as TCP: bytes come in their order or not at all
                else:
                    if is_listening:
                        await asyncio.sleep(self._late_s)
                    writer.write(data)

        try:
            await asyncio.wait(
                {asyncio.ensure_future(inward()), asyncio.ensure_future(outward())},
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            writer.transport.abort()
            out.transport.abort()
