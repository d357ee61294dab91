"""What a delivery costs over each transport: `python loadtests/bench_streams.py`.

A hub in a process of its own sends to 500 subscribers, who read and throw away. Counted is the CPU time of
the hub for as many deliveries, so that neither who reads nor who publishes is part of it. Publications go in
batches, as an app's do: those of a batch leave together, one write for each subscriber. Each figure is the
median of three runs; the transports take turns.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
import jwt

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.rawstream import RawStream  # noqa: E402
from support.rawws import RawWebSocket  # noqa: E402
from support.server import Process  # noqa: E402

SUBSCRIBERS: Final = 500
DELIVERIES: Final = 200_000
BATCHES: Final = (1, 4)
TRANSPORTS: Final = ("websocket", "http_stream", "sse", "uni_sse")
RUNS: Final = 3
DATA: Final = {"text": "x" * 86}
SECRET: Final = "signs-the-tokens-of-the-benchmark-of-streams"  # noqa: S105 - of nothing else
CONFIG: Final = f"""
[server]
lag_max_s = 0
[client.token]
hmac_secret = "{SECRET}"
[api]
key = "bench"
[channels.default]
allow_subscribe_for_client = true
"""
TOKEN: Final = jwt.encode({"sub": "bench", "channels": ["bench"]}, SECRET, "HS256")


class Sink(asyncio.Protocol):
    """Throws away what comes, and counts the publications in it."""

    count = 0

    def data_received(self, data: bytes) -> None:
        Sink.count += data.count(b'"pub":')


async def subscribe(port: int, transport: str) -> asyncio.BaseTransport:
    """Connect, and be subscribed when this returns."""
    request = {"token": TOKEN}
    command = json.dumps(request if transport.startswith("uni_") else {"id": 1, "connect": request})
    path = f"/connection/{transport}"
    if transport == "websocket":
        socket = await RawWebSocket.connect(port, path)
        socket.send_text(command)
        await socket.read_text()
        writer = socket.writer
    else:
        method, body = "POST", command.encode()
        if transport.endswith("sse"):
            method, path, body = "GET", f"{path}?cf_connect={quote(command)}", b""
        stream = await RawStream.send(port, method, path, body=body)
        assert stream.status == 200, stream.head
        await stream.line()
        writer = stream.writer
    writer.transport.set_protocol(Sink())
    return writer.transport


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(transport: str, batch: int) -> float:
    """Deliveries for each second of the hub's CPU time."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(CONFIG)
        config.flush()
        async with Process("--config", config.name) as hub, httpx.AsyncClient() as client:
            sockets = [await subscribe(hub.port, transport) for _ in range(SUBSCRIBERS)]
            commands = [{"publish": {"channel": "bench", "data": DATA}}] * batch
            Sink.count = 0
            before = cpu_s(hub.pid)
            for sent in range(batch, DELIVERIES // SUBSCRIBERS + 1, batch):
                await client.post(
                    f"{hub.url}/api/batch", headers={"X-API-Key": "bench"}, json={"commands": commands}
                )
                while Sink.count < sent * SUBSCRIBERS:  # noqa: ASYNC110 - each read would set an event
                    await asyncio.sleep(0)
            spent = cpu_s(hub.pid) - before
            for socket in sockets:
                socket.close()
            return Sink.count / spent


async def main() -> None:
    for batch in BATCHES:
        figures: dict[str, list[float]] = {transport: [] for transport in TRANSPORTS}
        for _ in range(RUNS):
            for transport in TRANSPORTS:
                figures[transport].append(await run(transport, batch))
        medians = {transport: statistics.median(each) for transport, each in figures.items()}
        for transport, median in medians.items():
            share = median / medians["websocket"]
            print(f"batches of {batch}, {transport:11}: {median:9,.0f} deliveries/CPU-second, {share:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
