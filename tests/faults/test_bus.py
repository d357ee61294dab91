"""Messages between nodes: a command that was confirmed takes effect, and odd messages do no harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from support import sdk
from support.dialects import DIALECTS, Speaker, speaking
from support.faults import count, serving, until
from support.limits import WAIT_S
from support.nodes import Nodes, call, client, settings, two_nodes
from support.peer import command, connected, unconnected
from support.redis import RedisServer

from hub import Hub, RequestError
from hub.protocol.codes import Disconnects, Unsubscribes


def applied(hub: Hub) -> float:
    """How many messages of the bus a node has applied."""
    return count(hub, "hub_bus_messages_total", outcome="applied")


def odd(hub: Hub) -> float:
    """How many messages of the bus a node has ignored because it does not know them."""
    unknown = count(hub, "hub_bus_messages_total", outcome="unknown")
    return unknown + count(hub, "hub_bus_messages_total", outcome="unreadable")


# The reply says what is confirmed


COMMANDS: dict[str, dict[str, Any]] = {
    "disconnect": {"user": "ann"},
    "unsubscribe": {"user": "ann", "channel": "chat:a"},
    "subscribe": {"user": "ann", "channel": "chat:a"},
    "refresh": {"user": "ann", "expired": True},
}


def confirmation(result: dict[str, Any]) -> tuple[bool, dict[str, int]]:
    """What a result says of the nodes that confirmed the command."""
    return result["confirmed"], result["nodes"]


async def test_a_command_that_every_node_applied_is_confirmed() -> None:
    headers = {"X-API-Key": sdk.API_KEY}
    async with (
        two_nodes() as nodes,
        httpx.AsyncClient(base_url=nodes.first.url, headers=headers, timeout=WAIT_S) as http,
    ):
        for method, fields in COMMANDS.items():
            result = await call(nodes.one, method, **fields)
            assert confirmation(result) == (True, {"confirmed": 2, "total": 2}), method
            response = await http.post(f"/api/{method}", json=fields)
            result = response.json()["result"]
            assert confirmation(result) == (True, {"confirmed": 2, "total": 2}), method


async def test_a_command_on_a_hub_of_one_process_is_confirmed() -> None:
    async with serving(settings()) as (hub, _):
        for method, fields in COMMANDS.items():
            result = await call(hub, method, **fields)
            assert confirmation(result) == (True, {"confirmed": 1, "total": 1}), method


@pytest.mark.parametrize("kind", ["refused", "silent"])
async def test_a_command_that_a_node_cannot_hear_is_not_confirmed(kind: str) -> None:
    async with two_nodes() as nodes:
        await nodes.break_link(kind)
        async with asyncio.timeout(WAIT_S):
            results = await asyncio.gather(
                *(call(nodes.one, method, **fields) for method, fields in COMMANDS.items())
            )
        for method, result in zip(COMMANDS, results, strict=True):
            assert confirmation(result) == (False, {"confirmed": 1, "total": 2}), method


async def test_disconnect_returns_whether_it_is_confirmed() -> None:
    async with two_nodes() as nodes:
        disconnect: Any = nodes.one.disconnect
        answer = await disconnect("ann", revoke=True)
        assert answer.confirmed is True
        assert msgspec.to_builtins(answer.nodes) == {"confirmed": 2, "total": 2}
        await nodes.break_link()
        answer = await disconnect("ann", revoke=True)
        assert answer.confirmed is False
        assert msgspec.to_builtins(answer.nodes) == {"confirmed": 1, "total": 2}


async def test_a_command_that_is_not_in_the_log_fails() -> None:
    """The node that is asked has lost its own link: it cannot say "done"."""
    async with two_nodes() as nodes:
        await nodes.break_link()
        for method, fields in COMMANDS.items():
            with pytest.raises(RequestError):
                await call(nodes.two, method, **fields)


# A node catches up on what it missed


@pytest.mark.parametrize("kind", ["refused", "silent"])
async def test_a_user_revoked_while_a_node_cannot_hear_is_disconnected_there_afterwards(kind: str) -> None:
    async with (
        two_nodes() as nodes,
        client(nodes.second.port) as (ann, connect),
        client(nodes.second.port, "ben") as (ben, _),
    ):
        await nodes.break_link(kind)
        await nodes.one.disconnect("ann", revoke=True)
        await nodes.restore_link()
        assert (await ann.closed())[0] == Disconnects.FORCE_NO_RECONNECT.code
        for port in (nodes.first.port, nodes.second.port):
            async with unconnected(port) as back:
                assert (
                    await back.error(command(1, "connect", token=connect["data"]["reconnect_token"])) == 109
                )
        [pong] = await ben.ask(command(2, "ping"))
        assert pong["id"] == 2


async def test_a_revoked_token_that_a_node_took_while_it_could_not_know_is_ended_afterwards() -> None:
    async with two_nodes() as nodes:
        async with client(nodes.second.port) as (_, connect):
            token = connect["data"]["reconnect_token"]
        await nodes.break_link()
        await nodes.one.disconnect("ann", revoke=True)
        async with unconnected(nodes.second.port) as back:
            [reply] = await back.ask(command(1, "connect", token=token))
            if "connect" in reply:
                await nodes.restore_link()
                code = (await back.closed())[0]
                assert code in (Disconnects.FORCE_NO_RECONNECT.code, Disconnects.EXPIRED.code)
            else:
                assert reply["error"]["code"] in (100, 109)


async def test_an_unsubscribe_while_a_node_cannot_hear_takes_effect_afterwards() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        [joined] = await ann.ask(command(2, "subscribe", channel="plain:a"))
        assert "subscribe" in joined
        await nodes.break_link()
        await call(nodes.one, "unsubscribe", user="ann", channel="plain:a")
        await nodes.restore_link()
        push = (await ann.reply())["push"]
        assert push["channel"] == "plain:a"
        assert push["unsubscribe"]["code"] == Unsubscribes.SERVER.code


async def test_a_subscribe_while_a_node_cannot_hear_takes_effect_once() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await nodes.break_link()
        before = applied(nodes.two)
        await call(nodes.one, "subscribe", user="ann", channel="plain:a")
        await nodes.restore_link()
        push = (await ann.reply())["push"]
        assert (push["channel"], "subscribe" in push) == ("plain:a", True)
        await nodes.one.publish("plain:a", "next")
        assert (await ann.reply())["push"]["pub"]["data"] == "next", "the subscription was made once"
        assert applied(nodes.two) == before + 1


async def test_a_refresh_while_a_node_cannot_hear_takes_effect_afterwards() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await nodes.break_link()
        await call(nodes.one, "refresh", user="ann", expired=True)
        await nodes.restore_link()
        assert (await ann.closed())[0] == Disconnects.EXPIRED.code


async def test_a_session_that_moved_while_a_node_cannot_hear_ends_there_afterwards() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, connect):
        await ann.ask(command(2, "ping"))
        await nodes.break_link()
        async with unconnected(nodes.first.port) as thief:
            [reply] = await thief.ask(command(1, "connect", token=connect["data"]["reconnect_token"]))
            assert "connect" in reply
            await nodes.restore_link()
            assert (await ann.closed())[0] == Disconnects.STATE_INVALIDATED.code


async def test_a_session_stays_on_its_newest_node_when_word_of_an_older_one_comes_late() -> None:
    """The client resumes on a node whose link is broken, and then, with its new token, on the other."""
    async with two_nodes() as nodes:
        async with client(nodes.first.port) as (ann, connect):
            await ann.ask(command(2, "ping"))
        await nodes.break_link()
        async with unconnected(nodes.second.port) as ann:
            token = connect["data"]["reconnect_token"]
            [second, _] = await ann.ask(command(1, "connect", token=token), command(2, "ping"))
            token = second["connect"]["data"]["reconnect_token"]
        async with unconnected(nodes.first.port) as ann:
            [third, _] = await ann.ask(command(1, "connect", token=token), command(2, "ping"))
            assert "connect" in third
            before = applied(nodes.one)
            await nodes.restore_link()
            await until(lambda: applied(nodes.one) > before, "the late message arrives")
            [pong] = await ann.ask(command(3, "ping"))
            assert pong["id"] == 3
        async with client(nodes.second.port, "ben"), unconnected(nodes.second.port) as ann:
            token = third["connect"]["data"]["reconnect_token"]
            [fourth] = await ann.ask(command(1, "connect", token=token))
            assert "connect" in fourth, "the session goes on"


async def test_a_stolen_session_that_ended_while_a_node_cannot_hear_ends_there_afterwards() -> None:
    async with two_nodes() as nodes:
        async with client(nodes.first.port) as (owner, connect):
            await owner.ask(command(2, "ping"))
            token = connect["data"]["reconnect_token"]
        async with unconnected(nodes.second.port) as thief:
            [taken, _] = await thief.ask(command(1, "connect", token=token), command(2, "ping"))
            assert "connect" in taken
            await nodes.break_link()
            async with unconnected(nodes.first.port) as owner:
                assert await owner.error(command(1, "connect", token=token)) == 109
            await nodes.restore_link()
            assert (await thief.closed())[0] == Disconnects.STATE_INVALIDATED.code


async def test_history_removed_while_a_node_cannot_hear_is_not_recovered_there_afterwards() -> None:
    """The second node keeps recent publications of the channel in its replay buffer."""
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        position = await nodes.one.publish("news:a", 0)
        [joined] = await ann.ask(command(2, "subscribe", channel="news:a"))
        assert "subscribe" in joined
        for number in range(1, 4):
            await nodes.one.publish("news:a", number)
            assert (await ann.reply())["push"]["pub"]["data"] == number
        await nodes.break_link()
        await call(nodes.one, "history_remove", channel="news:a")
        await nodes.restore_link()
        async with client(nodes.second.port, "ben") as (ben, _):
            since = {"recover": True, "epoch": position.epoch, "offset": position.offset}
            [reply] = await ben.ask(command(2, "subscribe", channel="news:a", **since))
            result = reply["subscribe"]
            assert (result.get("recovered", False), result.get("publications", [])) == (False, [])


async def test_many_commands_are_applied_once_and_in_order() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await nodes.break_link()
        before = applied(nodes.two)
        for _ in range(3):
            await call(nodes.one, "subscribe", user="ann", channel="plain:a")
            await call(nodes.one, "unsubscribe", user="ann", channel="plain:a")
        await call(nodes.one, "subscribe", user="ann", channel="plain:b")
        await nodes.restore_link()
        pushes = [(await ann.reply())["push"] for _ in range(7)]
        kinds = ["subscribe" if "subscribe" in push else "unsubscribe" for push in pushes]
        # A subscription takes its time, and another channel does not wait for it.
        of_one = [kind for kind, push in zip(kinds, pushes, strict=True) if push["channel"] == "plain:a"]
        assert of_one == ["subscribe", "unsubscribe"] * 3
        assert applied(nodes.two) == before + 7


async def test_a_command_over_a_sound_link_is_applied_once() -> None:
    """The message comes over the bus, and is in the log as well."""
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        before = applied(nodes.two)
        for number in range(5):
            await call(nodes.one, "subscribe", user="ann", channel=f"plain:{number}")
            assert (await ann.reply())["push"]["channel"] == f"plain:{number}"
        assert applied(nodes.two) == before + 5
        await nodes.break_link()
        await nodes.restore_link()
        await nodes.one.publish("plain:0", "next")
        assert (await ann.reply())["push"]["pub"]["data"] == "next"
        assert applied(nodes.two) == before + 5


async def test_a_node_that_starts_does_not_apply_old_commands() -> None:
    with RedisServer() as redis:
        async with serving(settings(redis.url)) as (one, _):
            await one.disconnect("ann", revoke=True)
            await call(one, "subscribe", user="ann", channel="plain:a")
        async with (
            serving(settings(redis.url)) as (two, second),
            client(second.port) as (ann, _),
        ):
            [pong] = await ann.ask(command(2, "ping"))
            assert pong["id"] == 2
            assert applied(two) == 0
            await call(two, "subscribe", user="ann", channel="plain:b")
            assert (await ann.reply())["push"]["channel"] == "plain:b"


# Messages that are not the hub's


GARBAGE: dict[str, bytes] = {
    "an unknown type in JSON": b'{"type":"newword","node":"z"}',
    "an unknown type in MessagePack": msgpack.packb({"type": "newword", "node": "z"}),
    "an unknown type after a space": b" " + msgpack.packb([1, "newword", "z"]),
    "an unknown type with an id": b"1-1 " + msgpack.packb({"type": "newword", "v": 99}),
    "text": b"not a message",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "deep nesting": b" " + b"\x91" * 100_000,
    "deep JSON": b"[" * 100_000,
    "a size that is a lie": b" \xdf\xff\xff\xff\xff",
    "a megabyte": b"x" * 1_000_000,
}


def links(redis: RedisServer) -> set[str]:
    """The ids of the connections to a Redis that subscribe to channels."""
    lines = redis.call("CLIENT", "LIST", "TYPE", "PUBSUB").decode().splitlines()
    return {line.split()[0] for line in lines}


def subscribed(redis: RedisServer) -> list[bytes]:
    """The names that nodes are subscribed to in a Redis."""
    names: list[bytes] = redis.call("PUBSUB", "CHANNELS", "*")
    return names


@contextlib.asynccontextmanager
async def listeners(nodes: Nodes, channel: str) -> AsyncIterator[list[Speaker]]:
    """A subscriber of each encoding on the second node."""
    async with contextlib.AsyncExitStack() as stack:
        speakers = []
        for name, dialect in DIALECTS.items():
            speaker = await stack.enter_async_context(
                speaking(dialect, nodes.second.websocket_url, token=sdk.token(name))
            )
            joined = await speaker.ask("subscribe", channel=channel)
            assert "code" not in joined, joined
            speakers.append(speaker)
        yield speakers


async def next_data(speaker: Speaker) -> Any:
    """The payload of the next publication, from JSON text."""
    async with asyncio.timeout(WAIT_S):
        while "pub" not in (push := await speaker.push()):
            pass
    data = push["pub"]["data"]
    return json.loads(data) if isinstance(data, bytes) else data


async def test_messages_that_are_not_the_hubs_are_counted_and_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = 5
    async with two_nodes() as nodes, listeners(nodes, "plain:a") as speakers:
        before = links(nodes.redis)
        bus = [name for name in subscribed(nodes.redis) if b"control" in name or b"bus" in name]
        assert len(bus) >= 2, bus
        caplog.clear()
        for kind, garbage in GARBAGE.items():
            ignored = [odd(hub) for hub in (nodes.one, nodes.two)]
            for number in range(times):
                nodes.redis.calls([("PUBLISH", name, garbage) for name in bus])
                await nodes.one.publish("plain:a", number)
            for speaker in speakers:
                assert [await next_data(speaker) for _ in range(times)] == list(range(times)), kind
            assert links(nodes.redis) == before, f"{kind}: the link was torn down"
            assert (nodes.one.node.state, nodes.two.node.state) == ("healthy", "healthy"), kind
            for hub, so_far in zip((nodes.one, nodes.two), ignored, strict=True):
                assert odd(hub) >= so_far + times, kind
        assert len([record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]) <= 6
        assert (await call(nodes.one, "disconnect", user="json"))["confirmed"] is True


async def test_entries_of_the_log_that_are_not_the_hubs_are_skipped() -> None:
    async with two_nodes() as nodes, client(nodes.second.port) as (ann, _):
        await call(nodes.one, "subscribe", user="nobody", channel="plain:a")
        keys = [key for key in nodes.redis.call("KEYS", "*") if nodes.redis.call("TYPE", key) == b"stream"]
        [log] = [key for key in keys if key.endswith(b".log")]
        await nodes.break_link()
        [(_, fields)] = nodes.redis.call("XREVRANGE", log, "+", "-", "COUNT", 1)
        for value in (b"not a message", b"", msgpack.packb({"type": "newword"}), b"\x91" * 10_000):
            nodes.redis.call("XADD", log, "*", fields[0], value)
        nodes.redis.call("XADD", log, "*", "foreign", "field")
        await nodes.one.disconnect("ann")
        nodes.redis.call("XADD", log, "*", fields[0], b"not a message")
        await nodes.restore_link()
        assert (await ann.closed())[0] == Disconnects.FORCE_NO_RECONNECT.code


def envelope(payload: bytes, kind: int = 0) -> bytes:
    """A publication as nodes send it through Redis: `[offset, epoch, [kind, data, info, tags, time]]`."""
    packed: bytes = msgpack.packb([0, "", [kind, payload, None, None, 0]])
    return packed


BROKEN: dict[str, bytes] = {
    "half a JSON text": envelope(b'{"text":'),
    "two JSON texts": envelope(b"1 2"),
    "no UTF-8": envelope(b'"\xff"'),
    "no payload": envelope(b""),
    "JSON too deep": envelope(b"[" * 5_000 + b"]" * 5_000),
    "a lone surrogate": envelope(rb'"\ud800"'),
    "an unknown kind": envelope(b"1", kind=99),
    "half an envelope": envelope(b'{"text":"hello"}')[:-9],
    "no envelope": b"not an envelope",
    "nothing": b"",
    "another shape": msgpack.packb({"offset": 0}),
    "other types": msgpack.packb(["0", 0, [0, "text", 1, 2, "x"]]),
}


async def test_broken_publications_reach_no_subscriber_and_break_no_link() -> None:
    async with two_nodes() as nodes, listeners(nodes, "plain:a") as speakers:
        before = links(nodes.redis)
        [name] = [name for name in subscribed(nodes.redis) if b"plain:a" in name]
        for kind, broken in BROKEN.items():
            await nodes.one.publish("plain:a", "first")
            nodes.redis.call("PUBLISH", name, broken)
            await nodes.one.publish("plain:a", "last")
            for speaker in speakers:
                assert [await next_data(speaker) for _ in range(2)] == ["first", "last"], kind
            assert links(nodes.redis) == before, f"{kind}: the link was torn down"
            assert nodes.two.node.state == "healthy", kind


# Processes


FORKED = """
import asyncio, os, sys
from hub import Hub
from hub.config import load

overrides = {"redis": {"url": sys.argv[1]}, "client": {"insecure": True}, "server": {"lag_max_s": 0}}
hub = Hub(load(env={}, overrides=overrides))
child = os.fork()

async def main():
    async with hub.lifespan():
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)

asyncio.run(main())
if child:
    os.waitpid(child, 0)
"""


async def test_processes_forked_from_a_built_hub_are_nodes_of_their_own() -> None:
    with RedisServer() as redis:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORKED, redis.url, stdin=asyncio.subprocess.PIPE
        )
        try:
            async with serving(settings(redis.url)) as (hub, _):

                async def ids() -> list[str]:
                    return sorted(node["uid"] for node in (await call(hub, "info"))["nodes"])

                async with asyncio.timeout(WAIT_S):
                    while len(await ids()) < 3:  # noqa: ASYNC110 - another process starts
                        await asyncio.sleep(0.1)
                assert len(set(await ids())) == 3
                result = await call(hub, "disconnect", user="ann")
                assert result["nodes"] == {"confirmed": 3, "total": 3}
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


async def test_each_life_of_a_hub_has_an_id_of_its_own() -> None:
    hub = Hub(settings())
    ids = []
    for _ in range(2):
        async with hub.lifespan():
            [node] = (await call(hub, "info"))["nodes"]
            ids.append(node["uid"])
    assert ids[0] != ids[1]


async def test_hubs_of_one_process_are_nodes_of_their_own() -> None:
    async with two_nodes() as nodes, connected(nodes.second.port, sdk.token("ann")) as ann:
        assert len({node["uid"] for node in (await call(nodes.one, "info"))["nodes"]}) == 2
        await nodes.one.disconnect("ann")
        assert (await ann.closed())[0] == Disconnects.FORCE_NO_RECONNECT.code
