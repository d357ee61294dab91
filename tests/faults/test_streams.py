"""Streams at their edge: readers that are slow or dead, what the server keeps of them, and what is logged."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import weakref
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from msgspec import Raw
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected, until_gone
from support.rawstream import RawStream, StreamPeer
from support.server import Process, running, under_uvicorn

from hub import Hub
from hub.app import create_app
from hub.server.stream import ClientStream, StreamingHTTPProtocol

CANARY = "canary-8d1e0b47aa"
TEXT = Raw(json.dumps("x" * 1000).encode())
LARGE = Raw(json.dumps("x" * 50_000).encode())


def of(server: Any) -> Hub:
    hub: Hub = server.app.state.hub
    return hub


def stall(peer: StreamPeer) -> None:
    """Read no more."""
    peer.stream.writer.transport.pause_reading()  # type: ignore[attr-defined]


async def publish_until(hub: Hub, channel: str, done: Any, data: Raw = TEXT) -> int:
    """Publish until a condition holds. Returns the number of publications."""
    count = 0
    async with asyncio.timeout(WAIT_S):
        while not done():
            await hub.publish(channel, data)
            count += 1
            await asyncio.sleep(0)
    return count


@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_a_slow_reader_is_ended_and_costs_the_others_nothing(kind: str) -> None:
    async with running(sdk.settings({"outbox_bytes_max": 65_536})) as server:
        hub = of(server)
        closed = hub.metrics.disconnects.labels(3008)._value
        connect = {"token": sdk.token("ann", channels=["plain:a"])}
        async with (
            await StreamPeer.open(server.port, kind, connect, receive_buffer_bytes=4096) as slow,
            connected(server.port, **connect) as good,
        ):
            await slow.connected()
            stall(slow)
            sent = await publish_until(hub, "plain:a", closed.get)
            for _ in range(sent):
                assert "pub" in (await good.reply())["push"]
        await until_gone(hub.node)
        assert hub.node.outboxes.size == 0


async def test_the_dead_are_found_by_the_heartbeat() -> None:
    # The first ping comes late enough for the socket of the client to be full before.
    async with running(sdk.settings({"ping_interval_s": 4.0, "pong_timeout_s": 0.5})) as server:
        hub = of(server)
        connect = {"token": sdk.token("ann", channels=["plain:a"])}
        async with await StreamPeer.open(server.port, "sse", connect, receive_buffer_bytes=4096) as dead:
            await dead.connected()
            stall(dead)
            [connection] = hub.node.connections
            await publish_until(hub, "plain:a", lambda: connection.is_backlogged, LARGE)
            await until_gone(hub.node)  # its last words cannot be written: it is cut off
            assert hub.metrics.disconnects.labels(3012)._value.get() == 1


async def test_a_dead_listener_is_found_by_the_kernel() -> None:
    env = {
        "HUB_CLIENT__PING_INTERVAL_S": "1",
        "HUB_CLIENT__PONG_TIMEOUT_S": "0.5",
        "HUB_CLIENT__USER_PERSONAL_CHANNEL": "{user}",
        "HUB_CLIENT__TOKEN__HMAC_SECRET": sdk.SECRET,
        "HUB_API__KEY": sdk.API_KEY,
        "HUB_CHANNELS__DEFAULT__SLOW_READER": "drop_oldest",
    }
    async with Process(env=env) as hub, httpx.AsyncClient(timeout=WAIT_S) as client:

        async def clients() -> str:
            metrics = (await client.get(f"{hub.url}/metrics")).text
            return next(line for line in metrics.splitlines() if line.startswith("hub_clients "))

        connect = {"token": sdk.token("ann")}
        async with await StreamPeer.open(hub.port, "uni_sse", connect, receive_buffer_bytes=4096) as dead:
            await dead.reply()
            stall(dead)
            commands = [{"publish": {"channel": "ann", "data": "x" * 60_000}}] * 100
            headers = {"X-API-Key": sdk.API_KEY}
            await client.post(f"{hub.url}/api/batch", headers=headers, json={"commands": commands})
            assert await clients() == "hub_clients 1.0"
            async with asyncio.timeout(WAIT_S):
                while await clients() != "hub_clients 0.0":  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.1)


async def test_a_dead_listener_is_found_under_plain_uvicorn() -> None:
    roomy = {"ping_interval_s": 4.0, "pong_timeout_s": 0.5, "outbox_bytes_max": 100_000_000}
    app = create_app(sdk.settings(roomy))
    hub: Hub = app.state.hub
    async with under_uvicorn(app) as port:
        connect = {"token": sdk.token("ann", channels=["plain:a"])}
        async with await StreamPeer.open(port, "uni_sse", connect, receive_buffer_bytes=4096) as dead:
            await dead.reply()
            stall(dead)
            [connection] = hub.node.connections
            async with asyncio.timeout(WAIT_S):
                while not connection.waiting_bytes:
                    await publish_until(hub, "plain:a", lambda: connection.is_backlogged, LARGE)
                    await hub.publish("plain:a", TEXT)
                    await asyncio.sleep(0)
            await until_gone(hub.node)
            assert hub.metrics.disconnects.labels(3000)._value.get() == 1


async def test_nothing_of_the_request_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[weakref.ref[asyncio.Protocol]] = []
    made = StreamingHTTPProtocol.connection_made

    def remember(self: Any, transport: Any) -> None:
        requests.append(weakref.ref(self))
        made(self, transport)

    monkeypatch.setattr(StreamingHTTPProtocol, "connection_made", remember)
    async with running(sdk.settings()) as server:
        gc.collect()
        gc.disable()  # a cycle would live on until it is found
        try:
            async with await StreamPeer.open(server.port, "sse", {"token": sdk.token("ann")}) as peer:
                await peer.connected()
                assert await peer.post("{}", session="none") == 404
                assert isinstance(next(iter(of(server).node.connections)).transport, ClientStream)
                assert len(requests) == 2
                async with asyncio.timeout(WAIT_S):
                    # The connection of the POST ends in stages. No event tells of it.
                    while any(request() for request in requests):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_a_stream_behind_another_request_goes_straight_to_the_socket() -> None:
    async with running(sdk.settings()) as server:
        command = quote(json.dumps({"id": 1, "connect": {"token": sdk.token("ann")}}))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for path in ("/livez", f"/connection/sse?cf_connect={command}"):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b'"client":')
        assert isinstance(next(iter(of(server).node.connections)).transport, ClientStream)
        writer.transport.abort()


async def test_what_a_middleware_holds_back_comes_all_the_same() -> None:
    hub = Hub(sdk.settings())
    app = Starlette(middleware=[Middleware(GZipMiddleware, minimum_size=1)])
    hub.install(app, "/live")
    async with running(app) as server:
        for headers in ({}, {"Accept-Encoding": "gzip"}):
            async with await StreamPeer.open(
                server.port, "sse", {"token": sdk.token("ann")}, prefix="/live", headers=headers
            ) as peer:
                await peer.connected()
                [reply] = await peer.ask(command(2, "ping"))
                assert reply["id"] == 2
        await until_gone(hub.node)


async def test_streams_count_as_connections() -> None:
    settings = sdk.settings(server={"accepts_per_s": 0.001})
    async with running(settings) as server:
        statuses = []
        peers = [await StreamPeer.open(server.port, "sse", {"token": sdk.token("ann")}) for _ in range(3)]
        statuses = [peer.stream.status for peer in peers]
        assert statuses[0] == 200
        assert 503 in statuses
        for peer in peers:
            await peer.__aexit__()
        await until_gone(of(server).node)


async def test_no_log_holds_a_token_or_a_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = sdk.token("ann", jti=CANARY)
    async with running(sdk.settings()) as server:
        async with await StreamPeer.open(server.port, "sse", {"token": token, "data": CANARY}) as peer:
            session = (await peer.connected())["session"]
            await peer.ask(command(2, "ping"))
            assert await peer.post("nonsense") == 204
            assert await peer.closed() == (3501, "bad request")
        async with await StreamPeer.open(server.port, "uni_sse", {"token": f"{token}x"}) as peer:
            await peer.closed()
        for query in (f"cf_connect={CANARY}", f"token={CANARY}", f"x={token}"):
            async with await RawStream.send(server.port, "GET", f"/connection/sse?{query}") as answer:
                assert answer.status in (200, 400)
        await until_gone(of(server).node)
    log = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert "client.token_in_url" in log
    for secret in (CANARY, token, session):
        assert secret not in log
