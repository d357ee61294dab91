"""Reconnect tokens on real nodes over a real Redis, used, stolen and repeated; with the SDK, and without."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support import sdk
from support.peer import Peer, command, connected, unconnected
from support.redis import RedisServer
from support.server import Running

from hub.app import Hub
from hub.core.reconnect import ReconnectClaims
from hub.settings import Settings

KEY, OTHER = "the-first-key-of-the-reconnect-tests", "another-key-of-the-reconnect-tests"


def settings(redis: RedisServer | None = None, **reconnect: Any) -> Settings:
    sections = {"redis": {"url": redis.url}} if redis else {}
    return sdk.settings({"reconnect": {"keys": [KEY], **reconnect}}, **sections)


@contextlib.asynccontextmanager
async def two_nodes(
    redis: RedisServer, *configured: Settings, **handlers: Callable[[Any], Any]
) -> AsyncIterator[list[tuple[Hub, Running]]]:
    one, two = configured or (settings(redis), settings(redis))
    async with sdk.live(one, **handlers) as first, sdk.live(two, **handlers) as second:
        yield [first, second]


async def enter(peer: Peer, token: str, **more: Any) -> Any:
    """Connect. Returns the reply."""
    [reply] = await peer.ask(command(1, "connect", token=token, **more))
    return reply


@contextlib.asynccontextmanager
async def reconnect_token(port: int, login: str = "") -> AsyncIterator[str]:
    """The token of a client that is gone."""
    async with unconnected(port) as peer:
        reply = await enter(peer, login or sdk.token("ann"))
        token = reply["connect"]["data"]["reconnect_token"]
    yield token


def outcomes(*hubs: Hub) -> dict[str, int]:
    """How many came with a reconnect token, by what came of it."""
    found: dict[str, int] = {}
    for hub in hubs:
        for line in hub.metrics.render()[0].decode().splitlines():
            if line.startswith("hub_reconnects_total{"):
                name = line.split('"')[1]
                found[name] = found.get(name, 0) + int(float(line.split()[-1]))
    return found


# The SDK


async def test_the_sdk_comes_back_to_another_node_with_what_it_missed_and_without_a_login() -> None:
    logins: list[str] = []

    async def login() -> str:
        logins.append("ann")
        return sdk.token("ann", channels=["own:a"])

    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            sdk.client(first.websocket_url, get_token=login) as (client, events),
        ):

            async def keep(context: Any) -> None:
                client.set_token(context.data["reconnect_token"])

            vars(events)["on_message"] = keep
            await keep(await events.next("connected"))
            _, private = await sdk.subscribe(
                client, "chat:a", token=sdk.subscription_token("ann", "chat:a"), recoverable=True
            )
            await one.publish("own:a", 1)
            await events.count("publication", 1)
            # The rest of the window that the node drains in: a fresh token, then 3001.
            client._address = second.websocket_url
            await one.drain(0.0)
            await two.publish("own:a", 2)
            await two.publish("chat:a", 3)
            again = (await events.count("connected", 2))[1]
            assert (again.client, again.data.keys()) == (
                events.of("connected")[0].client,
                {"reconnect_token"},
            )
            await private.count("subscribed", 2)
            await events.count("publication", 2)
            assert events.data == [1, 2]
            await private.count("publication", 1)
            assert private.data == [3]
            assert outcomes(one, two) == {"resumed": 1}
            assert logins == ["ann"]


# One use


async def test_presented_fifty_times_at_once_on_two_nodes_it_has_one_winner() -> None:
    with RedisServer() as redis:
        async with two_nodes(redis) as nodes, reconnect_token(nodes[0][1].port) as token:
            async with contextlib.AsyncExitStack() as stack:
                peers = [
                    await stack.enter_async_context(unconnected(nodes[number % 2][1].port))
                    for number in range(50)
                ]
                replies = await asyncio.gather(*(enter(peer, token) for peer in peers))
                [winner] = [number for number, reply in enumerate(replies) if "connect" in reply]
                assert {reply["error"]["code"] for reply in replies if "error" in reply} == {109}
                assert (await peers[winner].closed())[0] == 3014, "what was used twice, nobody has"
            found = outcomes(*(hub for hub, _ in nodes))
            assert found == {"resumed": 1, "reused": 1, "revoked": 48}


async def test_the_thief_of_a_token_loses_the_session_when_its_owner_comes() -> None:
    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            connected(first.port, sdk.token("ann")) as owner,
        ):
            owner.send(command(2, "ping"))
            await owner.reply()
            [connection] = one.node.connections
            connection.run(connection.session.renew(one.node.now()))
            connection.run(connection.session.renew(one.node.now()))
            owner.send(command(3, "ping"))
            await owner.reply()
            stolen, kept = owner.tokens
            async with unconnected(second.port) as thief:
                reply = await enter(thief, stolen)
                loot = reply["connect"]["data"]["reconnect_token"]
                assert (await owner.closed())[0] == 3014
                async with unconnected(first.port) as back:
                    assert (await enter(back, kept))["error"]["code"] == 109
                    assert (await thief.closed())[0] == 3014
                async with unconnected(second.port) as thief_again:
                    assert (await enter(thief_again, loot))["error"]["code"] == 109
            assert outcomes(one, two) == {"resumed": 1, "reused": 1, "revoked": 1}


async def test_where_the_answer_is_lost_the_same_client_may_repeat() -> None:
    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            reconnect_token(first.port) as token,
        ):
            async with unconnected(first.port) as lost:
                unread = (await enter(lost, token))["connect"]["data"]["reconnect_token"]
            async with asyncio.timeout(5):
                while one.node.connections:  # noqa: ASYNC110 - a socket's end is announced to the node alone
                    await asyncio.sleep(0.01)
            async with unconnected(second.port) as peer:
                reply = await enter(peer, token)
                assert "connect" in reply
                async with unconnected(first.port) as thief:
                    assert (await enter(thief, unread))["error"]["code"] == 109
                    assert (await peer.closed())[0] == 3014
            assert outcomes(one, two) == {"resumed": 1, "repeated": 1, "reused": 1}


async def test_who_was_heard_from_has_got_the_answer() -> None:
    async with sdk.live(settings()) as (hub, server), reconnect_token(server.port) as token:
        async with unconnected(server.port) as heard:
            await enter(heard, token)
            await heard.ask(command(2, "ping"))
        async with asyncio.timeout(5):
            while hub.node.connections:  # noqa: ASYNC110 - a socket's end is announced to the node alone
                await asyncio.sleep(0.01)
        async with unconnected(server.port) as late:
            assert (await enter(late, token))["error"]["code"] == 109
        assert outcomes(hub) == {"resumed": 1, "reused": 1}


# Keys


async def test_keys_rotate_while_clients_hold_tokens() -> None:
    with RedisServer() as redis:
        old, new = settings(redis), settings(redis, keys=[OTHER, KEY])
        async with (
            two_nodes(redis, old, new) as [(_, first), (_, second)],
            reconnect_token(first.port) as token,
            unconnected(second.port) as peer,
            unconnected(first.port) as back,
        ):
            fresh = (await enter(peer, token))["connect"]["data"]["reconnect_token"]
            assert (await enter(back, fresh))["error"]["code"] == 109, "it has not got the new key yet"


async def test_a_hub_of_another_name_takes_none() -> None:
    with RedisServer() as redis:
        another = sdk.settings({"reconnect": {"keys": [KEY]}}, redis={"url": redis.url, "prefix": "another"})
        async with (
            two_nodes(redis, settings(redis), another) as [(_, first), (two, second)],
            reconnect_token(first.port) as token,
            unconnected(second.port) as peer,
        ):
            assert (await enter(peer, token))["error"]["code"] == 109
            assert outcomes(two) == {"invalid": 1}


async def test_over_redis_without_keys_no_token_is_handed_out(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as redis:
        async with (
            sdk.live(sdk.settings(redis={"url": redis.url})) as (_, server),
            unconnected(server.port) as peer,
        ):
            assert "data" not in (await enter(peer, sdk.token("ann")))["connect"]
    assert "reconnect.no_keys" in caplog.text


async def test_past_its_time_it_is_refused() -> None:
    async with (
        sdk.live(settings(ttl_s=60)) as (hub, server),
        reconnect_token(server.port) as token,
        unconnected(server.port) as peer,
    ):
        tokens = hub.node.context.reconnect
        assert tokens is not None
        claims = tokens.verify(token, time.time())
        assert isinstance(claims, ReconnectClaims)
        assert (await enter(peer, tokens.sign(claims, time.time() - 70)))["error"]["code"] == 109
        assert outcomes(hub) == {"expired": 1}


# The broker is away


async def test_with_redis_away_tokens_are_taken_and_counted() -> None:
    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            contextlib.AsyncExitStack() as stack,
        ):
            tokens = [
                await stack.enter_async_context(reconnect_token(first.port, sdk.token(f"user-{number}")))
                for number in range(50)
            ]
            redis.kill()
            async with contextlib.AsyncExitStack() as crowd:
                peers = [await crowd.enter_async_context(unconnected(second.port)) for _ in tokens]
                replies = await asyncio.gather(*map(enter, peers, tokens))
                tokens = [reply["connect"]["data"]["reconnect_token"] for reply in replies]
            assert outcomes(one, two) == {"unchecked": 50}
            redis.start()
            async with asyncio.timeout(10):
                while two.node.state != "healthy":  # noqa: ASYNC110 - of the node's own
                    await asyncio.sleep(0.05)
            async with unconnected(second.port) as peer:
                assert "connect" in await enter(peer, tokens[0])
            assert outcomes(two) == {"unchecked": 50, "resumed": 1}
