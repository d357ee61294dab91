"""hub/node/fanout.py: what many subscribers cost, and what each is sent, over sockets without a network."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from msgspec import Raw
from support.dialects import DIALECTS
from support.sockets import Socket

from hub import Hub
from hub.config import load
from hub.core.channel.filter import Filter
from hub.node.node import Node
from hub.protocol import messages as m
from hub.protocol.msgpack import MessagePackCodec

JSON = DIALECTS["json"]


def hub_of(**channel: Any) -> Hub:
    options = {"allowed_delta_types": ["fossil"], "delta_publish": True, "allow_tags_filter": True, **channel}
    server = {"lag_max_s": 0}  # it is not overloaded for being late
    client = {"insecure": True, "outbox_bytes_max": 10_000}
    return Hub(load(env={}, overrides={"client": client, "server": server, "channels": {"default": options}}))


def subscribed(node: Node, dialect: str = "json", **request: Any) -> Socket:
    socket = Socket(node, DIALECTS[dialect])
    socket.send(connect={})
    socket.send(subscribe={"channel": "board", **request})
    _, reply = socket.read()
    assert "subscribe" in reply, reply
    return socket


def board(count: int) -> list[bytes]:
    """A document of 2 KB in so many small changes."""
    chance = random.Random(7)
    rows = [{"player": f"player {number}", "score": number * 17, "team": "abc"} for number in range(40)]
    texts = []
    for _ in range(count):
        chance.choice(rows)["score"] = chance.randrange(1000)
        texts.append(json.dumps(rows).encode())
    assert len(texts[0]) > 2000
    return texts


async def publish(node: Node, payload: bytes, **options: Any) -> None:
    """Publish, and let the end of the loop's turn come."""
    await node.channels.publish("board", Raw(payload), **options)
    node.fanout._flush_all()


def publications(socket: Socket) -> list[Any]:
    return [reply["push"]["pub"] for reply in socket.read()]


async def test_a_thousand_subscribers_cost_one_delta() -> None:
    hub = hub_of()
    async with hub.lifespan():
        names = list(DIALECTS)
        sockets = [subscribed(hub.node, names[number % 3], delta="fossil") for number in range(1000)]
        first, second = board(2)
        await publish(hub.node, first)
        assert hub.node.deltas.computed == 0  # nobody has anything that it could be of
        assert not any("delta" in publication for socket in sockets for publication in publications(socket))
        await publish(hub.node, second)
        assert hub.node.deltas.computed == 1
        assert all(publication["delta"] for socket in sockets for publication in publications(socket))
        text, _ = hub.metrics.render()
        assert b"hub_deltas_total 1.0" in text


async def test_small_changes_of_a_document_send_less_than_a_seventh_of_its_bytes() -> None:
    hub = hub_of()
    async with hub.lifespan():
        for dialect in DIALECTS:
            with_deltas = subscribed(hub.node, dialect, delta="fossil")
            without = subscribed(hub.node, dialect)
            sent, whole = -with_deltas.bytes_in, -without.bytes_in
            for text in board(50):
                await publish(hub.node, text)
            with_deltas.read()
            without.read()
            sent += with_deltas.bytes_in
            whole += without.bytes_in
            assert sent < 0.15 * whole, f"{dialect}: {sent} of {whole} bytes"


async def test_a_filter_is_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = hub_of()
    evaluated = 0
    passes = Filter.passes

    def counted(self: Filter, publication: m.Publication) -> bool:
        nonlocal evaluated
        evaluated += 1
        return passes(self, publication)

    monkeypatch.setattr(Filter, "passes", counted)
    async with hub.lifespan():
        tf = {"key": "kind", "cmp": "eq", "val": "goal"}
        sockets = [
            subscribed(hub.node, dialect, tf=tf, **deltas)
            for dialect in DIALECTS
            for deltas in ({}, {"delta": "fossil"}, {})
        ]
        await publish(hub.node, b"1", tags={"kind": "goal"})
        await publish(hub.node, b"2", tags={"kind": "foul"})
        assert evaluated == 2
        assert [len(publications(socket)) for socket in sockets] == [1] * 9


async def test_who_comes_in_the_middle_begins_with_a_whole_one() -> None:
    hub = hub_of()
    async with hub.lifespan():
        early = subscribed(hub.node, delta="fossil")
        texts = board(4)
        await publish(hub.node, texts[0])
        await hub.node.channels.publish("board", Raw(texts[1]))
        late = subscribed(hub.node, delta="fossil")
        for text in texts[2:]:
            await hub.node.channels.publish("board", Raw(text))
        hub.node.fanout._flush_all()
        assert ["delta" in publication for publication in publications(early)] == [False, True, True, True]
        heard = publications(late)
        assert ["delta" in publication for publication in heard] == [False, True]
        assert heard[0]["data"].encode() == texts[2]
        assert apply_delta(texts[2], heard[1]["data"].encode()) == texts[3]


async def test_the_newest_that_was_given_up_is_nobodys_base() -> None:
    hub = hub_of(slow_reader="drop_oldest")
    async with hub.lifespan():
        socket = subscribed(hub.node, delta="fossil")
        texts = board(3)
        await publish(hub.node, texts[0])
        [connection] = hub.node.connections
        connection.on_write_paused()
        # What is not given up leaves no room, and the publication is.
        connection.send(m.Reply(push=m.Push(message=m.MessagePush(Raw(b'"%s"' % (b"-" * 9_000))))))
        await publish(hub.node, texts[1])
        connection.on_write_resumed()
        await publish(hub.node, texts[2])
        replies = [reply["push"] for reply in socket.read()]
        assert ["message" in push for push in replies] == [False, True, False]
        assert "delta" not in replies[-1]["pub"]
        assert replies[-1]["pub"]["data"].encode() == texts[2]


async def test_those_without_deltas_pay_nothing_for_those_with() -> None:
    hub = hub_of()
    async with hub.lifespan():
        plain = subscribed(hub.node)
        await publish(hub.node, b'{"a": 1}')
        channel = hub.node.registry.channels["board"]
        assert channel.is_uniform
        taker = subscribed(hub.node, delta="fossil")
        assert not channel.is_uniform
        await publish(hub.node, b'{"a": 2}', delta=True)
        taker.cut()
        assert channel.is_uniform
        assert publications(plain) == [{"data": {"a": 1}}, {"data": {"a": 2}}]


@pytest.mark.parametrize(("count", "written"), [(63, True), (64, False)])
async def test_what_came_together_is_written_when_all_of_it_came(count: int, written: bool) -> None:
    hub = hub_of()
    async with hub.lifespan():
        sockets = [subscribed(hub.node) for _ in range(count)]
        hub.node.fanout.caught_up()
        hub.node.channels.deliver("board", m.Publication(Raw(b"1")))
        hub.node.channels.deliver("board", m.Publication(Raw(b"2")))
        assert not any(socket.read() for socket in sockets)
        hub.node.fanout.caught_up()
        for socket in sockets:
            assert [each["data"] for each in publications(socket)] == ([1, 2] if written else [])
        hub.node.fanout._flush_all()
        for socket in sockets:
            assert [each["data"] for each in publications(socket)] == ([] if written else [1, 2])


async def test_what_a_client_asks_for_at_once_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = hub_of(allow_publish_for_client=True)
    async with hub.lifespan():
        socket = subscribed(hub.node)
        asked: list[str] = []

        def publish(*_: Any, **__: Any) -> asyncio.Future[m.StreamPosition]:
            asked.append("publish")
            return asyncio.get_running_loop().create_future()

        monkeypatch.setattr(hub.node.broker, "publish", publish)
        monkeypatch.setattr(socket._connection._shared, "flush", lambda: asked.append("flush"))
        socket.send(ping={})
        assert not asked, "nothing is asked of the broker"
        commands = [{"id": n, "publish": {"channel": "board", "data": n}} for n in (11, 12)]
        socket._connection.on_messages([b"\n".join(map(JSON.write, commands))])
        assert asked == ["publish", "publish", "flush"]


@pytest.mark.parametrize("request_", [{}, {"delta": "fossil"}], ids=["plain", "some take deltas"])
async def test_a_publication_that_one_encoding_cannot_hold_reaches_the_others(
    request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of()
    async with hub.lifespan():
        sockets = {name: subscribed(hub.node, name) for name in ("msgpack", "json", "protobuf")}
        subscribed(hub.node, "json", **request_)

        def fail(_: object) -> bytes:
            raise RuntimeError("it cannot be encoded")

        with monkeypatch.context() as patch:
            patch.setattr(MessagePackCodec, "encode", lambda _, reply: fail(reply))
            await publish(hub.node, b"1")
        await publish(hub.node, b"2")
        assert [each["data"] for each in publications(sockets["msgpack"])] == [2]
        assert [each["data"] for each in publications(sockets["json"])] == [1, 2]
        assert [each["data"] for each in publications(sockets["protobuf"])] == [b"1", b"2"]
        text, _ = hub.metrics.render()
        assert b'hub_boundary_errors_total{place="fanout"} 1.0' in text
