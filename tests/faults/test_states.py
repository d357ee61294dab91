"""States that come and go: a hub says the truth about them, and makes up for what a state dropped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from support import sdk
from support.faults import count, pinging, serving, serving_hub, shorten, until
from support.limits import WAIT_S
from support.nodes import Nodes, call, client, settings, two_nodes
from support.peer import Peer, command, connected, unconnected
from support.rawws import HandshakeError
from support.redis import RedisServer

from hub import Hub, HubError
from hub.protocol.codes import Disconnects, Unsubscribes
from hub.settings import Settings

LAG_S = 1.0


@pytest.fixture(params=["memory", "redis"])
def configured(request: pytest.FixtureRequest) -> Iterable[Settings]:
    """Settings of a hub over each broker."""
    if request.param == "memory":
        yield settings()
    else:
        with RedisServer() as redis:
            yield settings(redis.url)


async def subscribe(peer: Peer, channel: str, number: int = 2, **fields: Any) -> dict[str, Any]:
    """Subscribe, and return the result."""
    [reply] = await peer.ask(command(number, "subscribe", channel=channel, **fields))
    result: dict[str, Any] = reply["subscribe"]
    return result


def keys(redis: RedisServer, channel: str, suffix: str = "") -> list[bytes]:
    """The keys of a channel in Redis."""
    found: list[bytes] = redis.call("KEYS", f"*{{{channel}}}{suffix or '*'}")
    return found


# Overload


async def watch(stack: contextlib.AsyncExitStack, port: int, channel: str) -> Peer:
    """A client that is told who joins and leaves a channel; its own join has come."""
    watcher = await stack.enter_async_context(connected(port, sdk.token("watcher")))
    await subscribe(watcher, channel, join_leave=True)
    assert (await watcher.reply())["push"]["join"]["info"]["user"] == "watcher"
    return watcher


async def events_until(watcher: Peer, hub: Hub, channel: str) -> list[tuple[str, str]]:
    """The joins and leaves that came before a publication that is made now, each with its user."""
    await hub.publish(channel, "end of the events")
    events: list[tuple[str, str]] = []
    while "pub" not in (push := (await watcher.reply())["push"]):
        [kind] = push.keys() & {"join", "leave"}
        events.append((kind, push[kind]["info"]["user"]))
    return events


async def test_one_pause_is_no_overload_and_drops_no_join() -> None:
    async with (
        serving(sdk.settings(server={"lag_max_s": LAG_S})) as (hub, server),
        contextlib.AsyncExitStack() as stack,
    ):
        watcher = await watch(stack, server.port, "chat:a")
        await asyncio.sleep(0.3)  # the monitor has measured a quiet loop
        time.sleep(3.2 * LAG_S)  # noqa: ASYNC251 - the pause, as of a stopped process
        ben = await stack.enter_async_context(connected(server.port, sdk.token("ben")))
        await subscribe(ben, "chat:a")
        assert (await watcher.reply())["push"]["join"]["info"]["user"] == "ben"
        await asyncio.sleep(0.3)
        assert count(hub, "hub_load_step") == 0
        assert hub.node.state == "healthy"


@contextlib.asynccontextmanager
async def overloaded(hub: Hub) -> AsyncIterator[None]:
    """Hold up the event loop until the node is overloaded, and for as long as the block lasts."""

    async def hold_up() -> None:
        while True:
            time.sleep(0.5)  # noqa: ASYNC251 - this is the load
            await asyncio.sleep(0)

    task = asyncio.create_task(hold_up())
    try:
        await until(lambda: count(hub, "hub_load_step") >= 1, "the node is overloaded")
        yield
    finally:
        task.cancel()


async def test_joins_and_leaves_that_an_overload_dropped_are_made_up_for() -> None:
    async with (
        serving(sdk.settings(server={"lag_max_s": 0.2})) as (hub, server),
        contextlib.AsyncExitStack() as stack,
    ):
        watcher = await watch(stack, server.port, "chat:a")
        peers = {
            user: await stack.enter_async_context(connected(server.port, sdk.token(user)))
            for user in ("joins", "leaves", "stays", "visits")
        }
        for user in ("leaves", "stays"):
            await subscribe(peers[user], "chat:a")
            assert (await watcher.reply())["push"]["join"]["info"]["user"] == user
        async with overloaded(hub):
            await call(hub, "subscribe", user="joins", channel="chat:a")
            await call(hub, "unsubscribe", user="leaves", channel="chat:a")
            await call(hub, "subscribe", user="visits", channel="chat:a")
            await call(hub, "unsubscribe", user="visits", channel="chat:a")
        await until(lambda: count(hub, "hub_load_step") == 0, "the overload ends")
        await asyncio.sleep(0.2)
        events = await events_until(watcher, hub, "chat:a")
        assert events.count(("join", "joins")) == 1, events
        assert events.count(("leave", "leaves")) == 1, events
        assert not [event for event in events if event[1] == "stays"], events
        assert [kind for kind, user in events if user == "visits"] in ([], ["join", "leave"]), events


async def test_a_redis_that_refuses_writes_makes_the_hub_degraded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with RedisServer() as redis:
        async with serving(settings(redis.url)) as (hub, server), connected(server.port, sdk.token("ann")):
            assert hub.node.state == "healthy"
            redis.calls(
                [("CONFIG", "SET", "maxmemory-policy", "noeviction"), ("CONFIG", "SET", "maxmemory", 1)]
            )
            await until(lambda: hub.node.state == "degraded", "the state is degraded")
            assert "OOM" in caplog.text, "the reason is logged"
            redis.call("CONFIG", "SET", "maxmemory", 0)
            await until(lambda: hub.node.state == "healthy", "the state is healthy again")
            await hub.publish("chat:a", 1)


# Several lives of one hub


async def live_once(hub: Hub) -> int:
    """Serve a hub, publish, drain, and stop it.

    Returns:
        The offset of the publication.
    """
    async with serving_hub(hub) as server, connected(server.port, sdk.token("ann")) as ann:
        await until(lambda: hub.node.state == "healthy", "the hub is healthy")
        await subscribe(ann, "chat:a")
        position = await hub.publish("chat:a", "hello")
        assert (await ann.reply())["push"]["pub"]["data"] == "hello"
        async with asyncio.timeout(WAIT_S):
            await hub.drain(0.0)
        assert (await ann.closed())[0] == Disconnects.SHUTDOWN.code
        assert hub.node.state == "draining"
    return position.offset


def test_each_life_of_a_hub_starts_from_a_clean_state() -> None:
    """Each life has an event loop of its own, as in an app whose tests start it again and again."""
    hub = Hub(settings())
    assert [asyncio.run(live_once(hub)) for _ in range(3)] == [1, 1, 1], "history of the life before is there"


def test_each_life_of_a_hub_over_redis_works() -> None:
    with RedisServer() as redis:
        hub = Hub(settings(redis.url))
        assert [asyncio.run(live_once(hub)) for _ in range(3)] == [1, 2, 3]


async def test_a_hub_that_was_stopped_refuses_calls_until_it_starts_again() -> None:
    hub = Hub(settings())
    for _ in range(2):
        async with hub.lifespan():
            await hub.publish("chat:a", 1)
        with pytest.raises(HubError, match="not running"):
            await hub.publish("chat:a", 1)


# Calls from another event loop


CALLS: dict[str, Callable[[Hub], Awaitable[Any]]] = {
    "publish": lambda hub: hub.publish("chat:a", "from a thread"),
    "presence": lambda hub: hub.presence("chat:a"),
    "disconnect": lambda hub: hub.disconnect("ann"),
    "request": lambda hub: call(hub, "subscribe", user="ann", channel="chat:b"),
    "drain": lambda hub: hub.drain(0.0),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_from_another_event_loop_is_refused_before_it_does_anything(
    name: str, configured: Settings
) -> None:
    async with serving(configured) as (hub, server), connected(server.port, sdk.token("ann")) as ann:
        await subscribe(ann, "chat:a")

        async def in_thread() -> None:
            await CALLS[name](hub)

        with pytest.raises((RuntimeError, HubError), match="thread"):
            await asyncio.to_thread(asyncio.run, in_thread())
        assert (await hub.publish("chat:a", "next")).offset == 1
        assert (await ann.reply())["push"]["pub"]["data"] == "next"
        assert hub.node.state == "healthy"


# A history that cannot be read


def spoil(redis: RedisServer, channel: str, kind: str) -> None:
    """Spoil the history of a channel in Redis.

    Args:
        kind: `foreign`: another program appended an entry. `unreadable`: the body of each entry is garbage.
            `wrong type`: the key of the stream holds something else.
    """
    [stream] = [key for key in keys(redis, channel) if redis.call("TYPE", key) == b"stream"]
    if kind == "foreign":
        redis.call("XADD", stream, "*", "foreign", "field")
        return
    entries = redis.call("XRANGE", stream, "-", "+")
    redis.call("DEL", stream)
    if kind == "wrong type":
        redis.call("SET", stream, "x")
        return
    for entry, fields in entries:
        redis.call("XADD", stream, entry, fields[0], b"\xc1garbage")


async def readable(peer: Peer, channel: str, hub: Hub) -> list[Any]:
    """Publish now and then, and read a subscriber until it gets a publication that came after this call.

    A subscriber that is told that its position is lost (2500) subscribes again, as an SDK does.

    Returns:
        The payloads that came, `None` where the subscriber was told.
    """
    came: list[Any] = []
    begun = asyncio.Event()

    async def publish() -> None:
        number = 0
        while True:
            with contextlib.suppress(HubError):
                await hub.publish(channel, f"later {number}")
            number += 1
            await asyncio.sleep(0.1)

    task = asyncio.create_task(publish())
    try:
        async with asyncio.timeout(WAIT_S):
            while not begun.is_set():
                push = (await peer.reply()).get("push", {})
                if "unsubscribe" in push:
                    assert push["unsubscribe"]["code"] == Unsubscribes.INSUFFICIENT_STATE.code
                    came.append(None)
                    peer.send(command(9, "subscribe", channel=channel, recoverable=True))
                elif "pub" in push:
                    came.append(push["pub"]["data"])
                    if str(push["pub"]["data"]).startswith("later"):
                        begun.set()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return came


@pytest.mark.parametrize("kind", ["foreign", "unreadable"])
async def test_a_channel_with_an_unreadable_entry_goes_on_after_a_gap(kind: str) -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await subscribe(ann, "chat:poison", recoverable=True)
        await subscribe(ann, "chat:sound", 3, recoverable=True)
        await nodes.one.publish("chat:poison", 1)
        assert (await ann.reply())["push"]["pub"]["data"] == 1
        await nodes.break_link()
        await nodes.one.publish("chat:poison", 2)
        await nodes.one.publish("chat:sound", "missed")
        spoil(nodes.redis, "chat:poison", kind)
        await nodes.restore_link()
        await nodes.one.publish("chat:sound", "live")
        sound: list[Any] = []
        told = False
        while len(sound) < 2:
            push = (await ann.reply())["push"]
            if push["channel"] == "chat:sound":
                sound.append(push["pub"]["data"])
            else:
                told = told or "unsubscribe" in push
        assert sound == ["missed", "live"]
        if told:
            await subscribe(ann, "chat:poison", 8, recoverable=True)
        came = await readable(ann, "chat:poison", nodes.one)
        assert told or 2 in came or None in came, f"publication 2 was skipped silently: {came}"
        await new_subscriber_is_answered(nodes)


async def new_subscriber_is_answered(nodes: Nodes) -> None:
    """A client that subscribes to the spoiled channel gets an answer, and other channels work."""
    async with connected(nodes.second.port, sdk.token("ben")) as ben:
        async with asyncio.timeout(WAIT_S):
            [reply] = await ben.ask(command(2, "subscribe", channel="chat:poison", recoverable=True))
        assert "subscribe" in reply or "error" in reply, reply
        assert "recoverable" in await subscribe(ben, "chat:other", 3, recoverable=True)
        await nodes.one.publish("chat:other", "next")
        while "pub" not in (push := (await ben.reply()).get("push", {})) or push["channel"] != "chat:other":
            pass
        assert push["pub"]["data"] == "next"


async def test_a_channel_whose_history_has_another_type_harms_no_other_channel() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await subscribe(ann, "chat:poison", recoverable=True)
        await nodes.one.publish("chat:poison", 1)
        await nodes.break_link()
        await nodes.one.publish("chat:poison", 2)
        spoil(nodes.redis, "chat:poison", "wrong type")
        await nodes.restore_link()
        await new_subscriber_is_answered(nodes)
        while "unsubscribe" not in (push := (await ann.reply())["push"]):
            pass
        assert push["channel"] == "chat:poison"
        assert push["unsubscribe"]["code"] == Unsubscribes.INSUFFICIENT_STATE.code


# A node with many channels


async def test_a_broken_link_reads_only_the_channels_that_missed_something() -> None:
    """The node compares positions first: a busy machine never ends a history read for each channel."""
    clients, channels = 20, 60
    with RedisServer() as redis:
        async with contextlib.AsyncExitStack() as stack:
            hub, server = await stack.enter_async_context(serving(settings(redis.url)))
            other, _ = await stack.enter_async_context(serving(settings(redis.url)))
            pinger = await stack.enter_async_context(pinging(server.port))
            peers = []
            for number in range(clients):
                peer = await stack.enter_async_context(connected(server.port, sdk.token(f"user-{number}")))
                names = [f"news:{number}-{n}" for n in range(channels)]
                replies = await peer.ask(
                    *(command(2 + n, "subscribe", channel=name) for n, name in enumerate(names))
                )
                assert not any("error" in reply for reply in replies)
                peers.append(peer)
            before = calls_of(redis, "xrange") + calls_of(redis, "xrevrange")
            pinger.restart()
            redis.call("CLIENT", "KILL", "TYPE", "pubsub")
            for number in range(0, clients, 4):
                await other.publish(f"news:{number}-0", "missed")
            for number in range(clients):
                if number % 4 == 0:
                    assert (await peers[number].reply())["push"]["pub"]["data"] == "missed"
            await until(lambda: hub.node.state == "healthy", "the node is whole")
            for number in range(clients):
                await other.publish(f"news:{number}-1", "live")
                assert (await peers[number].reply())["push"]["pub"]["data"] == "live"
            reads = calls_of(redis, "xrange") + calls_of(redis, "xrevrange") - before
            assert reads <= 3 * clients, f"{reads} reads of history for {clients * channels} channels"
            assert max(pinger.waits) < 0.5


def calls_of(redis: RedisServer, name: str) -> int:
    """How often a Redis ran a command, in scripts too."""
    for line in redis.call("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{name}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


async def test_a_short_queue_that_moves_refuses_nobody() -> None:
    """As many clients as ever connect at a time, each taking a while, for longer than a crowd may stand."""
    at_once, seconds = 32, 4.5

    def decide(event: Any) -> None:
        time.sleep(0.005)  # the work of a connect, and of the subscribes after it

    async with serving(sdk.settings(), connect=decide) as (hub, server):
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        refused: list[int] = []
        connects = 0

        async def come_and_go() -> None:
            nonlocal connects
            while loop.time() < end:
                try:
                    async with connected(server.port, sdk.token("ann")):
                        connects += 1
                except HandshakeError as exc:
                    refused.append(exc.status)

        await asyncio.gather(*(come_and_go() for _ in range(at_once)))
        assert refused == [], f"{len(refused)} refused beside {connects} connects"
        assert count(hub, "hub_refusals_total") == 0
        assert connects > at_once


# Positions


async def lose_position(redis: RedisServer, hub: Hub, channel: str) -> None:
    """Lose a channel's data in Redis, and publish: the position of every subscriber is void."""
    redis.call("DEL", *keys(redis, channel))
    await hub.publish(channel, "in another epoch")


async def token_channel(nodes: Nodes, stack: contextlib.AsyncExitStack) -> Peer:
    token = sdk.token("ann", channels=["own:a"])
    return await stack.enter_async_context(connected(nodes.second.port, token))


async def api_subscription(nodes: Nodes, stack: contextlib.AsyncExitStack) -> Peer:
    ann = await stack.enter_async_context(connected(nodes.second.port, sdk.token("ann")))
    await call(nodes.one, "subscribe", user="ann", channel="own:a")
    assert (await ann.reply())["push"]["channel"] == "own:a"
    return ann


@pytest.mark.parametrize("made_by", [token_channel, api_subscription], ids=["the token", "the API"])
async def test_a_server_side_subscription_that_loses_its_position_closes_the_connection(
    made_by: Callable[[Nodes, contextlib.AsyncExitStack], Awaitable[Peer]],
) -> None:
    async with two_nodes() as nodes, contextlib.AsyncExitStack() as stack:
        ann = await made_by(nodes, stack)
        await nodes.one.publish("own:a", 1)
        assert (await ann.reply())["push"]["pub"]["data"] == 1
        await lose_position(nodes.redis, nodes.one, "own:a")
        code, _ = await ann.closed()
        assert code == Disconnects.INSUFFICIENT_STATE.code


async def test_a_personal_channel_that_loses_its_position_closes_the_connection() -> None:
    async with (
        two_nodes(client={"user_personal_channel": "own:#{user}"}) as nodes,
        client(nodes.second.port) as (ann, connect),
    ):
        [channel] = connect["subs"]
        await nodes.one.publish(channel, 1)
        assert (await ann.reply())["push"]["pub"]["data"] == 1
        await lose_position(nodes.redis, nodes.one, channel)
        assert (await ann.closed())[0] == Disconnects.INSUFFICIENT_STATE.code


async def test_a_subscription_of_the_client_that_loses_its_position_is_told_and_stays_connected() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await subscribe(ann, "news:a")
        await nodes.one.publish("news:a", 1)
        assert (await ann.reply())["push"]["pub"]["data"] == 1
        await lose_position(nodes.redis, nodes.one, "news:a")
        push = (await ann.reply())["push"]
        assert push["unsubscribe"]["code"] == Unsubscribes.INSUFFICIENT_STATE.code
        [pong] = await ann.ask(command(5, "ping"))
        assert pong["id"] == 5


async def test_an_sdk_gets_later_publications_after_a_server_side_subscription_lost_its_position() -> None:
    async with (
        two_nodes() as nodes,
        sdk.client(nodes.second.websocket_url, token=sdk.token("ann", channels=["own:a"])) as (_, events),
    ):
        await events.count("connected", 1)
        await nodes.one.publish("own:a", 1)
        await events.count("publication", 1)
        await lose_position(nodes.redis, nodes.one, "own:a")
        await events.count("connected", 2)
        await nodes.one.publish("own:a", "later")
        await until(lambda: events.data[-1:] == ["later"], "the later publication arrives")


async def test_a_node_keeps_the_position_of_a_silent_channel_that_it_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten(monkeypatch, "COMPARE_PERIOD_S", 0.2)
    async with two_nodes() as nodes, client(nodes.second.port, channels=["own:a"]) as (ann, _):
        await subscribe(ann, "news:a")
        for channel in ("own:a", "news:a"):
            await nodes.one.publish(channel, 1)
            assert (await ann.reply())["push"]["pub"]["offset"] == 1
        names = [key for channel in ("own:a", "news:a") for key in keys(nodes.redis, channel, ".m")]
        assert len(names) == 2
        for name in names:
            nodes.redis.call("PEXPIRE", name, 5_000)
        await until(
            lambda: all(nodes.redis.call("PTTL", name) > 60_000 for name in names),
            "the node renews the time to live of each position",
            4.5,
        )
        for channel in ("own:a", "news:a"):
            await nodes.one.publish(channel, 2)
            assert (await ann.reply())["push"]["pub"]["offset"] == 2


# Joins and leaves of clients that come back


@pytest.mark.parametrize("back_on", ["the same node", "another node"])
async def test_a_client_that_loses_its_connection_right_after_a_subscribe_and_returns_shows_to_nobody(
    back_on: str,
) -> None:
    grace_s = 1.0
    async with two_nodes(grace_s=grace_s) as nodes, contextlib.AsyncExitStack() as stack:
        watcher = await watch(stack, nodes.first.port, "chat:a")
        async with client(nodes.second.port) as (ann, connect):
            await subscribe(ann, "chat:a")
            assert (await watcher.reply())["push"]["join"]["info"]["user"] == "ann"
        port = nodes.second.port if back_on == "the same node" else nodes.first.port
        back = await stack.enter_async_context(unconnected(port))
        [reply] = await back.ask(command(1, "connect", token=connect["data"]["reconnect_token"]))
        assert reply["connect"]["client"] == connect["client"]
        await subscribe(back, "chat:a")
        await asyncio.sleep(grace_s + 0.5)
        assert await events_until(watcher, nodes.one, "chat:a") == []
        users = [info.user for info in (await nodes.one.presence("chat:a")).values()]
        assert sorted(users) == ["ann", "watcher"]


@pytest.mark.parametrize("returns", [False, True], ids=["never", "without the channel"])
async def test_a_client_that_does_not_return_to_the_channel_leaves_once(returns: bool) -> None:
    grace_s = 0.5
    async with two_nodes(grace_s=grace_s) as nodes, contextlib.AsyncExitStack() as stack:
        watcher = await watch(stack, nodes.first.port, "chat:a")
        async with client(nodes.second.port) as (ann, connect):
            await subscribe(ann, "chat:a")
            assert (await watcher.reply())["push"]["join"]["info"]["user"] == "ann"
        if returns:
            back = await stack.enter_async_context(unconnected(nodes.second.port))
            [reply] = await back.ask(command(1, "connect", token=connect["data"]["reconnect_token"]))
            assert "connect" in reply
            await back.ask(command(2, "ping"))
            await asyncio.sleep(grace_s)
            back.socket.writer.transport.abort()
        assert (await watcher.reply())["push"]["leave"]["info"]["user"] == "ann"
        await asyncio.sleep(grace_s + 0.5)
        assert await events_until(watcher, nodes.one, "chat:a") == []
