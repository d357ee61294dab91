"""Streams on two nodes: what a client sends reaches its own, whichever gets it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from support import sdk
from support.peer import command
from support.rawstream import StreamPeer
from support.redis import RedisServer
from support.redis_proxy import Proxy
from support.server import Running

from hub.app import Hub
from hub.broker.memory import MemoryBroker
from hub.core.hooks import RPCEvent, RPCReply
from hub.node import members

both = pytest.mark.parametrize("kind", ["http_stream", "sse"])


@contextlib.asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[RedisServer, list[tuple[Hub, Running]]]]:
    def echo(event: RPCEvent) -> RPCReply:
        return RPCReply(data=event.data)

    with RedisServer() as redis:
        async with Proxy(redis.port, late_s=sdk.LATE_S) as proxy, contextlib.AsyncExitStack() as stack:
            settings = sdk.settings(redis={"url": proxy.url})
            nodes = [await stack.enter_async_context(sdk.live(settings, rpc=echo)) for _ in range(2)]
            yield redis, nodes


@both
async def test_any_node_takes_what_a_client_sends(kind: str) -> None:
    async with two_nodes() as (_, nodes):
        [(_, one), (_, two)] = nodes
        async with await StreamPeer.open(one.port, kind, {"token": sdk.token("ann")}) as ann:
            await ann.connected()
            for number in range(100):
                [reply] = await ann.ask(
                    command(number + 2, "rpc", data="é" * number), port=(one, two)[number % 2].port
                )
                assert reply == {"id": number + 2, "rpc": {"data": "é" * number}}
            # What one node gets comes in its order.
            sent = [
                asyncio.create_task(ann.post(command(n, "rpc", data=n), port=two.port))
                for n in range(200, 210)
            ]
            assert await asyncio.gather(*sent) == [204] * 10
            assert {(await ann.reply())["id"] for _ in range(10)} == set(range(200, 210))


async def test_a_start_that_is_cancelled_while_it_waits_for_others_ends_what_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub(sdk.settings())
    waits = asyncio.Event()

    def heard_by_two(broker: MemoryBroker, message: bytes, node: str = "") -> asyncio.Future[int]:
        waits.set()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(2)
        return future

    monkeypatch.setattr(MemoryBroker, "send_bus", heard_by_two)
    before = asyncio.all_tasks()
    start = asyncio.create_task(hub.lifespan().__aenter__())
    await waits.wait()
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    assert asyncio.all_tasks() == before


async def test_a_node_that_is_gone_or_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "SILENT_S", 0.5)
    monkeypatch.setattr(members, "HELLO_PERIOD_S", 0.2)
    async with two_nodes() as (redis, nodes):
        [(_, one), (_, two)] = nodes
        async with await StreamPeer.open(one.port, "sse", {"token": sdk.token("ann")}) as ann:
            await ann.connected()
            assert await ann.post("{}", session="0" * 32, port=two.port) == 204  # the stream's end tells it
            redis.kill()
            statuses = [await ann.post(command(2, "rpc"), port=two.port)]
            while statuses[-1] == 503:
                statuses.append(await ann.post(command(2, "rpc"), port=two.port))
            assert statuses[0] == 503
            assert statuses[-1] == 404
            [reply] = await ann.ask(command(3, "rpc", data=1), port=one.port)
            assert reply["rpc"]["data"] == 1
