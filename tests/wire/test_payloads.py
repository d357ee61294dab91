"""What is inside a message: a payload reaches every subscriber byte for byte, or is refused.

And what stays in the node after all of it: nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import tracemalloc
from typing import Any

import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, until_gone

from hub import Hub
from hub.broker.memory import MemoryBroker
from hub.protocol import api

EXACT = [
    '{"a" :  1 , "b":[ ] }',
    "1.0",
    "1e2",
    "1E+2",
    "-0",
    "-0.0",
    "0.10000000000000000000001",
    "123456789012345678901234567890",
    "9007199254740993",
    r'"\u00e9\n\/\ud83d\ude00"',
    '"é 😀 \u2028 \x7f"',
    '"\\\\"',
    '{"":0}',
    '{"z":1,"a":2}',
    "[[[[]]]]",
    "null",
    "false",
    "0",
    '""',
    '{"__proto__":{"x":1},"constructor":null}',
    "[" * 29 + "]" * 29,
    '"' + "[{" * 500 + '"',
]

REFUSED = {
    "100 deep": "[" * 100 + "]" * 100,
    "1,000 deep": '{"a":' * 1000 + "1" + "}" * 1000,
    "1,000 deep behind a quote": r'["\"",' + "[" * 1000 + "]" * 1001,
    "a lone high surrogate": r'"\ud800"',
    "a lone low surrogate": r'"\udc00"',
    "surrogates the wrong way round": r'"\udc00\ud800"',
    "a lone surrogate in a key": r'{"\ud800":1}',
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "beyond a double": "1e999",
    "an integer beyond a double": "1" * 400,
    "duplicate keys": '{"a":1,"a":2}',
    "duplicate keys that differ in writing": r'{"a":1,"\u0061":2}',
    "duplicate keys deep down": '[{"x":{"a":1,"b":":","a":2}}]',
}
"""JSON that some parsers read otherwise, or not at all."""

NO_JSON = {
    "a control character": '"\x01"',
    "a leading zero": "01",
    "a trailing comma": "[1,]",
    "a comment": "[1] // one",
    "two values": "1 2",
    "an unknown escape": r'"\x41"',
    "single quotes": "'a'",
}


async def _call(url: str, method: str, body: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        return await client.post(
            f"{url}/api/{method}", content=body.encode(), headers={"X-API-Key": sdk.API_KEY}
        )


async def test_a_payload_arrives_as_it_was_published_by_every_way() -> None:
    async with (
        sdk.live() as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
        connected(server.port, sdk.token("bob")) as bob,
    ):
        for peer in (ann, bob):
            await peer.ask(command(2, "subscribe", channel="chat:a"))
        for text in EXACT:
            ann.send(f'{{"id":3,"publish":{{"channel":"chat:a","data":{text}}}}}')
            assert json.loads(await ann.line()) == {"id": 3, "publish": {}}
            for peer in (ann, bob):
                assert f'"pub":{{"data":{text},' in await peer.line()
            called = await _call(server.url, "publish", f'{{"channel":"chat:a","data":{text}}}')
            assert called.status_code == 200, called.text
            for peer in (ann, bob):
                assert f'"pub":{{"data":{text},' in await peer.line()
        everything = [f'{{"data":{text},' for text in EXACT for _ in range(2)]

        ann.send(command(4, "history", channel="chat:a", limit=-1))
        history = await ann.line()
        epoch = json.loads(history)["history"]["epoch"]
        read = await _call(server.url, "history", '{"channel":"chat:a","limit":-1}')
        async with connected(server.port, sdk.token("eve")) as eve:
            eve.send(command(2, "subscribe", channel="chat:a", recoverable=True, recover=True, epoch=epoch))
            recovered = await eve.line()
        for answer in (history, read.text, recovered):
            place = 0
            for one in everything:
                place = answer.find(one, place) + 1
                assert place, f"{one} is not there, or not in its place"


async def test_line_breaks_between_tokens_do_not_break_the_framing() -> None:
    async with sdk.live() as (_, server), connected(server.port, sdk.token("ann")) as peer:
        await peer.ask(command(2, "subscribe", channel="chat:a"))
        body = '{"channel": "chat:a",\n "data": {\r\n  "a": [\n1]}}'
        assert (await _call(server.url, "publish", body)).json()["result"]["offset"] == 1
        assert '"data":{    "a": [ 1]}' in await peer.line()


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
async def test_a_payload_that_could_fail_somewhere_is_refused_at_the_publisher(text: str) -> None:
    async with (
        sdk.live(rpc=lambda event: None, message=lambda event: None) as (_, server),
        connected(server.port, sdk.token("ann")) as peer,
    ):
        await peer.ask(command(2, "subscribe", channel="chat:a"))
        for line in (
            f'{{"id":7,"publish":{{"channel":"chat:a","data":{text}}}}}',
            f'{{"publish":{{"channel":"chat:a","data":{text}}},"id":7}}',
            f'{{"id":7,"rpc":{{"method":"x","data":{text}}}}}',
            f'{{"id":7,"subscribe":{{"channel":"chat:b","data":{text}}}}}',
        ):
            assert await peer.error(line) == 107
        assert (
            await _call(server.url, "publish", f'{{"channel":"chat:a","data":{text}}}')
        ).status_code == 400
        await _heard_nothing(peer)
        peer.send(f'{{"send":{{"data":{text}}}}}')
        assert (await peer.closed())[0] == 3501  # what has no id has no other answer


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
async def test_a_payload_that_is_no_json_ends_the_connection(text: str) -> None:
    async with (
        sdk.live() as (_, server),
        connected(server.port, sdk.token("ann")) as peer,
        connected(server.port, sdk.token("bob")) as subscriber,
    ):
        await subscriber.ask(command(2, "subscribe", channel="chat:a"))
        peer.send(f'{{"id":7,"publish":{{"channel":"chat:a","data":{text}}}}}')
        assert (await peer.closed())[0] == 3501
        assert (
            await _call(server.url, "publish", f'{{"channel":"chat:a","data":{text}}}')
        ).status_code == 400
        await _heard_nothing(subscriber)


async def _heard_nothing(peer: Peer) -> None:
    """Check that a subscriber of `chat:a`, where nothing was to arrive, hears its own message first."""
    await peer.ask(command(8, "publish", channel="chat:a", data="fine"))
    assert (await peer.reply())["push"]["pub"]["data"] == "fine"


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, [{"a": "\ud800"}], object, [{object}]], ids=repr)
async def test_what_the_app_publishes_has_the_same_rules(value: Any) -> None:
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        await peer.ask(command(2, "subscribe", channel="chat:a"))
        with pytest.raises((TypeError, ValueError)):
            await hub.publish("chat:a", value)
        await hub.publish("chat:a", "fine")
        publication = (await peer.reply())["push"]["pub"]
        assert (publication["data"], publication["offset"]) == ("fine", 1)


@pytest.mark.parametrize("tags", [{"a": "\ud800"}, {"\ud800": "a"}, {"a": 1}, {"a": None}], ids=repr)
async def test_tags_that_could_fail_somewhere_are_refused_too(tags: Any) -> None:
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        await peer.ask(command(2, "subscribe", channel="chat:a"))
        with pytest.raises((TypeError, ValueError)):
            await hub.publish("chat:a", 1, tags=tags)
        body = json.dumps({"channel": "chat:a", "data": 1, "tags": tags})
        called = await _call(server.url, "publish", body)
        assert called.status_code == 400 or called.json()["error"]["code"] == 107
        await hub.publish("chat:a", "fine")
        assert (await peer.reply())["push"]["pub"]["offset"] == 1


# What stays


async def _churn(port: int, rounds: int) -> None:
    async with connected(port, sdk.token("ann"), data={"some": "data"}) as peer:
        for turn in range(rounds):
            names = [f"chat:{number}" for number in range(100)]
            await _quietly(peer, [command(2, "subscribe", channel=name, join_leave=True) for name in names])
            await _quietly(peer, [command(3, "publish", channel=name, data=turn) for name in names[:10]])
            await _quietly(peer, [command(4, "unsubscribe", channel=name) for name in names[turn % 2 :]])
            await _quietly(peer, [command(4, "unsubscribe", channel=names[0])])
        await _quietly(peer, [command(5, "subscribe", channel=f"chat:{number}") for number in range(100)])


async def _quietly(peer: Peer, lines: list[str]) -> None:
    peer.send(*lines)
    replies = 0
    while replies < len(lines):
        reply = await peer.reply()
        assert "error" not in reply, reply
        replies += "id" in reply


def _held(hub: Hub) -> dict[str, int]:
    node, broker = hub.node, hub.node.broker
    assert isinstance(broker, MemoryBroker)
    return {
        "connections": len(node.connections),
        "clients": len(node.registry.clients),
        "users": len(node.registry.users),
        "channels": len(node.registry.channels),
        "subscriptions": node.registry.subscriptions,
        "opening": len(node.channels._opening),
        "followed": len(node.channels.followers._followed),
        "tasks": len(node.tasks),
        "timers": len(node.timers),
        "broker": len(broker._subscribed),
        "presence": len(broker._presence),
    }


async def test_churn_leaves_nothing_behind() -> None:
    async with sdk.live() as (hub, server):
        before = _held(hub)
        tasks = len(asyncio.all_tasks())
        for _ in range(3):
            await asyncio.gather(*(_churn(server.port, 4) for _ in range(5)))
        await until_gone(hub.node)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):  # the last presence is taken out behind the sockets
                while _held(hub) != before or len(asyncio.all_tasks()) != tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert _held(hub) == before
        assert len(asyncio.all_tasks()) == tasks
        assert not hub.metrics.disconnects.labels(3008)._value.get()


async def test_the_broker_hears_the_channels_in_use_and_no_others() -> None:
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        broker = hub.node.broker
        assert isinstance(broker, MemoryBroker)
        wanted = {f"chat:{number}" for number in range(50)}
        await _quietly(peer, [command(2, "subscribe", channel=name) for name in wanted])
        assert broker._subscribed == wanted
        gone = {f"chat:{number}" for number in range(0, 50, 3)}
        await _quietly(peer, [command(3, "unsubscribe", channel=name) for name in gone])
        assert broker._subscribed == wanted - gone
        await hub.request("unsubscribe", api.UnsubscribeRequest(user="ann", channel="chat:1"))
        assert broker._subscribed == wanted - gone - {"chat:1"}


async def test_memory_returns_after_hostile_clients(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="hub")  # what is logged would be kept for the report
    async with sdk.live() as (hub, server):

        async def hostile(rounds: int) -> int:
            for _ in range(rounds):
                async with connected(server.port, sdk.token("eve")) as peer:
                    for text in REFUSED.values():
                        await peer.error(f'{{"id":7,"publish":{{"channel":"chat:a","data":{text}}}}}')
                    lines = [command(8, "subscribe", channel=f"plain:{number}") for number in range(600)]
                    await peer.ask(*lines)
                async with connected(server.port, sdk.token("eve")) as peer:
                    peer.send("[" * 60_000)
                    await peer.closed()
            await until_gone(hub.node)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = await hostile(3)  # what is made once stays
            assert await hostile(10) - before < 100_000
        finally:
            tracemalloc.stop()
