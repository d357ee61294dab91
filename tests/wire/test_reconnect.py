"""Reconnect tokens on real nodes over a real Redis, used, stolen and repeated; with the SDK, and without."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected, until_gone
from support.redis import RedisServer
from support.server import Running

from hub.app import Hub
from hub.core.reconnect import ReconnectClaims
from hub.protocol import api
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
                {"reconnect_token", "message_bytes_max"},
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


async def test_the_thief_of_a_token_loses_the_session_when_its_owner_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            connected(first.port, sdk.token("ann")) as owner,
        ):
            owner.send(command(2, "ping"))
            await owner.reply()
            [connection] = one.node.connections
            connection.run(connection.session.renew(one.node.loop.time()))
            connection.run(connection.session.renew(one.node.loop.time()))
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
            assert caplog.text.count("reconnect.reused") == 1


async def test_where_the_answer_is_lost_the_same_client_may_repeat() -> None:
    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            reconnect_token(first.port) as token,
        ):
            async with unconnected(first.port) as lost:
                unread = (await enter(lost, token))["connect"]["data"]["reconnect_token"]
            await until_gone(one.node)
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
        await until_gone(hub.node)
        async with unconnected(server.port) as late:
            assert (await enter(late, token))["error"]["code"] == 109
        assert outcomes(hub) == {"resumed": 1, "reused": 1}


# One session, one socket


async def watching(stack: contextlib.AsyncExitStack, port: int) -> Peer:
    """Somebody else in the channel, who is told who comes and goes."""
    peer = await stack.enter_async_context(connected(port, sdk.token("ben")))
    await peer.ask(command(2, "subscribe", channel="chat:a", join_leave=True))
    assert (await peer.reply())["push"]["join"]["info"]["user"] == "ben"
    return peer


async def nothing_more(peer: Peer, hub: Hub) -> None:
    """What comes next is what is published now: nothing was said before."""
    await hub.publish("chat:a", "last")
    assert (await peer.reply())["push"]["pub"]["data"] == "last"


async def in_chat(peer: Peer) -> None:
    """Subscribe as an SDK does that knows no position, and wait for the token that says so."""
    await peer.ask(command(2, "subscribe", channel="chat:a"))
    async with asyncio.timeout(WAIT_S):
        while not peer.tokens:
            peer.send(command(3, "ping"))
            await peer.reply()
            await asyncio.sleep(0.05)


async def test_a_socket_that_hangs_is_taken_over_and_nobody_is_told() -> None:
    with RedisServer() as redis:
        async with two_nodes(redis) as [(one, first), (two, second)], contextlib.AsyncExitStack() as stack:
            other = await watching(stack, second.port)
            hanging = await stack.enter_async_context(connected(first.port, sdk.token("ann")))
            await in_chat(hanging)
            assert (await other.reply())["push"]["join"]["info"]["user"] == "ann"
            [before] = [
                client for client, info in (await two.presence("chat:a")).items() if info.user == "ann"
            ]
            back = await stack.enter_async_context(unconnected(second.port))
            reply = await enter(back, hanging.tokens[-1])
            assert reply["connect"]["client"] == before
            assert (await hanging.closed())[0] == 3014
            await until_gone(one.node)
            await back.ask(command(2, "subscribe", channel="chat:a"))
            assert {info.user for info in (await two.presence("chat:a")).values()} == {"ann", "ben"}
            await nothing_more(other, two)
            assert (await back.reply())["push"]["pub"]["data"] == "last"


async def test_a_reconnect_within_the_grace_shows_to_nobody() -> None:
    with RedisServer() as redis:
        graceful = settings(redis, presence_grace_s=4.0)
        gone: list[Any] = []
        async with (
            two_nodes(redis, graceful, graceful, disconnect=gone.append) as [(one, first), (two, second)],
            contextlib.AsyncExitStack() as stack,
        ):
            other = await watching(stack, second.port)
            dropped = await stack.enter_async_context(connected(first.port, sdk.token("ann")))
            await in_chat(dropped)
            assert "join" in (await other.reply())["push"]
            dropped.socket.writer.transport.abort()
            await until_gone(one.node)
            back = await stack.enter_async_context(unconnected(second.port))
            await enter(back, dropped.tokens[-1])
            await back.ask(command(2, "subscribe", channel="chat:a"))
            await asyncio.sleep(4.1)  # the grace of the first node
            assert {info.user for info in (await two.presence("chat:a")).values()} == {"ann", "ben"}
            await nothing_more(other, two)
            assert gone == []


async def test_a_reconnect_with_a_token_from_before_the_subscribe_announces_nothing() -> None:
    with RedisServer() as redis:
        graceful = settings(redis, presence_grace_s=4.0)
        async with (
            two_nodes(redis, graceful, graceful) as [(one, first), (two, second)],
            contextlib.AsyncExitStack() as stack,
        ):
            other = await watching(stack, second.port)
            dropped = await stack.enter_async_context(unconnected(first.port))
            reply = await enter(dropped, sdk.token("ann"))
            await dropped.ask(command(2, "subscribe", channel="chat:a"))
            assert "join" in (await other.reply())["push"]
            dropped.socket.writer.transport.abort()
            await until_gone(one.node)
            back = await stack.enter_async_context(unconnected(second.port))
            await enter(back, reply["connect"]["data"]["reconnect_token"])
            await back.ask(command(2, "subscribe", channel="chat:a"))
            await asyncio.sleep(4.1)  # the grace of the first node
            await nothing_more(other, two)


async def test_one_who_comes_back_later_leaves_and_joins() -> None:
    gone: list[Any] = []
    configured = settings(presence_grace_s=0.3)
    async with (
        sdk.live(configured, disconnect=gone.append) as (hub, server),
        contextlib.AsyncExitStack() as stack,
    ):
        other = await watching(stack, server.port)
        dropped = await stack.enter_async_context(connected(server.port, sdk.token("ann")))
        await in_chat(dropped)
        assert "join" in (await other.reply())["push"]
        dropped.socket.writer.transport.abort()
        assert (await other.reply())["push"]["leave"]["info"]["user"] == "ann"
        assert {info.user for info in (await hub.presence("chat:a")).values()} == {"ben"}
        async with asyncio.timeout(WAIT_S):
            while not gone:  # noqa: ASYNC110 - the handler runs in a thread
                await asyncio.sleep(0.01)
        assert [event.user for event in gone] == ["ann"]
        back = await stack.enter_async_context(unconnected(server.port))
        assert "connect" in await enter(back, dropped.tokens[-1])
        await back.ask(command(2, "subscribe", channel="chat:a"))
        assert (await other.reply())["push"]["join"]["info"]["user"] == "ann"


async def test_who_leaves_of_its_own_will_is_gone_at_once() -> None:
    configured = settings(presence_grace_s=60)
    async with (
        sdk.live(configured) as (hub, server),
        contextlib.AsyncExitStack() as stack,
    ):
        other = await watching(stack, server.port)
        async with sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _):
            await sdk.subscribe(client, "chat:a")
            assert "join" in (await other.reply())["push"]
        assert (await other.reply())["push"]["leave"]["info"]["user"] == "ann"
        assert hub.node.sessions.in_grace == 0


async def test_a_node_that_ends_says_who_is_gone() -> None:
    with RedisServer() as redis:
        graceful = settings(redis, presence_grace_s=60)
        async with sdk.live(graceful) as (_, second), contextlib.AsyncExitStack() as stack:
            other = await watching(stack, second.port)
            async with sdk.live(graceful) as (one, first), connected(first.port, sdk.token("ann")) as dropped:
                await in_chat(dropped)
                assert "join" in (await other.reply())["push"]
                dropped.socket.writer.transport.abort()
                await until_gone(one.node)
            assert (await other.reply())["push"]["leave"]["info"]["user"] == "ann"


# What a backend takes away


async def test_whose_sessions_were_ended_does_not_come_back_by_token() -> None:
    with RedisServer() as redis:
        async with (
            two_nodes(redis) as [(one, first), (two, second)],
            reconnect_token(first.port) as away,
            connected(second.port, sdk.token("ann")) as there,
        ):
            await one.disconnect("ann", revoke=True)
            assert (await there.closed())[0] == 3503
            for port in (first.port, second.port):
                async with unconnected(port) as peer:
                    assert (await enter(peer, away))["error"]["code"] == 109
            async with connected(first.port, sdk.token("ann")):
                pass
            assert outcomes(one, two) == {"revoked": 2}


@pytest.mark.parametrize("by", ["client", "session"])
async def test_one_session_of_several_is_ended(by: str) -> None:
    async with sdk.live(settings()) as (hub, server), contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(unconnected(server.port)) for _ in range(2)]
        ended, stays = [(await enter(peer, sdk.token("ann")))["connect"] for peer in peers]
        request = api.DisconnectRequest(user="ann", revoke=True, **{by: ended[by]})
        await hub.request("disconnect", request)
        assert (await peers[0].closed())[0] == 3503
        for connect, taken in ((ended, False), (stays, True)):
            async with unconnected(server.port) as peer:
                reply = await enter(peer, connect["data"]["reconnect_token"])
                assert ("connect" in reply) == taken


async def test_a_channel_that_a_backend_took_away_does_not_come_back() -> None:
    with RedisServer() as redis:
        login = sdk.token("ann", channels=["own:a"])
        async with (
            two_nodes(redis) as [(one, first), (_, second)],
            reconnect_token(first.port, login) as token,
        ):
            await one.request("unsubscribe", api.UnsubscribeRequest(channel="own:a", user="ann"))
            async with unconnected(second.port) as peer:
                assert (await enter(peer, token))["error"]["code"] == 109


@pytest.mark.parametrize(
    ("end", "taken"), [({"expired": True}, False), ({"expire_at": 1}, False), ({}, True)]
)
async def test_an_end_that_a_backend_brought_nearer_holds_for_tokens(
    end: dict[str, Any], taken: bool
) -> None:
    async with sdk.live(settings()) as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        [connection] = hub.node.connections
        connection.run(connection.session.renew(hub.node.loop.time()))
        await peer.ask(command(2, "ping"))
        await hub.request("refresh", api.RefreshRequest(user="ann", **end))
        async with unconnected(server.port) as back:
            assert ("connect" in await enter(back, peer.tokens[0])) == taken


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


@pytest.mark.parametrize(
    ("options", "is_warned"),
    [
        ({"history_size": 10, "history_ttl_s": 60}, True),
        ({"history_size": 10, "history_ttl_s": 60, "force_positioning": True}, True),
        ({"history_size": 10, "history_ttl_s": 60, "force_recovery": True}, False),
        ({"presence": True}, False),
    ],
)
async def test_a_personal_channel_whose_history_is_not_recovered_is_warned_of(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], is_warned: bool
) -> None:
    configured = sdk.settings({"user_personal_channel": "me:#{user}"}, channels={"me": options})
    async with sdk.live(configured):
        pass
    assert ("channel.personal_not_recovered" in caplog.text) == is_warned


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


async def until(hub: Hub, state: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while hub.node.state != state:  # noqa: ASYNC110 - of the node's own
            await asyncio.sleep(0.05)


async def test_with_redis_away_tokens_are_taken_and_counted(caplog: pytest.LogCaptureFixture) -> None:
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
            await until(two, "degraded")
            async with contextlib.AsyncExitStack() as crowd:
                peers = [await crowd.enter_async_context(unconnected(second.port)) for _ in tokens]
                replies = await asyncio.gather(*map(enter, peers, tokens))
                tokens = [reply["connect"]["data"]["reconnect_token"] for reply in replies]
            assert outcomes(one, two) == {"unchecked": 50}
            assert caplog.text.count("broker.failed") <= 1, "that Redis is away is said once"
            redis.start()
            await until(two, "healthy")
            async with unconnected(second.port) as peer:
                assert "connect" in await enter(peer, tokens[0])
            assert outcomes(two) == {"unchecked": 50, "resumed": 1}
