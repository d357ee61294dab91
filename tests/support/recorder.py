"""A server in place of a node: it records the requests that a proxy passes on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final

MARK: Final = "x-mark"
"""The header that tells a test's request from a health check."""


@dataclass(frozen=True)
class Recorded:
    """A request.

    Args:
        method: of the request line.
        target: of the request line, as it came.
        headers: names in lower case, and values, in their order.
    """

    method: str
    target: str
    headers: list[tuple[str, str]] = field(repr=False)

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key == name]


class Recorder:
    """Records the requests with the header `MARK`: `async with Recorder() as node`.

    Args:
        status: of the answers to recorded requests; 0 closes the connection without an answer. Other
            requests, such as health checks, are answered 200.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[Recorded] = []

    async def __aenter__(self) -> Recorder:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            status = await self._status(reader)
            if status:
                writer.write(
                    f"HTTP/1.1 {status} Any\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
        writer.close()

    async def _status(self, reader: asyncio.StreamReader) -> int:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        fields = [line.split(":", 1) for line in lines if line]
        headers = [(name.lower(), value.strip()) for name, value in fields]
        method, target, _ = first.split(" ", 2)
        request = Recorded(method, target, headers)
        for length in request.values("content-length"):
            await reader.readexactly(int(length))
        if not request.values(MARK):
            return 200
        self.requests.append(request)
        return self.status
