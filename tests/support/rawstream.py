"""A client whose way in is a response that goes on, and whose way out are requests of their own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

from support.limits import WAIT_S


class RawStream:
    """A response, read as it comes. Every wait has an end: `TimeoutError` after ten seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head
        self.status = int(head.split(" ", 2)[1])
        fields = (line.partition(":") for line in head.split("\r\n")[1:] if line)
        self.headers = {name.lower(): value.strip() for name, _, value in fields}
        self._body = b""

    @classmethod
    async def send(
        cls,
        port: int,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        receive_buffer_bytes: int | None = None,
    ) -> RawStream:
        """Send a request, and read the head of its response.

        Args:
            receive_buffer_bytes: the size of this side's kernel buffer, and so of what it takes unread.
        """
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        fields = {"Host": f"127.0.0.1:{port}", **(headers or {})}
        if method == "POST":
            fields["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        async with asyncio.timeout(WAIT_S):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            limit = 1024 if receive_buffer_bytes is not None else 1 << 20
            reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
            writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return cls(reader, writer, head)

    async def __aenter__(self) -> RawStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    async def text(self) -> str:
        """The body of a response that has a length."""
        async with asyncio.timeout(WAIT_S):
            return (await self.reader.readexactly(int(self.headers.get("content-length", 0)))).decode()

    async def line(self) -> str | None:
        """The next line that is not empty; None at the end of the body."""
        while True:
            line, found, rest = self._body.partition(b"\n")
            if not found:
                chunk = await self._chunk()
                if not chunk:
                    assert not line, f"the body ends in {line!r}"
                    return None
                self._body += chunk
                continue
            self._body = rest
            if line:
                return line.decode()

    async def _chunk(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = await self.reader.readexactly(size + 2)
        assert chunk.endswith(b"\r\n")
        return chunk[:-2]

    async def ended(self) -> None:
        """Wait until the other side's end of the TCP connection is gone too."""
        async with asyncio.timeout(WAIT_S):
            while await self.reader.read(65_536):
                pass


class StreamPeer:
    """A client of the protocol over `http_stream`, `sse`, or one of their one-way kin.

    Args:
        kind: which, as in its path.
        stream: its response.
        port: of a node that takes what it sends.
        prefix: of the hub's paths.
    """

    def __init__(self, kind: str, stream: RawStream, port: int, prefix: str = "") -> None:
        self.kind = kind
        self.stream = stream
        self.port = port
        self.prefix = prefix
        self.session = self.node = ""

    @classmethod
    async def open(
        cls,
        port: int,
        kind: str,
        connect: Any = None,
        *,
        prefix: str = "",
        headers: Mapping[str, str] | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> StreamPeer:
        """Open one, with these fields of the connect command."""
        request: Any = connect or {}
        command = json.dumps(request if kind.startswith("uni_") else {"id": 1, "connect": request})
        path = f"{prefix}/connection/{kind}"
        if kind.endswith("sse"):
            method, path, body = "GET", f"{path}?cf_connect={quote(command)}", b""
        else:
            method, body = "POST", command.encode()
        stream = await RawStream.send(
            port, method, path, headers, body, receive_buffer_bytes=receive_buffer_bytes
        )
        return cls(kind, stream, port, prefix)

    async def __aenter__(self) -> StreamPeer:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.stream.writer.transport.abort()

    async def line(self) -> str | None:
        """The next message as it came; None at the end."""
        line = await self.stream.line()
        if line is not None and self.kind.endswith("sse"):
            assert line.startswith("data: "), line
            return line.removeprefix("data: ")
        return line

    async def reply(self) -> Any:
        """The next message, parsed; pings are answered and passed over."""
        while (line := await self.line()) == "{}":
            await self.post("{}")
        return None if line is None else json.loads(line)

    async def connected(self) -> Any:
        """The connect result, which says where to send."""
        reply = await self.reply()
        assert "connect" in (reply or {}), reply
        self.session, self.node = reply["connect"]["session"], reply["connect"]["node"]
        return reply["connect"]

    async def post(self, *lines: str, port: int | None = None, **fields: Any) -> int:
        """Send lines in one request, to this node or another. Returns the status."""
        data = "\n".join(lines)
        body = json.dumps({"session": self.session, "node": self.node, "data": data, **fields})
        response = await RawStream.send(
            port or self.port,
            "POST",
            f"{self.prefix}/emulation",
            {"Connection": "close", "Content-Type": "application/json"},
            body.encode(),
        )
        async with response:
            return response.status

    async def ask(self, *lines: str, port: int | None = None) -> list[Any]:
        """Send lines in one request, and take as many replies."""
        assert await self.post(*lines, port=port) == 204
        return [await self.reply() for _ in lines]

    async def error(self, line: str) -> int:
        """Send a line, and take the code of the error that it is answered with; 0 for none."""
        [reply] = await self.ask(line)
        return int(reply.get("error", {}).get("code", 0))

    async def closed(self) -> tuple[int, str]:
        """Wait for the end: the code and reason of the disconnect push; 0 where none came."""
        last: Any = None
        while (reply := await self.reply()) is not None:
            last = reply
        push = (last or {}).get("push", last or {}).get("disconnect", {})
        if self.stream.headers.get("connection") == "close":
            await self.stream.ended()
        return push.get("code", 0), push.get("reason", "")
