"""What ends is freed at once: a connection, a request and a failure leave no reference cycle behind."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from support import sdk
from support.limits import WAIT_S
from support.rawstream import StreamPeer
from support.rawws import HandshakeError, RawWebSocket
from support.server import Running, running

from hub import Hub, RPCEvent
from hub.broker.redis import replies

PROJECTS = ("hub", "uvicorn", "starlette")


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave cycles where they are."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def cycles() -> Counter[str]:
    """Count what only a collection would have freed, by type: exceptions, and objects of the server."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    kinds = [type(each) for each in gc.garbage]
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if kind.__module__.partition(".")[0] in PROJECTS or issubclass(kind, BaseException)
    )


async def echo(request: Request) -> PlainTextResponse:
    try:
        return PlainTextResponse(await request.body())
    except ClientDisconnect:
        return PlainTextResponse("gone")


async def wait(request: Request) -> PlainTextResponse:
    assert (await request.receive())["type"] == "http.request"
    assert (await request.receive())["type"] == "http.disconnect"
    return PlainTextResponse("gone")


async def parts(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return StreamingResponse(body())


async def fail(request: Request) -> None:
    raise RuntimeError("fails on request")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        await websocket.send_text(await websocket.receive_text())


@asynccontextmanager
async def served() -> AsyncIterator[Running]:
    """A hub whose RPC handler fails, beside a few routes."""
    hub = Hub(sdk.settings())

    @hub.on_rpc
    async def rpc(event: RPCEvent) -> Any:
        raise RuntimeError("fails on request")

    routes = [
        *(Route("/echo", echo, methods=["GET", "POST"]), Route("/wait", wait), Route("/parts", parts)),
        *(Route("/fail", fail), WebSocketRoute("/talk", talk)),
    ]
    app = Starlette(routes=routes)
    hub.install(app, "")
    async with running(app) as server:
        yield server


async def until_over(server: Running) -> None:
    """Wait until the server holds no connection and runs no request. No event tells of it."""
    state = server.server.server_state
    async with asyncio.timeout(WAIT_S):
        while state.connections or state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)


def ask(path: str, *lines: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    fields = "".join(f"{line}\r\n" for line in ("Host: a", *lines))
    return f"{method} {path} HTTP/{version}\r\n{fields}\r\n".encode() + body


LAST = ask("/echo", "Connection: close")
POST = ask("/echo", "Content-Length: 2", method="POST", body=b"{}")
HANDSHAKE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
BYTES = {
    "a request": LAST,
    "a kept connection": ask("/echo") + POST + LAST,
    "many that wait": ask("/parts") * 20 + LAST,
    "HTTP/1.0": ask("/parts", version="1.0"),
    "HTTP/1.0 that is kept": ask("/echo", "Connection: keep-alive", version="1.0") + LAST,
    "a failure": ask("/fail") + LAST,
    "a refused head": ask("/echo", "Host: b"),
    "a refused head behind requests": ask("/echo") * 3 + ask("/echo", "Host: b"),
    "no HTTP": b"\x00\x01\r\n\r\n",
    "a malformed chunk": ask("/echo", "Transfer-Encoding: chunked", method="POST", body=b"zz\r\n\r\n"),
    "a request that the hub does not upgrade": ask("/echo", "Upgrade: h2c", "Connection: Upgrade") + LAST,
    "a handshake on no path": ask("/none", *HANDSHAKE),
    "a handshake from another page": ask("/connection/websocket", "Origin: https://a.example", *HANDSHAKE),
    "a handshake without a key": ask("/connection/websocket", *HANDSHAKE[:-1]),
    "a stream with a fault": ask("/connection/sse?cf_connect={}"),
}
CUT = {
    "a part of a head": ask("/echo")[:-4],
    "a part of a body": POST[:-1],
    "a request that waits": ask("/wait"),
    "requests behind a request that waits": ask("/wait") * 3,
    "HTTP/1.0 that waits": ask("/wait", version="1.0"),
    "a WebSocket of an app": ask("/talk", *HANDSHAKE),
    "a WebSocket of the hub": ask("/connection/websocket", *HANDSHAKE),
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES.keys())
async def test_a_connection_that_the_server_ends_leaves_no_cycle(data: bytes) -> None:
    async with served() as server:
        with no_collection():
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            async with asyncio.timeout(WAIT_S):
                await reader.read()
            writer.close()
            await until_over(server)
            assert not cycles()


@pytest.mark.parametrize("data", CUT.values(), ids=CUT.keys())
async def test_a_connection_that_the_peer_cuts_leaves_no_cycle(data: bytes) -> None:
    async with served() as server:
        with no_collection():
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            async with asyncio.timeout(WAIT_S):
                while not server.server.server_state.connections:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # so that the bytes come before the end; either order must hold
            writer.transport.abort()
            await until_over(server)
            assert not cycles()


async def test_a_client_of_the_hub_leaves_no_cycle() -> None:
    async with served() as server:
        with no_collection():
            async with await RawWebSocket.connect(server.port) as client:
                client.send_text(f'{{"id":1,"connect":{{"token":"{sdk.token("ann")}"}}}}')
                await client.read_text()
                client.send_text('{"id":2,"rpc":{}}\n{"id":3,"subscribe":{"channel":"plain:a"}}\n{"id":4}')
                await client.closed()
            async with await StreamPeer.open(server.port, "sse", {"token": sdk.token("ann")}) as peer:
                await peer.connected()
                assert await peer.post('{"id":2,"rpc":{}}') == 204
            await until_over(server)
            assert not cycles()


async def test_a_handshake_that_is_refused_leaves_no_cycle() -> None:
    async with served() as server:
        with no_collection():
            with pytest.raises(HandshakeError):
                await RawWebSocket.connect(server.port, "/none")
            await until_over(server)
            assert not cycles()


def test_an_entry_of_a_stream_that_is_not_readable_leaves_no_cycle() -> None:
    ignored: list[str] = []
    with no_collection():
        stream = replies.stream("a", [b"1", b"e", [[b"1-0", [b"d", b"x"]]]], ignored.append)
        assert not stream.publications
        assert len(ignored) == 1
        assert not cycles()
