"""Rows of a table of HTTP: bytes in and bytes out, and how to write them down."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from support.limits import WAIT_S
from support.rawws import frame

from hub.protocol.frames import Opcode


class Then(Enum):
    """What becomes of the connection, and the probe that shows it."""

    CLOSED = b"GET /livez HTTP/1.1\r\nHost: hub\r\n\r\n"
    KEPT = b"GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"
    WEBSOCKET = frame(Opcode.CLOSE, b"\x03\xe8")


ALIVE = b'HTTP/1.1 200 OK\r\ncontent-length: 18\r\ncontent-type: application/json\r\n\r\n{"status":"alive"}'
ALIVE_CLOSE = ALIVE.replace(b"json\r\n", b"json\r\nconnection: close\r\n")

ENDS = {Then.CLOSED: b"", Then.KEPT: ALIVE_CLOSE, Then.WEBSOCKET: b"\x88\x02\x03\xe8"}

UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        what: the first column.
        answer: the second column.
        sent: what the client sends.
        received: what the server answers, without its Date.
        then: what becomes of the connection.
        whole: whether the row is about bytes that come in one segment.
    """

    what: str
    answer: str
    sent: bytes
    received: bytes
    then: Then = Then.CLOSED
    whole: bool = False


def get(*lines: str, line: str = "GET /livez HTTP/1.1", host: str = "Host: hub", body: str = "") -> bytes:
    """A request, `GET /livez` as a rule."""
    head = "\r\n".join((line, *([host] if host else []), *lines, "", ""))
    return (head + body).encode("latin-1")


def post(*lines: str, body: str = "{}", path: str = "/emulation", version: str = "1.1") -> bytes:
    """A request with a body."""
    return get(*lines, line=f"POST {path} HTTP/{version}", body=body)


def chunked(body: str) -> bytes:
    """A request with a body in chunks."""
    return post("Transfer-Encoding: chunked", body=body)


KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"


def shake(
    *lines: str,
    upgrade: tuple[str, ...] = ("Connection: Upgrade", "Upgrade: websocket"),
    key: str = KEY,
    version: str = VERSION,
    line: str = "GET /connection/websocket HTTP/1.1",
) -> bytes:
    """A WebSocket handshake."""
    return get(*upgrade, *[each for each in (key, version) if each], *lines, line=line)


PHRASES = {414: "URI Too Long", 417: "Expectation Failed"}
"""Those that Python 3.11 has otherwise than RFC 9110."""


def refused(status: int, text: str, *headers: str) -> bytes:
    """A refusal by the server itself."""
    lines = (
        f"HTTP/1.1 {status} {PHRASES.get(status) or HTTPStatus(status).phrase}",
        *headers,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(text) + 1}",
        "Connection: close",
    )
    return ("\r\n".join((*lines, "", text)) + "\n").encode()


def unreadable(reason: str, status: int = 400) -> bytes:
    """A refusal of what is no HTTP/1.1 request."""
    return refused(status, f"this is not an HTTP/1.1 request: {reason}")


def answered(
    status: int,
    body: str,
    *before: str,
    behind: tuple[str, ...] = (),
    media_type: str = "text/plain; charset=utf-8",
) -> bytes:
    """An answer of the app."""
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *before,
        f"content-length: {len(body)}",
        *([f"content-type: {media_type}"] if media_type else []),
        *behind,
    )
    return "\r\n".join((*lines, "", body)).encode()


NOT_FOUND = answered(404, "Not Found")
NO_NODE = answered(400, "not an emulation request: Object missing required field `node`\n")
NOT_JSON = answered(400, "not an emulation request: JSON is malformed: invalid character (byte 0)\n")
NOT_ALLOWED = answered(405, "Method Not Allowed", "allow: GET, HEAD")
ENDPOINT = "this is a WebSocket endpoint: connect with ws:// or wss://\n"
READABLE = ("access-control-allow-origin: *", "access-control-expose-headers: Retry-After")
"""A page may read the answer, to learn why its handshake failed."""
ASK_UPGRADE = answered(426, ENDPOINT, "upgrade: websocket", "connection: Upgrade", behind=READABLE)
LOST_UPGRADE = answered(
    426,
    "this WebSocket handshake lost its headers on the way: have the proxy pass Upgrade and Connection on,"
    " over HTTP/1.1\n",
    "upgrade: websocket",
    "connection: Upgrade",
    behind=READABLE,
)
NO_TARGET = refused(400, "the request target cannot be read")
NO_HOST = refused(400, "Host must be there once, and be a name and a port")
TOO_LARGE = refused(431, "a head has at most 65536 bytes and 256 lines")
OLD_KEY = refused(400, "Sec-WebSocket-Key must be there once, and be 16 bytes in base64")
OLD_VERSION = refused(
    426,
    "this server speaks version 13 of the WebSocket protocol",
    *("Upgrade: websocket", "Connection: Upgrade", VERSION),
)
UNAUTHORIZED = '{"id":1,"error":{"code":101,"message":"unauthorized"}}'
STALE = '{"push":{"disconnect":{"code":3502,"reason":"stale"}}}'
CONNECT = '{"id":1,"connect":{}}'
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ncache-control: no-store, no-transform\r\n"
    b"x-accel-buffering: no\r\nx-content-type-options: nosniff\r\nconnection: close\r\n"
)


def text_frame(text: str) -> bytes:
    """A short text frame of the server."""
    return bytes((0x80 | Opcode.TEXT, len(text))) + text.encode()


def chunk(text: str) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text.encode())


@dataclass(frozen=True)
class Drip:
    """A row about a request that comes too slowly.

    Args:
        what, answer: as of `Row`.
        begin: what comes at once.
        piece: what comes again and again; empty for nothing.
        received: what the server answers before it ends the connection.
    """

    what: str
    answer: str
    begin: bytes
    piece: bytes
    received: bytes


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces, and return all that comes until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = asyncio.create_task(read_all(reader))
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_S):
            return await received
    finally:
        received.cancel()
        writer.transport.abort()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """All that the server sends, without dates."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            answer += data
    # Starlette keeps the methods of a route in a set.
    answer = answer.replace(b"allow: HEAD, GET", b"allow: GET, HEAD")
    return re.sub(rb"(?i)\r\ndate: [^\r]*", b"", answer)
