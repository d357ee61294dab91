"""Compression: one compressed frame for all who can share it, and nothing of it for the others."""

from __future__ import annotations

import asyncio
import json

import pytest
import websockets
from msgspec import Raw
from support.limits import WAIT_S
from support.peer import command
from support.rawws import RawWebSocket
from support.server import running
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from hub.app import Hub
from hub.config import load
from hub.protocol import frames

SETTINGS = load(
    overrides={
        "client": {"insecure": True},
        "channels": {"default": {}},
        "server": {"compression": True, "lag_max_s": 0},
    },
    env={},
)
TEXT = "a document that says the same again and again " * 40


async def test_clients_with_and_without_get_the_same_and_it_is_compressed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compressed = []
    encode_compressed = frames.encode_compressed

    def counted(opcode: frames.Opcode, payload: bytes) -> bytes:
        compressed.append(encode_compressed(opcode, payload))
        return compressed[-1]

    monkeypatch.setattr(frames, "encode_compressed", counted)
    small = ClientPerMessageDeflateFactory(server_max_window_bits=9)
    async with running(SETTINGS) as server, asyncio.timeout(WAIT_S):
        hub: Hub = server.app.state.hub
        url = server.websocket_url
        async with (
            websockets.connect(url) as one,
            websockets.connect(url) as other,
            websockets.connect(url, compression=None) as plain,
            websockets.connect(url, compression=None, extensions=[small]) as narrow,
        ):
            for client in (one, other, plain, narrow):
                await client.send("\n".join([command(1, "connect"), command(2, "subscribe", channel="c")]))
                while '"subscribe"' not in str(await client.recv()):
                    pass
            compressed.clear()
            await hub.publish("c", Raw(json.dumps(TEXT).encode()))
            for client in (one, other, plain, narrow):
                assert json.loads(await client.recv())["push"]["pub"]["data"] == TEXT
            assert len(compressed) == 1
            assert len(compressed[0]) < len(TEXT) / 10


async def test_it_is_off_unless_it_is_switched_on() -> None:
    off = load(overrides={"client": {"insecure": True}, "channels": {"default": {}}}, env={})
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with running(off) as server, await RawWebSocket.connect(server.port, headers=headers) as client:
        assert "deflate" not in client.head
