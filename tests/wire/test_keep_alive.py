"""HTTP connections that are kept: how long, in what order their requests are answered, and when they end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support import sdk
from support.http_rows import (
    ALIVE,
    KEY,
    UPGRADED,
    VERSION,
    exchange,
    get,
    read_all,
    refused,
    shake,
    unreadable,
)
from support.limits import WAIT_S
from support.rawws import frame
from support.server import running

from hub.config import load
from hub.protocol.frames import Opcode
from hub.server.http import HubHTTPProtocol
from hub.server.server import make_config
from hub.settings import Settings

KEEP_ALIVE_S = 0.3


def settings(**server: Any) -> Settings:
    """Of a hub that keeps connections for a moment."""
    return sdk.settings(server={"lag_max_s": 0, "keep_alive_s": KEEP_ALIVE_S, **server})


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def alive(reader: asyncio.StreamReader) -> None:
    """Read an answer of `/livez`."""
    async with asyncio.timeout(WAIT_S):
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(18) == b'{"status":"alive"}'


async def an_idle_connection_ends(port: int) -> None:
    """Wait until the server closes a connection that is idle from now on."""
    assert await exchange(port, get()) == ALIVE


def test_connections_are_kept_longer_than_balancers_keep_theirs() -> None:
    config = make_config(Starlette(), load(env={}))
    assert config.timeout_keep_alive == 75
    assert config.timeout_keep_alive > 60, "the time of nginx and of AWS load balancers"


async def test_the_setting_is_how_long_an_idle_connection_is_kept() -> None:
    async with running(settings(keep_alive_s=1000.0)) as server, raw(server.port) as (reader, writer):
        writer.write(get())
        await alive(reader)
        [protocol] = list(server.server.server_state.connections)
        assert isinstance(protocol, HubHTTPProtocol)
        timer = protocol.timeout_keep_alive_task
        assert timer is not None
        assert 900.0 < timer.when() - asyncio.get_running_loop().time() <= 1000.0


async def test_a_websocket_behind_a_request_outlives_the_time_of_idle_connections() -> None:
    async with running(settings()) as server, raw(server.port) as (reader, writer):
        writer.write(get() + shake())
        await alive(reader)
        assert await asyncio.wait_for(reader.readexactly(len(UPGRADED)), WAIT_S) == UPGRADED
        await an_idle_connection_ends(server.port)
        writer.write(frame(Opcode.PING, b"x"))
        assert await asyncio.wait_for(reader.readexactly(3), WAIT_S) == b"\x8a\x01x"


async def test_a_request_of_which_a_part_came_outlives_it_too() -> None:
    async with running(settings(handshake_timeout_s=60.0)) as server, raw(server.port) as (reader, writer):
        head = get()
        writer.write(head + head[:20])
        await alive(reader)
        await an_idle_connection_ends(server.port)
        writer.write(head[20:])
        await alive(reader)


async def test_a_handshake_that_waits_for_its_turn_outlives_it_too() -> None:
    async with running(settings()) as server, raw(server.port) as (reader, writer):
        queue = server.app.state.hub.node.admission.turns.handshakes
        waiting: list[Any] = []
        queue.admit = lambda: False
        queue.wait = lambda go, now: waiting.append(go)
        writer.write(get() + shake() + frame(Opcode.PING, b"x"))
        await alive(reader)
        await an_idle_connection_ends(server.port)
        [go] = waiting
        go()
        answer = await asyncio.wait_for(reader.readexactly(len(UPGRADED) + 3), WAIT_S)
        assert answer == UPGRADED + b"\x8a\x01x"


# Order


class Held:
    """An app whose answer waits until it is released."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.released = asyncio.Event()
        self.sizes: list[int] = []

    @property
    def app(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def nothing(app: Any) -> AsyncIterator[None]:
            yield

        return Starlette(routes=[Route("/", self.answer, methods=["GET", "POST"])], lifespan=nothing)

    async def answer(self, request: Request) -> PlainTextResponse:
        self.sizes.append(len(await request.body()))
        self.began.set()
        await self.released.wait()
        return PlainTextResponse("done")


DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-type: text/plain; charset=utf-8\r\n\r\ndone"
FIRST = get(line="GET / HTTP/1.1")


async def behind_a_slow_answer(sent: bytes, **server: Any) -> bytes:
    """Send a request, and more bytes while its answer is awaited. Returns all that comes."""
    held = Held()
    limits = load(env={}, overrides={"server": server}) if server else load(env={})
    async with running(held.app, limits) as serving, raw(serving.port) as (reader, writer):
        received = asyncio.create_task(read_all(reader))
        writer.write(FIRST)
        await asyncio.wait_for(held.began.wait(), WAIT_S)
        writer.write(sent)
        # A second connection that is served shows that the server has read what came on the first.
        await exchange(serving.port, b"garbage\r\n\r\n")
        held.released.set()
        return await asyncio.wait_for(received, WAIT_S)


async def test_a_refusal_waits_for_the_answer_before_it() -> None:
    assert await behind_a_slow_answer(get(host="")) == DONE + refused(400, "Host is missing")


async def test_a_refused_handshake_waits_for_the_answer_before_it() -> None:
    answer = await behind_a_slow_answer(shake(key="", line="GET / HTTP/1.1"))
    assert answer.startswith(DONE + b"HTTP/1.1 400 ")


async def test_a_broken_body_is_refused_after_the_answer_before_it() -> None:
    broken = get("Transfer-Encoding: chunked", line="POST / HTTP/1.1", body="2\r\n{}\r\nzz\r\n")
    answer = await behind_a_slow_answer(broken + FIRST)
    assert answer == DONE + unreadable("Invalid character in chunk size")


async def test_frames_behind_a_handshake_that_waits_are_bounded() -> None:
    head = get("Connection: Upgrade", "Upgrade: websocket", KEY, VERSION, line="GET / HTTP/1.1")
    held = Held()
    async with running(held.app) as server, raw(server.port) as (_, writer):
        writer.write(FIRST + head)
        await asyncio.wait_for(held.began.wait(), WAIT_S)
        writer.write(b"x" * 10_000_000)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(writer.drain(), 1.0)
        [protocol] = list(server.server.server_state.connections)
        assert isinstance(protocol, HubHTTPProtocol)
        assert len(protocol._early) < 1_000_000
        held.released.set()


async def test_two_bodies_come_to_the_app_whole_whatever_upgrade_they_ask_for() -> None:
    held = Held()
    held.released.set()
    upgrade = ("Connection: Upgrade", "Upgrade: h2c")
    plain = get("Content-Length: 3", *upgrade, line="POST / HTTP/1.1", body="abc")
    pieces = get("Transfer-Encoding: chunked", *upgrade, line="POST / HTTP/1.1", body="2\r\nab\r\n0\r\n\r\n")
    last = get("Content-Length: 1", "Connection: close", line="POST / HTTP/1.1", body="a")
    async with running(held.app) as server:
        answer = await exchange(server.port, plain + pieces + plain + last)
    assert answer.count(DONE[:15]) == 4
    assert held.sizes == [3, 2, 3, 1]


# The drain


async def test_a_draining_node_keeps_no_connection() -> None:
    async with running(sdk.settings()) as server, raw(server.port) as (reader, writer):
        writer.write(get())
        await alive(reader)
        await server.app.state.hub.drain(0.0)
        writer.write(get())
        answer = await asyncio.wait_for(read_all(reader), WAIT_S)
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b'{"status":"alive"}')
