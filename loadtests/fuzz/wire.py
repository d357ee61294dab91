"""Requests and responses as bytes, for what no HTTP library would send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

READ_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Answer:
    """A response.

    Args:
        status: its code.
        headers: by name in lower case.
        body: whole.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server says that it closes the connection."""
        return self.headers.get("connection", "").lower() == "close"


async def read_answer(reader: asyncio.StreamReader, *, has_body: bool | None = True) -> Answer | None:
    """Read a response; those of 100 Continue are passed over. Returns None where the connection ends instead.

    Args:
        reader: of the connection.
        has_body: whether a body belongs to the response; None for the last response of a connection, which
            may have one or not.

    Raises:
        TimeoutError: nothing came for a time.
        ValueError: what came is no response.
    """
    async with asyncio.timeout(READ_TIMEOUT_S):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head[:-4].split("\r\n")
                version, status, *_ = line.split(" ", 2)
                if not version.startswith("HTTP/1."):
                    raise ValueError(f"no response: {line[:60]!r}")
                if status != "100":
                    break
            headers = {
                name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
            }
            body = b""
            if has_body is None:
                body = await reader.read()
            elif has_body and status not in ("204", "304", "101"):
                body = await _body(reader, headers)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
    return Answer(int(status), headers, body)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the hub."""
    async with asyncio.timeout(READ_TIMEOUT_S):
        return await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)


async def ask(port: int, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send a request over a connection of its own.

    Raises:
        ConnectionError: no answer came.
    """
    fields = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reader, writer = await connect(port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        answer = await read_answer(reader, has_body=method != "HEAD")
    finally:
        writer.transport.abort()
    if answer is None:
        raise ConnectionError("the hub closed the connection without an answer")
    return answer
