"""Garbage on the bus, in the messages and keys of channels that are sacrificed to it."""

from __future__ import annotations

import asyncio
import json

import msgspec

from loadtests.chaos.stage import Stage

CONTROL = b"hub.control"
BUS_LOG = b"{hub.control}.log"
REPAIR_S = 1.0
"""How long an operator needs until the keys of a vandalised channel are deleted."""


def _garbage(stage: Stage) -> bytes:
    chance = stage.chance
    unknown = {"type": "newword", "node": "z", "v": 99}
    return chance.choice(
        [
            b"",
            b"x",
            b"null",
            b"[" * 5_000,
            b"\x91" * 5_000,
            b"\xff" * chance.randint(1, 100),
            chance.randbytes(chance.randint(1, 1_000)),
            b"x" * 1_000_000,
            json.dumps(unknown).encode(),
            b" " + json.dumps(unknown).encode(),
            b"9-9 " + json.dumps(unknown).encode(),
            b"99999999999999-0 " + json.dumps(unknown).encode(),
            b"x-y " + json.dumps(unknown).encode(),
            msgspec.msgpack.encode(unknown),
            b" " + msgspec.msgpack.encode(unknown),
            b'{"type":"over","node":"z"}',
            b'{"type":"call","node":"z","method":"disconnect","request":{}}',
            b'{"type":"answer","node":"z","to":"y","id":-1,"result":1}',
        ]
    )


async def garbage_on_the_bus(stage: Stage) -> str:
    nodes = await stage.api(0, "info")
    ids = [each["uid"].encode() for each in nodes.get("result", {}).get("nodes", [])]
    targets = [CONTROL, *(CONTROL + b"." + each for each in ids)]
    count = stage.chance.randint(1, 10)
    calls = [("PUBLISH", stage.chance.choice(targets), _garbage(stage)) for _ in range(count)]
    await stage.calls(calls)
    return f"{count} unreadable messages on the bus"


async def garbage_in_the_bus_log(stage: Stage) -> str:
    fields: tuple[str | bytes, ...] = stage.chance.choice(
        [("d", _garbage(stage)), ("m", _garbage(stage)), ("a", "b", "c", "d")]
    )
    await stage.call("XADD", BUS_LOG, "*", *fields)
    return "an unreadable entry in the log of the bus"


async def garbage_messages(stage: Stage) -> str:
    """Publish messages that are no envelope, or whose payload or position is broken."""
    channel = stage.chance.choice(stage.victims())
    name = b"hub{%b}" % channel.encode()
    pack = msgspec.msgpack.encode
    broken = [
        _garbage(stage),
        pack((0, "", (0, b'{"broken', None, None, 0))),
        pack((0, "", (0, b"\xff\xfe", None, None, 0))),
        pack((0, "", (0, b"\xc1", None, {"t": "v"}, -1))),
        pack((0, "", (99, b"1", None, None, 0))),
        pack((0, "", (0, b"1", ("u", "c", b"{", None), None, 0))),
        pack((2**40, "other", (0, b"1", None, None, 0))),
        pack((-1, "", (0, b"1", None, None, 0))),
        pack((1, 2, 3)),
    ]
    chosen = stage.chance.sample(broken, stage.chance.randint(1, 4))
    await stage.calls([("PUBLISH", name, message) for message in chosen])
    return f"{len(chosen)} unreadable messages in {channel}"


async def foreign_entry(stage: Stage) -> str:
    """Append entries that the hub did not write to a channel's stream, and then break the link."""
    channel = stage.chance.choice(stage.victims())
    stream = b"hub{%b}.s" % channel.encode()
    top = (await stage.api(0, "history", channel=channel)).get("result", {}).get("offset", 0)
    id_ = stage.chance.choice([f"0-{top + 1}", f"0-{top + 1}", "*"])
    fields: tuple[str | bytes, ...] = stage.chance.choice(
        [("d", b"\xc1"), ("x", "y"), ("d", b"\x91\x00"), ("d", "", "e", "")]
    )
    await stage.call("XADD", stream, id_, *fields)
    publishes = [stage.api(node, "publish", channel=channel, data=0) for node in (0, 1, 0, 1)]
    await asyncio.gather(*publishes)
    await stage.call("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.gather(*(stage.api(node, "publish", channel=channel, data=0) for node in (0, 1)))
    await _repair(stage, channel)
    return f"an entry {id_} that is none of the hub's in the stream of {channel}"


async def wrong_type(stage: Stage) -> str:
    """Overwrite a key of a channel with a string, and publish there."""
    channel = stage.chance.choice(stage.victims())
    suffix = stage.chance.choice([b".m", b".s"])
    await stage.call("SET", b"hub{%b}" % channel.encode() + suffix, "x")
    for number in range(10):
        await stage.api(number % 2, "publish", channel=channel, data=0)
    await stage.api(0, "history", channel=channel, limit=10)
    await _repair(stage, channel)
    return f"a key {suffix.decode()} of a wrong type in {channel}"


async def expired_position(stage: Stage) -> str:
    """Let the position of a channel expire, and its history with it or not; then publish there."""
    channel = stage.chance.choice(stage.victims())
    suffixes = stage.chance.choice([[b".m"], [b".m", b".s"]])
    await stage.calls([("PEXPIRE", b"hub{%b}" % channel.encode() + each, 1) for each in suffixes])
    await asyncio.sleep(0.01)
    await stage.api(0, "publish", channel=channel, data=0)
    return f"the position of {channel} expired"


async def _repair(stage: Stage, channel: str) -> None:
    await asyncio.sleep(REPAIR_S)
    name = b"hub{%b}" % channel.encode()
    await stage.call("DEL", name + b".m", name + b".s")
