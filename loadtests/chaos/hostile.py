"""Clients that send too much, too deep, too slowly, or read nothing; none of it may reach another client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from support.rawws import HandshakeError, RawWebSocket, frame
from websockets.frames import Opcode

from loadtests.chaos.clients import login
from loadtests.chaos.stage import FLOOD, PEOPLE, Stage

FLOOD_CHANNEL = f"{FLOOD}:1"
FLOOD_BYTES = 60_000
FLOOD_COMMANDS = 1_000
FLOOD_S = 3.0
DRIP_S = 2.0
SOCKETS = 20


async def seed_flood(stage: Stage) -> None:
    """Fill the channel whose history hostile clients ask for."""
    for _ in range(100):
        await stage.api(0, "publish", channel=FLOOD_CHANNEL, data="x" * FLOOD_BYTES)


def _port(stage: Stage) -> int:
    return stage.chance.choice(stage.cluster.ports)


async def _connected(stage: Stage, user: str, *, receive_buffer_bytes: int | None = None) -> RawWebSocket:
    socket = await RawWebSocket.connect(_port(stage), receive_buffer_bytes=receive_buffer_bytes)
    socket.send_text(json.dumps({"id": 1, "connect": {"token": login(user)}}))
    await socket.read_text()
    return socket


async def odd_frames(stage: Stage) -> str:
    """Send a message that must end the connection, and wait for the end."""
    deep = '{"id":2,"rpc":{"method":"echo","data":' + "[" * 1_000 + "]" * 1_000 + "}}"
    name, data = stage.chance.choice(
        [
            ("too large", frame(Opcode.TEXT, b"x" * 1_000_000)),
            ("of 2^62 bytes", frame(Opcode.TEXT, b"x", size=2**62)),
            ("too deep", frame(Opcode.TEXT, deep.encode())),
            ("not a command", frame(Opcode.TEXT, b'{"id":')),
            ("not UTF-8", frame(Opcode.TEXT, b"\xff\xff")),
            ("in 2,000 fragments", frame(Opcode.TEXT, b"", fin=False) + frame(0, b"", fin=False) * 2_000),
            ("of pings", frame(Opcode.PING, b"x") * 2_000),
        ]
    )
    with contextlib.suppress(ConnectionError, HandshakeError):
        async with await _connected(stage, "hostile") as socket:
            socket.send(data)
            try:
                # An error in reply is an answer, too: the connection may stay.
                await socket.read_frame()
            except TimeoutError:
                stage.fail(f"no answer to a message {name}")
    return f"a message {name}"


async def thousand_commands(stage: Stage) -> str:
    """Send a thousand commands in one frame, and read all answers until the end or the last one."""
    kind = stage.chance.choice(["subscribe", "presence", "rpc"])
    choices: dict[str, list[dict[str, Any]]] = {
        "subscribe": [{"channel": f"odd:many.{number}"} for number in range(500)],
        "presence": [{"channel": PEOPLE}] * 1_000,
        "rpc": [{"method": "sleep", "data": {}}] * 1_000,
    }
    requests = choices[kind]
    lines = [json.dumps({"id": number, kind: each}) for number, each in enumerate(requests, 2)]
    with contextlib.suppress(ConnectionError, HandshakeError, TimeoutError):
        async with await _connected(stage, "hostile") as socket:
            socket.send_text("\n".join(lines))
            answered = 0
            while answered < len(lines):
                answered += (await socket.read_text()).count('"id":')
    return f"a frame of {len(lines)} commands: {kind}"


async def history_flood(stage: Stage) -> str:
    """Ask for a large history a thousand times in one frame, and read nothing."""
    request = {"channel": FLOOD_CHANNEL, "limit": -1}
    lines = [json.dumps({"id": number, "history": request}) for number in range(2, FLOOD_COMMANDS)]
    data = "\n".join(lines).encode()[:65_000].rpartition(b"\n")[0]
    with contextlib.suppress(ConnectionError, HandshakeError):
        async with await _connected(stage, "hostile", receive_buffer_bytes=4096) as socket:
            socket.send(frame(Opcode.TEXT, data))
            await asyncio.sleep(FLOOD_S)
    return "a thousand reads of a history of 6 MB, whose answers nobody takes"


async def dripping_requests(stage: Stage) -> str:
    """Open requests that never end: heads, bodies and trailers that drip or flood."""
    head = b"POST /emulation HTTP/1.1\r\nHost: hub\r\n"
    starts = {
        "bodies": (head + b"Content-Length: 1000000000\r\n\r\n", b"x" * 100),
        "heads": (b"GET /connection/websocket HTTP/1.1\r\nHost: hub\r\n", b"X-A: b\r\n"),
        "trailers": (head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: " + b"b" * 8_000 + b"\r\n"),
    }
    name = stage.chance.choice(sorted(starts))
    port, (start, drip) = _port(stage), starts[name]
    await asyncio.gather(*(_drip(port, start, drip) for _ in range(SOCKETS)))
    return f"{SOCKETS} requests with endless {name}"


async def _drip(port: int, start: bytes, drip: bytes) -> None:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(start)
            for _ in range(20):
                writer.write(drip)
                await asyncio.sleep(DRIP_S / 20)
        finally:
            writer.transport.abort()


async def wrong_keys(stage: Stage) -> str:
    """Call the API with a wrong key, and connect with wrong tokens."""
    port, count = _port(stage), 100
    request = b"POST /api/info HTTP/1.1\r\nHost: hub\r\nX-API-Key: wrong\r\nContent-Length: 2\r\n\r\n{}"
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(10.0):
                for _ in range(count):
                    writer.write(request)
                    await reader.readuntil(b"\r\n\r\n")
        except (TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
    return f"{count} calls of the API with a wrong key"
