"""What no SDK would send, over a real socket: each gets the protocol's own answer, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from support import sdk
from support.peer import Peer, command, connected, unconnected
from support.rawws import frame
from websockets.frames import Opcode

from hub import Hub
from hub.core.session import session, state
from hub.server.listener import listen

EVIL_CHANNELS = [
    "x" * 256,
    "é" * 128,
    "a b",
    "a{b}",
    "a*",
    "a?",
    "a[bc]",
    "a\\\\b",
    "a\\r\\nDEL x",
    "a\\nb",
    "a\\u0000b",
    "a\\u007fb",
    "a\\u2028b",
    "",
]


@contextlib.asynccontextmanager
async def serving_on(client: dict[str, Any] | None = None) -> AsyncIterator[tuple[Hub, int, Peer]]:
    """A hub, its port, and a client of the user `well` who must still be served at the end."""
    async with (
        sdk.live(sdk.settings(client)) as (hub, server),
        connected(server.port, sdk.token("well")) as well,
    ):
        await well.ask(command(2, "subscribe", channel="chat:well"))
        yield hub, server.port, well
        await hub.publish("chat:well", "still served")
        assert (await well.reply())["push"]["pub"]["data"] == "still served"


# What is not a command


@pytest.mark.parametrize(
    "sent",
    [
        "{",
        "",
        "no json",
        "[]",
        "1",
        '"text"',
        "null",
        '{"id":2,"publish":{"channel":"chat:a","data":{}}',
        '{"connect":{}}',
        '{"id":0,"publish":{"channel":"chat:a","data":{}}}',
        '{"id":-1,"ping":{}}',
        '{"id":4294967296,"ping":{}}',
        '{"id":"2","ping":{}}',
        '{"id":2.5,"ping":{}}',
        '{"rpc":{"method":"x"},"send":{}}',
        "{}",
        '{"id":2,"connect":{}}',
        "\x00",
        "[" * 100_000,
        '{"a":' * 20_000,
    ],
    ids=lambda sent: sent[:20] or "empty",
)
async def test_what_is_not_a_command_ends_the_connection(sent: str) -> None:
    async with (
        serving_on({"message_bytes_max": 1_000_000}) as (_, port, _),
        connected(port, sdk.token("ann")) as peer,
    ):
        peer.send(sent)
        assert await peer.closed() == (3501, "bad request")


@pytest.mark.parametrize(
    "sent",
    [
        '{"id":1,"subscribe":{"channel":"chat:a"}}',
        '{"id":1,"publish":{"channel":"plain:a","data":1}}',
        '{"id":1,"ping":{}}',
        '{"send":{"data":1}}',
        "{}",
    ],
)
async def test_a_command_before_connect_ends_the_connection(sent: str) -> None:
    async with serving_on() as (_, port, _), unconnected(port) as peer:
        peer.send(sent)
        assert await peer.closed() == (3501, "bad request")


async def test_binary_frames_and_bytes_that_are_no_text() -> None:
    async with serving_on() as (_, port, _):
        async with unconnected(port) as peer:
            peer.socket.send(frame(Opcode.TEXT, b'{"id":1,"connect":{"name":"\xff"}}'))
            assert (await peer.closed())[0] == 1007
        async with unconnected(port) as peer:
            peer.socket.send(frame(Opcode.BINARY, b"\x80\x81\xff"))
            assert (await peer.closed())[0] == 3501


async def test_a_message_past_the_limit() -> None:
    async with serving_on() as (_, port, _), connected(port, sdk.token("ann")) as peer:
        peer.send(command(2, "publish", channel="plain:a", data="x" * 65_536))
        assert (await peer.closed())[0] == 1009


async def test_who_does_not_connect_in_time_and_who_does_not_answer_a_ping() -> None:
    times = {"connect_timeout_s": 2.0, "ping_interval_s": 0.4, "pong_timeout_s": 0.2}
    async with sdk.live(sdk.settings(times)) as (_, server), unconnected(server.port) as silent:
        assert await silent.closed() == (3502, "stale")
        async with connected(server.port, sdk.token("ann")) as deaf:
            assert await deaf.closed() == (3012, "no pong")


# Commands that are wrong


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ('{"id":7,"ping":{},"rpc":{"method":"x"}}', 107),
        ('{"id":7}', 104),
        ('{"id":7,"fly":{"to":"moon"}}', 104),
        ('{"id":7,"publish":"text"}', 107),
        ('{"id":7,"publish":[]}', 107),
        ('{"id":7,"publish":{"channel":5,"data":1}}', 107),
        ('{"id":7,"publish":{"channel":"plain:a"}}', 107),
        ('{"id":7,"subscribe":{"channel":null}}', 107),
        ('{"id":7,"subscribe":{"channel":"chat:b","recover":"yes"}}', 107),
        ('{"id":7,"subscribe":{"channel":"chat:b","offset":-1}}', 107),
        ('{"id":7,"subscribe":{"channel":"chat:b","offset":1.5}}', 107),
        ('{"id":7,"history":{"channel":"chat:a","limit":"all"}}', 107),
        ('{"id":7,"history":{"channel":"chat:a","limit":99999999999}}', 107),
        ('{"id":7,"history":{"channel":"chat:a","since":{"offset":-5,"epoch":"x"}}}', 107),
        ('{"id":7,"rpc":{"method":"x"}}', 108),
        ('{"id":7,"subscribe":{"channel":"nowhere:a"}}', 102),
        ('{"id":7,"subscribe":{"channel":"default:a"}}', 102),
        ('{"id":7,"subscribe":{"channel":"alone"}}', 103),
        ('{"id":7,"subscribe":{"channel":"chat:a"}}', 105),
        ('{"id":7,"publish":{"channel":"chat:other","data":1}}', 103),
        ('{"id":7,"presence":{"channel":"plain:a"}}', 108),
        ('{"id":7,"sub_refresh":{"channel":"chat:none","token":"x"}}', 103),
        ('{"id":7,"subscribe":{"channel":"private:a","token":"x"}}', 103),
    ],
)
async def test_a_command_that_is_wrong_is_answered_and_the_connection_goes_on(sent: str, code: int) -> None:
    async with serving_on() as (_, port, _), connected(port, sdk.token("ann")) as peer:
        await peer.ask(command(2, "subscribe", channel="chat:a"))
        [reply] = await peer.ask(sent)
        assert (reply["id"], reply["error"]["code"]) == (7, code)
        assert (await peer.ask(command(8, "ping")))[0] == {"id": 8, "ping": {}}


@pytest.mark.parametrize("channel", EVIL_CHANNELS)
async def test_a_bad_channel_name_is_refused_by_every_command(channel: str) -> None:
    async with serving_on() as (hub, port, _), connected(port, sdk.token("ann")) as peer:
        for method, more in {
            "subscribe": "",
            "unsubscribe": "",
            "publish": ',"data":1',
            "history": "",
            "presence": "",
            "presence_stats": "",
        }.items():
            assert await peer.error(f'{{"id":7,"{method}":{{"channel":"{channel}"{more}}}}}') == 107, method
        assert list(hub.node.registry.channels) == ["chat:well"]


async def test_unknown_fields_are_ignored() -> None:
    async with serving_on() as (_, port, _), unconnected(port) as peer:
        [reply] = await peer.ask(
            f'{{"id":1,"new":{{"a":[1]}},"connect":{{"token":"{sdk.token("ann")}","newer":[{{}}]}}}}'
        )
        assert "connect" in reply
        assert await peer.error('{"id":2,"subscribe":{"channel":"chat:a","x":1},"y":{}}') == 0


async def test_an_id_used_twice_gets_two_replies_and_a_frame_its_replies_in_order() -> None:
    async with serving_on() as (_, port, _), connected(port, sdk.token("ann")) as peer:
        lines = [command(7, "ping"), command(7, "ping"), "", "  ", command(3, "ping"), command(9, "ping")]
        peer.send(*lines)
        assert [(await peer.reply())["id"] for _ in range(4)] == [7, 7, 3, 9]


async def test_commands_that_came_with_the_connect_wait_for_it() -> None:
    async with serving_on() as (_, port, _), unconnected(port) as peer:
        replies = await peer.ask(
            command(1, "connect", token=sdk.token("ann")),
            command(2, "subscribe", channel="chat:a"),
            command(3, "publish", channel="chat:a", data={"x": 1}),
        )
        assert [reply["id"] for reply in replies] == [1, 2, 3]
        assert not any("error" in reply for reply in replies)


async def test_ten_thousand_subscriptions() -> None:
    async with serving_on() as (hub, port, _), connected(port, sdk.token("ann")) as peer:
        codes = []
        for start in range(0, 10_000, 500):
            lines = [command(n + 2, "subscribe", channel=f"plain:{n}") for n in range(start, start + 500)]
            codes += [reply.get("error", {}).get("code", 0) for reply in await peer.ask(*lines)]
        assert codes == [0] * 128 + [106] * 9872
        assert hub.node.registry.subscriptions == 129
        assert len(hub.node.registry.channels) == 129


# Tokens


def _unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, key=None, algorithm="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        (_unsigned({"sub": "ann", "aud": "hub"}), 3500),
        (sdk.token("ann", aud="hub", secret="another-key-that-is-also-long-enough"), 3500),
        (sdk.token("ann", aud="another"), 3500),
        (sdk.token("ann"), 3500),
        (sdk.subscription_token("ann", "chat:a", aud="hub"), 3500),
        (sdk.token("ann", aud="hub")[:-4], 3500),
        ("x" * 20_000, 3500),
        (sdk.token("ann", aud="hub", ttl_s=-60), 109),
        ("", 101),
    ],
    ids=[
        "alg none",
        "another key",
        "another audience",
        "no audience",
        "a subscription's",
        "cut short",
        "very long",
        "expired",
        "none",
    ],
)
async def test_a_token_that_is_not_good(token: str, answer: int) -> None:
    configured = sdk.settings({"token": {"hmac_secret": sdk.SECRET, "audience": "hub"}})
    async with sdk.live(configured) as (hub, server), unconnected(server.port) as peer:
        peer.send(command(1, "connect", token=token))
        if answer < 1000:
            assert (await peer.reply())["error"]["code"] == answer
        else:
            assert (await peer.closed())[0] == answer
        assert not hub.node.registry.clients
        async with connected(server.port, sdk.token("ann", aud="hub")):
            assert list(hub.node.registry.users) == ["ann"]


async def test_what_is_not_refreshed_ends_after_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (session, state):
        monkeypatch.setattr(module, "GRACE_S", 0.1)
    async with (
        serving_on() as (hub, port, _),
        connected(port, sdk.token("ann", ttl_s=1)) as late,
        connected(port, sdk.token("bob")) as peer,
    ):
        token = sdk.subscription_token("bob", "private:a", ttl_s=1)
        [reply] = await peer.ask(command(2, "subscribe", channel="private:a", token=token))
        assert reply["subscribe"]["expires"]
        assert 1 <= reply["subscribe"]["ttl"] <= 2
        assert "join" in (await peer.reply())["push"]
        assert (await peer.reply())["push"]["unsubscribe"]["code"] == 2501
        assert await late.closed() == (3005, "connection expired")
        assert "private:a" not in hub.node.registry.channels


async def test_a_refresh_with_the_token_of_another_user_ends_the_connection() -> None:
    async with serving_on() as (_, port, _), connected(port, sdk.token("ann", ttl_s=60)) as peer:
        [reply] = await peer.ask(command(2, "refresh", token=sdk.token("ann", ttl_s=120)))
        assert 100 < reply["refresh"]["ttl"] <= 120
        peer.send(command(3, "refresh", token=sdk.token("bob")))
        assert (await peer.closed())[0] == 3500


# Waiting for nothing


def test_small_replies_do_not_wait_for_an_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_slow_answer_of_the_app_holds_nobody_else_up() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def rpc(event: Any) -> None:
        asked.set()
        await go_on.wait()

    async with sdk.live(rpc=rpc) as (_, server), connected(server.port, sdk.token("ann")) as peer:
        peer.send(command(2, "rpc", method="slow"))
        await asked.wait()
        assert (await peer.ask(command(3, "ping")))[0]["id"] == 3
        go_on.set()
        assert await peer.reply() == {"id": 2, "rpc": {}}


async def test_null_members_count_as_absent() -> None:
    async with sdk.live(sdk.settings({"insecure": True})) as (_, server), unconnected(server.port) as peer:
        [reply] = await peer.ask('{"id":1,"connect":{"token":null,"data":null,"name":null,"subs":null}}')
        assert reply["connect"]["client"]
        [reply] = await peer.ask(
            '{"id":2,"subscribe":{"channel":"chat:a","token":null,"tf":null,"epoch":null}}'
        )
        assert "subscribe" in reply
        [reply] = await peer.ask('{"id":3,"publish":{"channel":"chat:a","data":null}}')
        while "push" in reply:
            reply = await peer.reply()
        assert "error" not in reply


async def test_an_error_names_the_member_that_is_wrong() -> None:
    async with sdk.live() as (_, server), connected(server.port, sdk.token("ann")) as peer:
        [reply] = await peer.ask('{"id":2,"subscribe":{"channel":"chat:a","token":5}}')
        assert reply["error"]["code"] == 107
        assert "$.subscribe.token" in reply["error"]["message"]
