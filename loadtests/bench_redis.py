"""How fast one node puts publications into Redis, and takes them out: `python loadtests/bench_redis.py`.

It starts a Redis server of its own. Each figure is the median of three runs; the lag is the longest time
that a timer of 5 ms came late. Messages are taken by a whole node, each for the one subscriber of its
channel: read, decoded, put in order, encoded, framed and written, to transports that count in the place of
sockets. They come at a steady rate from another process, since Redis cuts off a listener that is overrun.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import hiredis
import uvloop
from msgspec import Raw

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.redis import RedisServer  # noqa: E402

from hub.broker.base import BrokerCallbacks, BrokerState, HistoryPolicy  # noqa: E402
from hub.broker.redis import envelope  # noqa: E402
from hub.broker.redis.broker import RedisBroker  # noqa: E402
from hub.handlers.registry import HandlerTable  # noqa: E402
from hub.node.environment import Environment  # noqa: E402
from hub.node.node import Node  # noqa: E402
from hub.protocol.codes import Disconnect, Disconnects  # noqa: E402
from hub.protocol.encoding import JSON  # noqa: E402
from hub.protocol.messages import ClientInfo  # noqa: E402
from hub.settings import ChannelOptions, ClientSettings, RedisSettings, Settings  # noqa: E402
from hub.telemetry import Metrics  # noqa: E402

PAYLOAD: Final = Raw(b'{"text": "%s"}' % (b"x" * 86))
CHANNELS: Final = 1_000
CALLERS: Final = 200
PUBLISHES: Final = 60_000
MESSAGES: Final = 400_000
RATE: Final = 60_000
RUNS: Final = 3


def _void(state: BrokerState, reason: str) -> None:
    print(f"{state.value}: {reason}: the run is void")


IGNORING: Final = BrokerCallbacks(
    publication=lambda channel, publication, epoch: None,
    join=lambda channel, info: None,
    leave=lambda channel, info: None,
    bus=lambda message, entry, before: None,
    caught_up=lambda: None,
    gap=lambda: print("the connection broke: the run is void"),
    state=_void,
    ignored=print,
)


class Arrivals:
    """Counts what was written to all sinks."""

    def __init__(self) -> None:
        self.count = 0
        self.first_at = self.last_at = 0.0
        self.done = asyncio.Event()

    def add(self, publications: int) -> None:
        if publications and not self.count:
            self.first_at = time.perf_counter()
        self.count += publications
        if self.count == MESSAGES:
            self.last_at = time.perf_counter()
            self.done.set()


class Sink:
    """A transport that counts publications."""

    encoding = JSON.frames
    name = "sink"

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self.subscribed = asyncio.Event()

    def write(self, data: bytes) -> None:
        if b'"subscribe"' in data:
            self.subscribed.set()
        self._arrivals.add(data.count(b'"pub":'))

    def close(self, disconnect: Disconnect) -> None:
        if disconnect is not Disconnects.SHUTDOWN:
            print(f"a subscriber was closed with {disconnect.code}: the run is void")

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Lag:
    """The longest time that the loop kept a timer waiting, within the block."""

    async def __aenter__(self) -> Lag:
        self.longest_s = 0.0
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.longest_s = max(self.longest_s, time.perf_counter() - before - 0.005)


async def publishing(server: RedisServer) -> tuple[float, float, float]:
    """Concurrent callers, each of which publishes when its last publish is acknowledged."""
    broker = RedisBroker(RedisSettings(url=server.url))
    await broker.start("bench", IGNORING)
    keep = HistoryPolicy(size=100, ttl_s=60)

    async def caller(number: int) -> None:
        for turn in range(PUBLISHES // CALLERS):
            await broker.publish(f"room:{(number + turn) % CHANNELS}", PAYLOAD, history=keep)

    async with Lag() as lag:
        began, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(caller, range(CALLERS)))
        rate = PUBLISHES / (time.perf_counter() - began)
        cpu_s = time.process_time() - cpu_s
    await broker.stop()
    return rate, lag.longest_s, cpu_s / PUBLISHES


async def taking(server: RedisServer) -> tuple[float, float, float]:
    """Messages for channels with one subscriber on this node, from another process that floods."""
    settings = Settings(client=ClientSettings(insecure=True), channels={"room": ChannelOptions()})
    broker = RedisBroker(RedisSettings(url=server.url))
    node = Node(settings, Environment(lambda: broker), HandlerTable(), Metrics(), "bench", lambda: None)
    await node.start()
    arrivals = Arrivals()
    for number in range(CHANNELS):
        sink = Sink(arrivals)
        connection = node.connections.accept(sink, {})
        subscribe = b'{"id":2,"subscribe":{"channel":"room:%d"}}' % number
        connection.on_messages([b'{"id":1,"connect":{}}', subscribe])
        await sink.subscribed.wait()
    async with Lag() as lag:
        cpu_s = time.process_time()
        flood = await asyncio.create_subprocess_exec(sys.executable, __file__, "flood", str(server.port))
        try:
            async with asyncio.timeout(60):
                await arrivals.done.wait()
        finally:
            flood.kill()
            await flood.wait()
        cpu_s = time.process_time() - cpu_s
    await node.stop()
    return MESSAGES / (arrivals.last_at - arrivals.first_at), lag.longest_s, cpu_s / MESSAGES


async def flooding(port: int) -> None:
    """Publish at a steady rate."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    info = ClientInfo("42", "client", Raw(b'{"name": "Ann"}'))
    message = envelope.UNNUMBERED + envelope.encode_body(envelope.PUBLICATION, PAYLOAD, info)
    names = [b"hub{room:%d}" % number for number in range(CHANNELS)]
    commands = [hiredis.pack_command((b"PUBLISH", name, message)) for name in names]  # type: ignore[arg-type]
    began = time.perf_counter()
    for sent in range(0, MESSAGES, 250):
        await asyncio.sleep(max(0.0, began + sent / RATE - time.perf_counter()))
        writer.write(b"".join(commands[sent % CHANNELS : sent % CHANNELS + 250]))
        for _ in range(250):
            await reader.readline()
    await asyncio.sleep(3_600)


async def medians(title: str, run: Callable[[RedisServer], Awaitable[tuple[float, float, float]]]) -> None:
    results = []
    for _ in range(RUNS):
        with RedisServer() as server:
            results.append(await run(server))
    rate, lag_s, cpu_s = map(statistics.median, zip(*results, strict=True))
    rates = ", ".join(f"{rate:,.0f}" for rate, _, _ in results)
    print(f"{title}: {rate:,.0f}/s ({rates}), lag {lag_s * 1000:.0f} ms, CPU {cpu_s * 1e6:.1f} µs each")


async def main() -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {len(PAYLOAD)}-byte payloads")
    await medians(f"publishes with history, {CALLERS} callers, {CHANNELS} channels", publishing)
    await medians(f"messages taken to their subscriber, {CHANNELS} channels, {RATE:,}/s sent", taking)


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        uvloop.run(flooding(int(sys.argv[2])))
    else:
        uvloop.run(main())
