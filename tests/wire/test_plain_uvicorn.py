"""A hub in an app under uvicorn as it is: how it ends, how handshakes are refused, and what the log holds."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.ports import free_port
from support.rawstream import StreamPeer
from support.rawws import HandshakeError, RawWebSocket

TESTS = Path(__file__).parents[1]

APP = """
import sys

sys.path.insert(0, {tests!r})

from fastapi import FastAPI
from support import sdk

from hub import Hub

app = FastAPI()
hub = Hub(sdk.settings())
hub.install(app, "/live")
"""


class Uvicorn:
    """uvicorn in a process of its own.

    Args:
        folder: for the app's module.
        arguments: more of the command line.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "shop.py").write_text(APP.format(tests=str(TESTS)))
        self.port = free_port()
        where = ("--app-dir", str(folder), "--port", str(self.port))
        self._command = (sys.executable, "-m", "uvicorn", "shop:app", *where, *arguments)
        self.process: asyncio.subprocess.Process
        self.log = ""

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(WAIT_S), httpx.AsyncClient(timeout=WAIT_S) as client:
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{self.port}/live/livez")
                    return
                except httpx.ConnectError:
                    assert self.process.returncode is None
                    await asyncio.sleep(0.05)  # another process's listener announces itself by nothing else

    async def ended(self) -> str:
        """End it by SIGTERM, and return its log.

        Raises:
            TimeoutError: it does not end.
        """
        if self.process.returncode is None:
            self.process.terminate()
            output, _ = await asyncio.wait_for(self.process.communicate(), WAIT_S)
            self.log = output.decode()
        return self.log

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.fixture(params=["websockets-sansio", "websockets", "wsproto"])
async def uvicorn(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Uvicorn]:
    """uvicorn with each of its WebSocket implementations."""
    server = Uvicorn(tmp_path, "--ws", request.param)
    await server.start()
    yield server
    await server.stop()


async def test_streams_and_sockets_end_at_the_signal(uvicorn: Uvicorn) -> None:
    async with (
        await StreamPeer.open(uvicorn.port, "sse", {"token": sdk.token("ann")}, prefix="/live") as sse,
        await StreamPeer.open(
            uvicorn.port, "http_stream", {"token": sdk.token("bob")}, prefix="/live"
        ) as stream,
        await RawWebSocket.connect(uvicorn.port, "/live/connection/websocket") as socket,
    ):
        await sse.connected()
        await stream.connected()
        socket.send_text(json.dumps({"id": 1, "connect": {"token": sdk.token("cat")}}))
        assert "connect" in await socket.read_text()
        ending = asyncio.create_task(uvicorn.ended())
        for peer in (sse, stream):
            assert (await asyncio.wait_for(peer.closed(), WAIT_S))[0] == 3001
        assert "Application shutdown complete" in await ending


async def test_a_refused_handshake_is_answered_and_no_token_is_logged(uvicorn: Uvicorn) -> None:
    token = sdk.token("ann")
    path = "/live/connection/websocket"
    refusals: list[tuple[str, dict[str, str], int]] = [
        (f"{path}?token={token}", {}, 400),
        (path, {"Origin": "http://evil.example"}, 403),
        ("/live/nowhere", {}, 404),
    ]
    for target, headers, status in refusals:
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(uvicorn.port, target, headers=headers)
        assert refused.value.status == status
    connect = quote(json.dumps({"id": 1, "connect": {"token": token}}))
    for kind in ("sse", "uni_sse"):
        await _first_bytes(uvicorn.port, f"/live/connection/{kind}?cf_connect={connect}")
        await _first_bytes(uvicorn.port, f"/live/connection/{kind}?token={token}")
    await _first_bytes(uvicorn.port, f"/live/connection/websocket?token={token}")
    log = await uvicorn.ended()
    assert "/live/connection/sse" in log
    assert token not in log
    assert "eyJ" not in log


async def _first_bytes(port: int, target: str) -> None:
    """GET a target, and wait for the beginning of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readline(), WAIT_S)).startswith(b"HTTP/1.1 ")
    writer.transport.abort()


async def test_a_handshake_is_refused_while_the_hub_does_not_run(tmp_path: Path) -> None:
    server = Uvicorn(tmp_path, "--lifespan", "off")
    await server.start()
    try:
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(server.port, "/live/connection/websocket")
        assert refused.value.status == 503
    finally:
        await server.stop()
