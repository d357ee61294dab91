"""A WebSocket client that sends what a decent one would not."""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
from collections.abc import Mapping
from types import TracebackType

from support.limits import WAIT_S
from websockets.frames import Opcode

KEY = base64.b64encode(b"0123456789abcdef").decode()


class HandshakeError(Exception):
    """The server answered with something other than 101.

    Args:
        status: of its answer.
        head: the whole head.
        body: what came after it, until the end.
    """

    def __init__(self, status: int, head: str, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.head = head
        self.body = body


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, size: int | None = None
) -> bytes:
    """A masked frame.

    Args:
        size: the length that its header declares, where that is to be a lie.
    """
    size = len(payload) if size is None else size
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload  # a mask of zeros leaves the payload readable


def handshake(port: int, path: str, headers: Mapping[str, str]) -> bytes:
    """The head of an upgrade request."""
    fields = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


class RawWebSocket:
    """An open WebSocket. Every wait has an end: `TimeoutError` after ten seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head

    @classmethod
    async def connect(
        cls,
        port: int,
        path: str = "/connection/websocket",
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer_bytes: int | None = None,
    ) -> RawWebSocket:
        """Open one.

        Args:
            receive_buffer_bytes: the size of this side's kernel buffer, and so of what it takes unread.

        Raises:
            HandshakeError: the server would not.
        """
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        async with asyncio.timeout(WAIT_S):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            limit = 1024 if receive_buffer_bytes is not None else 1 << 20
            reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
            writer.write(handshake(port, path, headers or {}))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            if status != 101:
                body = await reader.read()
                writer.close()
                raise HandshakeError(status, head, body)
        return cls(reader, writer, head)

    async def __aenter__(self) -> RawWebSocket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    def send(self, *frames: bytes) -> None:
        """Send bytes as they are, and wait for nothing."""
        self.writer.write(b"".join(frames))

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self.send(frame(Opcode.TEXT, text.encode()))

    async def flood(self, data: bytes, times: int) -> None:
        """Send the same bytes over and over, for as long as the other side takes them and is there."""
        try:
            for _ in range(times):
                self.writer.write(data)
                async with asyncio.timeout(WAIT_S):
                    await self.writer.drain()
        except ConnectionError:
            pass

    async def read_frame(self) -> tuple[int, bytes] | None:
        """The next frame's opcode and payload; None where the other side has ended."""
        try:
            async with asyncio.timeout(WAIT_S):
                first, second = await self.reader.readexactly(2)
                size = second & 0x7F
                if size == 126:
                    size = int.from_bytes(await self.reader.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await self.reader.readexactly(8), "big")
                return first & 0x0F, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def read_text(self) -> str:
        """The next text message, whatever else comes before it.

        Raises:
            ConnectionError: the other side ended instead.
        """
        while (received := await self.read_frame()) is not None:
            if received[0] == Opcode.TEXT:
                return received[1].decode()
        raise ConnectionError("the server closed the socket")

    async def closed(self) -> tuple[int, str]:
        """Wait for the end, whatever else comes before it.

        Returns:
            The close frame's code and reason; 1006 where none came.
        """
        while (received := await self.read_frame()) is not None:
            opcode, payload = received
            if opcode == Opcode.CLOSE:
                return int.from_bytes(payload[:2], "big") or 1005, payload[2:].decode()
        return 1006, ""

    async def ended(self) -> None:
        """Wait until the other side's end of the TCP connection is gone too."""
        while await self.read_frame() is not None:
            pass
