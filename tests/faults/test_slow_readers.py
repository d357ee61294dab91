"""A client that does not read gets what its channel's rule says, and costs the others nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected
from support.server import running

from hub.app import Hub
from hub.config import load

HISTORY = {"history_size": 10_000, "history_ttl_s": 60}
TEXT = "x" * 1000


def settings(**client: Any) -> Any:
    return load(
        overrides={
            "client": {"insecure": True, "outbox_bytes_max": 65_536, **client},
            "server": {"lag_max_s": 0},  # a busy machine is no overload
            "channels": {
                rule: {**HISTORY, "slow_reader": rule} for rule in ("disconnect", "drop_oldest", "latest")
            },
        },
        env={},
    )


@asynccontextmanager
async def stalled(port: int, channel: str) -> AsyncIterator[Peer]:
    """A subscriber that reads no more."""
    async with unconnected(port, receive_buffer_bytes=4096) as peer:
        await peer.ask(command(1, "connect"), command(2, "subscribe", channel=channel))
        peer.socket.writer.transport.pause_reading()  # type: ignore[attr-defined]
        yield peer


def resume(peer: Peer) -> None:
    peer.socket.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def publish_until(hub: Hub, channel: str, done: Callable[[], object]) -> int:
    """Publish until it is so. Returns the last offset."""
    async with asyncio.timeout(WAIT_S):
        while True:
            position = await hub.publish(channel, Raw(json.dumps(TEXT).encode()))
            await asyncio.sleep(0)
            if done():
                return position.offset


async def offsets_until(peer: Peer, last: int) -> list[int]:
    offsets: list[int] = []
    while not offsets or offsets[-1] < last:
        reply = await peer.reply()
        offsets.append(reply["push"]["pub"]["offset"])
    return offsets


def dropped(hub: Hub, rule: str) -> int:
    return int(hub.metrics.dropped.labels(rule, rule)._value.get())


async def test_disconnect_ends_the_reader_and_no_other() -> None:
    async with running(settings()) as server:
        hub: Hub = server.app.state.hub
        async with stalled(server.port, "disconnect:c") as slow, connected(server.port) as good:
            await good.ask(command(2, "subscribe", channel="disconnect:c"))
            reading = asyncio.create_task(offsets_until(good, 1))
            closed = hub.metrics.disconnects.labels(3008)._value
            last = await publish_until(hub, "disconnect:c", closed.get)
            assert await reading == [1]
            assert await offsets_until(good, last) == list(range(2, last + 1))
            resume(slow)
            # Its kernel's buffer is full, so the close frame has no way to it.
            assert (await slow.closed())[0] in (3008, 1006)
        assert hub.node.outboxes.size == 0


@pytest.mark.parametrize(("rule", "newest"), [("drop_oldest", 30), ("latest", 1)])
async def test_what_is_given_up_shows_as_a_jump_of_the_offset(rule: str, newest: int) -> None:
    async with running(settings()) as server:
        hub: Hub = server.app.state.hub
        async with stalled(server.port, f"{rule}:c") as slow:
            last = await publish_until(hub, f"{rule}:c", lambda: dropped(hub, rule) >= 50)
            assert 0 < hub.node.outboxes.size <= 65_536
            resume(slow)
            offsets = await offsets_until(slow, last)
            assert offsets == sorted(set(offsets))
            assert len(offsets) == last - dropped(hub, rule)
            assert offsets[-newest:] == list(range(last - newest + 1, last + 1))
            [position] = [reply for reply in await slow.ask(command(3, "ping")) if reply.get("id") == 3]
            assert "ping" in position
        assert hub.node.outboxes.size == 0


async def test_over_the_bound_of_the_node_who_waits_for_most_goes_first() -> None:
    bounded = settings(outbox_bytes_max=1_048_576, outboxes_bytes_max=1_500_000)
    async with running(bounded) as server, AsyncExitStack() as stack:
        hub: Hub = server.app.state.hub
        closed = hub.metrics.disconnects.labels(3008)._value
        greedy = await stack.enter_async_context(stalled(server.port, "disconnect:many"))
        modest = await stack.enter_async_context(stalled(server.port, "disconnect:few"))
        await publish_until(hub, "disconnect:many", lambda: hub.node.outboxes.size > 900_000)
        await publish_until(hub, "disconnect:few", closed.get)
        assert closed.get() == 1
        assert len(hub.node.outboxes.behind) == 1
        assert hub.node.outboxes.size <= 1_500_000
        resume(modest)
        assert await offsets_until(modest, 1) == [1]
        resume(greedy)
        assert (await greedy.closed())[0] in (3008, 1006)
