"""What an earlier release wrote into Redis, and what a later one may write, is read as it is meant.

`recorded/redis-1.json` holds bytes that release 0.1 wrote, in hexadecimal. They never change: a release that
writes another format adds a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from support.brokers import KEEP, heard, kept, node
from support.redis import RedisServer

from hub.broker.base import BusLog
from hub.protocol.messages import ClientInfo, DeltaPublication, Publication
from hub.protocol.payloads import Packed

RECORDED = json.loads((Path(__file__).parent / "recorded" / "redis-1.json").read_text())
BUS_MESSAGE = b"\x82\xa1a\x01\xa1b \x80"

ANN = ClientInfo("ann", "c-1", Raw(b'{"n":1}'), Raw(b"[2]"))
TEXT = Raw('{"text": "é"}'.encode())
PUBLICATIONS = {
    "publication": Publication(TEXT, ANN, 0, {"k": "v"}, False, 1_700_000_000_000),
    "delta_publication": DeltaPublication(Raw(b"1"), None, 0, None, False, 1_700_000_000_001),
    "binary_publication": Publication(b"\x00\xff"),
    "packed_publication": Publication(Packed(b"\x81\xa1a\xc4\x01\xff")),
}


def recorded(*path: str) -> bytes:
    found: Any = RECORDED
    for name in path:
        found = found[name]
    return bytes.fromhex(found)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    server.call("FLUSHALL")


async def test_messages_of_channels(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        for name in (*PUBLICATIONS, "join", "leave", "numbered_publication"):
            server.call("PUBLISH", "hub{c}", recorded("envelopes", name))
        await listener.until(lambda: len(listener.publications("c")) == 5)
        *unnumbered, numbered = [item for item in listener.heard if item[0] == "publication"]
        assert unnumbered == [("publication", "c", each, "") for each in PUBLICATIONS.values()]
        assert [type(item[2]) for item in unnumbered] == [type(each) for each in PUBLICATIONS.values()]
        expected = Publication(TEXT, ANN, 7, {"k": "v"}, False, 1_700_000_000_000)
        assert numbered == ("publication", "c", expected, "5f3a9c01")
        others = [item for item in listener.heard if item[0] != "publication"]
        assert others == [("join", "c", ANN), ("leave", "c", ClientInfo("", "c-2"))]
        assert listener.ignored == []


async def test_entries_of_streams(server: RedisServer) -> None:
    server.call("HSET", "hub{c}.m", "epoch", "5f3a9c01", "offset", 4, "incarnation", "before")
    for offset, name in enumerate(PUBLICATIONS, 1):
        server.call("XADD", "hub{c}.s", f"0-{offset}", "d", recorded("entries", name))
    async with node(server.url) as (broker, listener):
        stream = await broker.history("c")
        for offset, (read, expected) in enumerate(
            zip(stream.publications, PUBLICATIONS.values(), strict=True), 1
        ):
            assert (read.offset, read.data, type(read)) == (offset, expected.data, type(expected))
            assert (read.info, read.tags, read.time) == (expected.info, expected.tags, expected.time)
        assert (stream.top.offset, stream.top.epoch) == (4, "5f3a9c01")
        assert (await broker.publish("c", Raw(b"5"), history=KEEP)).offset == 5
        assert listener.ignored == []


async def test_clients_in_presence(server: RedisServer) -> None:
    server.call("HSET", "hub{c}.p", "c-1", recorded("presence", "ann"), "c-2", recorded("presence", "nobody"))
    server.call("ZADD", "hub{c}.e", "99999999999999", "c-1", "99999999999999", "c-2")
    async with node(server.url) as (broker, listener):
        assert await broker.presence("c") == {"c-1": ANN, "c-2": ClientInfo("", "c-2")}
        assert listener.ignored == []


async def test_messages_of_the_bus(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        for name in ("sent", "in_the_log"):
            server.call("PUBLISH", "hub.control", recorded("bus", name))
        await listener.until(lambda: len(listener.bus) == 2)
        assert listener.bus == [(BUS_MESSAGE, ""), (BUS_MESSAGE, "1700000000000-3")]
        server.call("XADD", "hub{hub.control}.log", "1-1", "v", "1")
        server.call("XADD", "hub{hub.control}.log", "1700000000000-3", "d", BUS_MESSAGE)
        log = await broker.read_bus("1-1", 10)
        assert log == BusLog([("1700000000000-3", BUS_MESSAGE)], "1700000000000-3", is_complete=True)
        assert listener.ignored == []


# What a later release may add


def later(kind: int, data: Any) -> bytes:
    """A body with an element more at the end of each array."""
    return msgspec.msgpack.encode([kind, data, ["ann", "c-1", None, None, "new"], {"k": "v"}, 0, "new"])


async def test_what_a_later_release_adds_is_passed_over(server: RedisServer) -> None:
    async with node(server.url) as (broker, listener):
        await broker.subscribe("c")
        for kind in (0, 9, 1):
            body = msgspec.Raw(later(kind, b"1"))
            server.call("PUBLISH", "hub{c}", msgspec.msgpack.encode([0, "", body, "new"]))
        await listener.until(lambda: len(listener.heard) == 2)
        assert [item[0] for item in listener.heard] == ["publication", "join"]
        [unknown] = listener.ignored
        assert "kind 9" in unknown
        await broker.publish("c", Raw(b"1"), history=KEEP)
        server.call("HSET", "hub{c}.m", "offset", 3, "new", "new")
        server.call("XADD", "hub{c}.s", "0-2", "d", later(0, b"2"))
        server.call("XADD", "hub{c}.s", "0-3", "d", later(9, b"3"))
        assert await kept(broker) == ["1", "2"]
        server.call("HSET", "hub{c}.p", "c-1", msgspec.msgpack.encode(["ann", "c-1", None, None, "new"]))
        assert await broker.presence("c") == {"c-1": ClientInfo("ann", "c-1")}
        assert (await broker.publish("c", Raw(b"4"), history=KEEP)).offset == 4
        await listener.until(lambda: heard(listener)[-1:] == ["4"])
