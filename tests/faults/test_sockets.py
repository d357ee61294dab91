"""Exceptions that receivers and apps raise into a socket: each ends its own connection, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.applications import Starlette
from support import sdk
from support.edge import AttachingApp, Recorder, lifespan
from support.limits import WAIT_S
from support.peer import command, connected, until_gone
from support.rawstream import StreamPeer
from support.rawws import RawWebSocket, frame, handshake
from support.server import running, under_uvicorn
from websockets.frames import Opcode

from hub import Hub
from hub.node.connection import Connection
from hub.protocol import frames


def boom(*arguments: Any) -> None:
    """Raise what nobody expects."""
    raise RuntimeError("boom")


def failures(caplog: pytest.LogCaptureFixture) -> int:
    """How many failures were logged."""
    return caplog.text.count("boundary.failed")


async def test_a_receiver_that_raises_ends_its_own_socket(caplog: pytest.LogCaptureFixture) -> None:
    app = AttachingApp()
    async with (
        running(app) as server,
        await RawWebSocket.connect(server.port, "/") as bad,
    ):
        faulty = await app.accepted()
        async with await RawWebSocket.connect(server.port, "/") as good:
            recorder = await app.accepted()
            faulty.answer = boom
            bad.send_text("x")
            assert await bad.closed() == (3004, "internal server error")
            await faulty.wait_closed()
            good.send_text("y")
            assert await recorder.received(1) == [b"y"]
        assert failures(caplog) == 1
        assert (faulty.closing_times, faulty.closed_times) == (1, 1)


@pytest.mark.parametrize("name", ["on_closing", "on_closed", "on_left"])
async def test_a_receiver_that_raises_at_the_end_is_told_of_it_all_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = AttachingApp()
    async with running(app) as server, await RawWebSocket.connect(server.port, "/") as client:
        recorder = await app.accepted()
        whole = getattr(Recorder, name)

        def raising(self: Recorder) -> None:
            whole(self)
            raise RuntimeError("boom")

        monkeypatch.setattr(Recorder, name, raising)
        client.send(frame(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        await recorder.wait_closed()
        assert (recorder.closing_times, recorder.closed_times) == (1, 1)
        assert failures(caplog) == 1
        async with asyncio.timeout(WAIT_S):
            while server.server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["on_write_paused", "on_write_resumed"])
async def test_a_receiver_that_raises_when_writing_stops_ends_its_own_socket(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = AttachingApp()
    async with (
        running(app) as server,
        await RawWebSocket.connect(server.port, "/", receive_buffer_bytes=4096) as client,
    ):
        recorder = await app.accepted()
        monkeypatch.setattr(Recorder, name, boom)
        for _ in range(200):
            recorder.socket.write(frames.encode(frames.Opcode.TEXT, b"x" * 65_000))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await client.reader.readexactly(65_536):
                pass
        await recorder.wait_closed()
        assert failures(caplog) == 1


async def test_a_connection_of_the_hub_that_raises_is_counted_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "on_messages", boom)
            peer.send(command(2, "ping"))
            assert (await peer.closed())[0] == 3004
        await until_gone(hub.node)
        assert 'hub_boundary_errors_total{place="socket"} 1.0' in hub.metrics.render()[0].decode()


async def test_a_stream_whose_receiver_raises_at_the_end_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = Connection.on_closed

    def raising(self: Connection) -> None:
        closed(self)
        raise RuntimeError("boom")

    monkeypatch.setattr(Connection, "on_closed", raising)
    async with sdk.live() as (hub, server):
        async with await StreamPeer.open(server.port, "sse", {"token": sdk.token("ann")}) as peer:
            await peer.connected()
        await until_gone(hub.node)
        assert failures(caplog) == 1


async def test_an_exception_in_an_upgrade_ends_that_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        with monkeypatch.context() as patched:
            patched.setattr(hub.node.admission.turns.handshakes, "admit", boom)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(handshake(server.port, "/connection/websocket", {}))
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
            writer.close()
        assert 'hub_boundary_errors_total{place="http"} 1.0' in hub.metrics.render()[0].decode()
        assert failures(caplog) == 1
        async with await RawWebSocket.connect(server.port):
            pass
        assert "ping" in (await peer.ask(command(2, "ping")))[0]


@pytest.mark.parametrize("accepts", [True, False], ids=["accepted", "not accepted"])
async def test_an_app_that_raises_a_cancellation_ends_its_own_socket(accepts: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await receive()
        if accepts:
            await send({"type": "websocket.accept"})
        raise asyncio.CancelledError("a task of the app's was cancelled")

    async with running(app) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(handshake(server.port, "/", {}))
        line = await asyncio.wait_for(reader.readline(), WAIT_S)
        assert line.split()[1] == (b"101" if accepts else b"500")
        rest = await asyncio.wait_for(reader.read(), WAIT_S)
        if accepts:
            assert rest.endswith((1011).to_bytes(2, "big"))
        writer.close()


@pytest.mark.parametrize("name", ["on_messages", "on_write_resumed", "on_left", "on_closed"])
async def test_a_connection_that_raises_under_plain_uvicorn_is_counted_and_leaves_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(sdk.settings())
    app = Starlette()
    hub.install(app)
    whole = getattr(Connection, name)

    def raising(self: Connection, *arguments: Any) -> None:
        if name == "on_closed":
            whole(self, *arguments)
        raise RuntimeError("boom")

    async with under_uvicorn(app) as port:
        path = "/live/connection/websocket"
        async with connected(port, sdk.token("ann"), path) as good:
            async with connected(port, sdk.token("ben"), path) as bad:
                with monkeypatch.context() as patched:
                    patched.setattr(Connection, name, raising)
                    if name == "on_messages":
                        bad.send(command(2, "ping"))
                        assert (await bad.closed())[0] == 3004
                    elif name == "on_write_resumed":
                        next(iter(hub.node.registry.of_user("ben"))).transport.write(b"{}")
                        await bad.closed()
                    else:
                        bad.socket.send(frame(Opcode.CLOSE, (1000).to_bytes(2, "big")))
                        await bad.closed()
                    async with asyncio.timeout(WAIT_S):
                        while len(hub.node.connections) > 1:  # noqa: ASYNC110 - the node tells nobody
                            await asyncio.sleep(0.01)
            assert "ping" in (await good.ask(command(3, "ping")))[0]
        await until_gone(hub.node)
    assert 'hub_boundary_errors_total{place="socket"} 1.0' in hub.metrics.render()[0].decode()
