"""HTTP requests that never end, over raw sockets: what frames a body, and the body itself, are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support import sdk
from support.edge import AttachingApp
from support.limits import WAIT_S
from support.server import Process, running

from hub.server import http

PIECE = b"x" * 65_536
FLOOD_BYTES_MAX = 64_000_000
GROWTH_BYTES_MAX = 16_000_000
CHUNKED = "Transfer-Encoding: chunked\r\n"


def head(request: str, *headers: str) -> bytes:
    """The head of a request, such as `POST /livez`."""
    lines = "".join(headers)
    return f"{request} HTTP/1.1\r\nHost: hub\r\n{lines}\r\n".encode()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that the server sends until it ends the connection, by a close or a reset."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            answer += data
    return answer


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


# Floods


REQUESTS = [
    "POST /livez",
    "POST /emulation",
    "POST /api/publish",
    "POST /connection/http_stream",
    "POST /nowhere",
    "GET /livez",
    "GET /connection/sse",
    "PUT /readyz",
]


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b"0\r\nx-trailer: ", PIECE),
        (b"0\r\n", b"a: b\r\n" * 10_000),
        (b"1;extension=", PIECE),
        (b"", b"0" * 65_536),
    ],
    ids=["one trailer", "many trailers", "chunk extension", "chunk size"],
)
async def test_the_framing_of_a_body_is_bounded(before: bytes, piece: bytes) -> None:
    async with Process("--dev") as hub:
        process = psutil.Process(hub.pid)
        resident = process.memory_info().rss
        await asyncio.gather(*(_flood(hub.port, head(line, CHUNKED) + before, piece) for line in REQUESTS))
        assert process.memory_info().rss - resident < GROWTH_BYTES_MAX


async def _flood(port: int, before: bytes, piece: bytes) -> None:
    """Send a beginning and then a piece over and over, until the server ends the connection.

    Raises:
        TimeoutError: the server took all, and the connection is still there.
    """
    async with raw(port) as (reader, writer):
        writer.write(before)
        end = asyncio.create_task(ended(reader))
        sent = 0
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError):
                while not end.done() and sent < FLOOD_BYTES_MAX:
                    writer.write(piece)
                    await writer.drain()
                    sent += len(piece)
            await asyncio.wait_for(end, WAIT_S)


async def test_a_trailer_does_not_become_a_header() -> None:
    async def names(request: Request) -> PlainTextResponse:
        await request.body()
        return PlainTextResponse(" ".join(name.decode() for name, _ in request.scope["headers"]))

    app = Starlette(routes=[Route("/", names, methods=["POST"])], lifespan=nothing)
    async with running(app) as server, raw(server.port) as (reader, writer):
        writer.write(head("POST /", CHUNKED, "Connection: close\r\n") + b"1\r\nx\r\n")
        await asyncio.sleep(0.1)  # so that the app has begun
        writer.write(b"0\r\nX-API-Key: stolen\r\n\r\n")
        answer = await asyncio.wait_for(ended(reader), WAIT_S)
    assert answer.endswith(b"host transfer-encoding connection")


@contextlib.asynccontextmanager
async def nothing(app: Any) -> AsyncIterator[None]:
    yield


async def test_requests_that_wait_for_an_earlier_response_are_bounded() -> None:
    release = asyncio.Event()
    began = 0

    async def slow(request: Request) -> PlainTextResponse:
        nonlocal began
        began += 1
        await release.wait()
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/", slow)], lifespan=nothing)
    async with running(app) as server, raw(server.port) as (reader, writer):
        writer.write(head("GET /") * 1000)
        release.set()
        answer = await asyncio.wait_for(ended(reader), WAIT_S)
    assert began == answer.count(b"HTTP/1.1 200 ") == 1 + http.REQUESTS_WAITING_MAX
    assert answer.endswith(b"too many requests wait for an earlier response\n")


async def test_a_few_requests_at_once_are_answered_in_order() -> None:
    async with running(sdk.settings()) as server, raw(server.port) as (reader, writer):
        writer.write(head("GET /livez") * 8)
        for _ in range(8):
            assert b"200" in await reader.readline()
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(b'{"status":"alive"}'))


# Bodies that never come


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("POST /api/publish", 401),
        ("POST /nowhere", 404),
        ("POST /livez", 405),
        ("POST /emulation", 408),
        ("POST /connection/http_stream", 408),
        ("GET /livez", 200),
    ],
)
async def test_a_body_that_drips_holds_no_socket(request_line: str, status: int) -> None:
    quick = sdk.settings({"connect_timeout_s": 1.0})
    async with running(quick) as server:
        answers = await asyncio.gather(*(_drip(server.port, request_line) for _ in range(40)))
    assert {answer.split(b" ", 2)[1] for answer in answers} == {str(status).encode()}


async def _drip(port: int, request_line: str) -> bytes:
    """Declare a huge body, send a byte of it now and then, and return what came until the end."""
    async with raw(port) as (reader, writer):
        writer.write(head(request_line, "Content-Length: 1000000000\r\n"))
        end = asyncio.create_task(ended(reader))
        async with asyncio.timeout(WAIT_S):
            while not end.done():
                writer.write(b"x")
                await asyncio.wait({end}, timeout=0.2)
        return await end


async def test_an_answer_to_a_large_body_is_not_lost_to_a_reset() -> None:
    async with running(sdk.settings()) as server:
        for _ in range(20):
            async with raw(server.port) as (reader, writer):
                body = b"x" * 3_000_000
                length = f"Content-Length: {len(body)}\r\n"
                writer.write(head("POST /api/publish", length, "Connection: close\r\n") + body)
                await asyncio.wait_for(writer.drain(), WAIT_S)
                answer = await asyncio.wait_for(reader.read(), WAIT_S)
                assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_connection_is_kept_where_the_body_comes_after_the_answer() -> None:
    async with running(sdk.settings()) as server, raw(server.port) as (reader, writer):
        for _ in range(3):
            writer.write(head("POST /api/publish", "Content-Length: 5\r\n"))
            assert b" 401 " in await asyncio.wait_for(reader.readline(), WAIT_S)
            fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(fields.partition("content-length: ")[2].partition("\r\n")[0])
            await reader.readexactly(length)
            writer.write(b"hello")
        await asyncio.sleep(http.LINGER_S + 0.5)  # what would have closed the connection is over
        writer.write(head("GET /livez"))
        assert b" 200 " in await asyncio.wait_for(reader.readline(), WAIT_S)


async def test_a_client_that_waits_for_100_is_told_that_the_connection_ends() -> None:
    async with running(sdk.settings()) as server, raw(server.port) as (reader, writer):
        writer.write(head("POST /api/publish", "Content-Length: 5000\r\n", "Expect: 100-continue\r\n"))
        answer = await asyncio.wait_for(ended(reader), WAIT_S)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer.lower()


async def test_a_malformed_body_is_no_failure_of_the_app_that_asked_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raised: list[Exception] = []
    seen = asyncio.Event()

    async def read(request: Request) -> PlainTextResponse:
        try:
            await request.body()
        except Exception as error:
            raised.append(error)
        finally:
            seen.set()
        return PlainTextResponse("read")

    app = Starlette(routes=[Route("/", read, methods=["POST"])], lifespan=nothing)
    async with running(app) as server, raw(server.port) as (reader, writer):
        writer.write(head("POST /", CHUNKED, "Expect: 100-continue\r\n") + b"no chunk\r\n")
        assert (await asyncio.wait_for(ended(reader), WAIT_S)).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(seen.wait(), WAIT_S)
    assert [type(error) for error in raised] == [ClientDisconnect]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


class Waiting:
    """An app whose first request waits for its client's end before it answers."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.received = asyncio.Event()
        self.answered = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        message = await receive()
        while message["type"] != "http.disconnect":
            self.received.set()
            message = await receive()
        await PlainTextResponse("too late")(scope, receive, send)
        self.answered.set()


@pytest.mark.parametrize("is_malformed", [True, False], ids=["with malformed bytes", "without"])
async def test_a_request_with_another_one_behind_it_is_told_of_the_end(
    is_malformed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Waiting()
    app = Starlette(routes=[Route("/{name}", waiting)], lifespan=nothing)
    async with running(app) as server, raw(server.port) as (_, writer):
        writer.write(head("GET /first") + head("GET /second") + b"no HTTP\r\n\r\n" * is_malformed)
        # The 400 for what is malformed has to wait for the answers before it.
        await asyncio.wait_for(waiting.received.wait(), WAIT_S)
        writer.transport.abort()
        await asyncio.wait_for(waiting.answered.wait(), WAIT_S)
    assert waiting.paths == ["/first"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


class Reading:
    """An app that reads the whole body, with no limit of its own, and a pause before each part."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.sizes: list[int] = []
        self._pause_s = pause_s

    async def read(self, request: Request) -> PlainTextResponse:
        size = 0
        async for part in request.stream():
            size += len(part)
            await asyncio.sleep(self._pause_s)
        self.sizes.append(size)
        return PlainTextResponse("read")

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.read, methods=["POST"])], lifespan=nothing)


async def test_an_app_without_a_time_limit_gets_one_for_bodies_that_drip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "BODY_PERIOD_S", 0.5, raising=False)
    reading = Reading()
    async with running(reading.app) as server:
        assert (await _drip(server.port, "POST /")).startswith(b"HTTP/1.1 408 ")
    assert reading.sizes == []


async def test_a_steady_body_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_PERIOD_S", 0.5, raising=False)
    reading = Reading()
    async with running(reading.app) as server, raw(server.port) as (reader, writer):
        writer.write(head("POST /", "Content-Length: 200000\r\n"))
        for _ in range(20):
            writer.write(b"x" * 10_000)
            await asyncio.sleep(0.1)
        assert b" 200 " in await asyncio.wait_for(reader.readline(), WAIT_S)
    assert reading.sizes == [200_000]


async def test_an_app_that_reads_slowly_costs_its_client_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_PERIOD_S", 0.3, raising=False)
    reading = Reading(pause_s=1.0)
    async with running(reading.app) as server, raw(server.port) as (reader, writer):
        writer.write(head("POST /", "Content-Length: 500000\r\n") + b"x" * 500_000)
        assert b" 200 " in await asyncio.wait_for(reader.readline(), WAIT_S)
    assert reading.sizes == [500_000]


async def test_blank_lines_keep_no_connection_open() -> None:
    quick = sdk.settings(server={"lag_max_s": 0, "handshake_timeout_s": 0.5})
    async with running(quick) as server, raw(server.port) as (reader, writer):
        writer.write(head("GET /livez"))
        end = asyncio.create_task(ended(reader))
        async with asyncio.timeout(WAIT_S):
            while not end.done():
                writer.write(b"\r\n")
                await asyncio.wait({end}, timeout=0.1)
        assert (await end).startswith(b"HTTP/1.1 200 ")


async def test_a_stream_behind_a_body_that_never_comes_lives_on() -> None:
    async with running(sdk.settings()) as server, raw(server.port) as (reader, writer):
        connect = json.dumps({"id": 1, "connect": {"token": sdk.token("ann")}})
        path = "/connection/sse?cf_connect=" + connect.replace('"', "%22").replace(" ", "%20")
        writer.write(head(f"GET {path}", CHUNKED))
        assert b" 200 " in await asyncio.wait_for(reader.readline(), WAIT_S)
        await asyncio.wait_for(reader.readuntil(b'"connect"'), WAIT_S)
        writer.write(b"1\r\nx\r\n" * 100)
        await asyncio.sleep(http.LINGER_S + 1.0)  # what would have cut the socket off is over
        [connection] = server.app.state.hub.node.connections
        assert connection.session is not None


async def test_garbage_is_logged_once_and_not_for_each_peer(caplog: pytest.LogCaptureFixture) -> None:
    async with running(AttachingApp()) as server:
        for _ in range(20):
            async with raw(server.port) as (reader, writer):
                writer.write(b"\x16\x03\x01 no HTTP\r\n\r\n")
                assert (await asyncio.wait_for(ended(reader), WAIT_S)).startswith(b"HTTP/1.1 400 ")
    lines = [record for record in caplog.records if record.name == "hub.server.peers"]
    assert len(lines) <= 1
