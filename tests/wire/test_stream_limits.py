"""Who may hold a stream, and how much may come for it: the limits are those of a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import command, until_gone
from support.rawstream import StreamPeer

from hub import Errors

FROM = "X-Forwarded-For"
both = pytest.mark.parametrize("kind", ["http_stream", "sse"])


async def come(stack: contextlib.AsyncExitStack, port: int, kind: str, **options: Any) -> StreamPeer:
    """A stream of a user, for as long as the stack lasts."""
    options.setdefault("connect", {"token": sdk.token("ann")})
    return await stack.enter_async_context(await StreamPeer.open(port, kind, **options))


async def refused(port: int, kind: str, **options: Any) -> StreamPeer:
    """A stream that is refused for now."""
    async with await StreamPeer.open(port, kind, {"token": sdk.token("ann")}, **options) as peer:
        assert peer.stream.status == 503
        assert 1 <= int(peer.stream.headers["retry-after"]) <= 5
        return peer


@both
async def test_a_node_holds_so_many(kind: str) -> None:
    configured = sdk.settings(server={"connections_max": 2})
    async with sdk.live(configured) as (hub, server), contextlib.AsyncExitStack() as stack:
        peers = [await come(stack, server.port, kind) for _ in range(2)]
        for peer in peers:
            await peer.connected()
        await refused(server.port, kind)
        await peers[0].__aexit__()
        async with asyncio.timeout(WAIT_S):
            while len(hub.node.connections) > 1:  # noqa: ASYNC110 - a socket's end is announced to the node alone
                await asyncio.sleep(0.01)
        await (await come(stack, server.port, kind)).connected()


@both
async def test_an_address_has_so_many(kind: str) -> None:
    configured = sdk.settings(server={"connections_per_address_max": 1})
    async with sdk.live(configured) as (hub, server), contextlib.AsyncExitStack() as stack:
        here, there = {FROM: "198.51.100.7"}, {FROM: "198.51.100.8"}
        first = await come(stack, server.port, kind, headers=here)
        await first.connected()
        await refused(server.port, kind, headers=here)
        await (await come(stack, server.port, kind, headers=there)).connected()
        # What it sends takes the place of nobody.
        assert await first.error(command(2, "ping")) == 0
        await stack.aclose()
        await until_gone(hub.node)
        assert hub.node.admission._counts == {}


@both
async def test_a_user_has_so_many(kind: str) -> None:
    configured = sdk.settings({"connections_per_user_and_node_max": 1})
    async with sdk.live(configured) as (hub, server), contextlib.AsyncExitStack() as stack:
        await (await come(stack, server.port, kind)).connected()
        assert await (await come(stack, server.port, kind)).closed() == (3504, "connection limit")
        ben = await come(stack, server.port, kind, connect={"token": sdk.token("ben")})
        await ben.connected()
        assert set(hub.node.registry.users) == {"ann", "ben"}


@both
async def test_what_is_posted_keeps_to_the_rates_of_a_socket(kind: str) -> None:
    limits = {"publishes_per_s": 0.1, "subscribes_per_s": 0.2, "burst_s": 10.0, "channels_max": 2}
    async with (
        sdk.live(sdk.settings(limits)) as (_, server),
        await StreamPeer.open(server.port, kind, {"token": sdk.token("ann")}) as peer,
    ):
        await peer.connected()

        async def errors(name: str, *fields: dict[str, Any]) -> list[int]:
            return [await peer.error(command(number, name, **each)) for number, each in enumerate(fields, 2)]

        publish = {"channel": "plain:a", "data": 1}
        assert await errors("publish", *[publish] * 3) == [0, *[Errors.TOO_MANY_REQUESTS.code] * 2]
        # In one request or in several.
        replies = await peer.ask(*[command(9, "publish", **publish)] * 50)
        assert {reply["error"]["code"] for reply in replies} == {Errors.TOO_MANY_REQUESTS.code}
        for allowed in (True, True, False, False):
            [code] = await errors("subscribe", {"channel": "plain:a"})
            assert code == (0 if allowed else Errors.TOO_MANY_REQUESTS.code)
            if allowed:
                await errors("unsubscribe", {"channel": "plain:a"})
