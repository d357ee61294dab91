"""What lies in Redis and travels through it: publications, joins and leaves, also those of foreign writers.

There is no second reader of these. What the hub reads must reach a subscriber of every encoding, and SDKs and
others must read it there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from hub.broker.redis.envelope import (
    Unreadable,
    decode_entry,
    decode_envelope,
    decode_info,
    info_of,
    publication_of,
)
from hub.protocol.messages import ClientInfo, Join, Publication, Push, Reply
from loadtests.fuzz import model
from loadtests.fuzz.mutate import ODD_JSON, mutate, mutate_value, odd_value
from loadtests.fuzz.target import PureTarget
from loadtests.fuzz.targets.msgpack_commands import WORDS
from loadtests.fuzz.targets.msgpack_commands import odd as odd_packed

INFO = ["ann", "c1", b'{"n":1}', None]
BODIES: tuple[list[Any], ...] = (
    [0, b'{"text":"hello"}', None, None, 0],
    [0, b'"x"', INFO, {"k": "v"}, 1_700_000_000_000],
    [3, b"[1,2,3]", None, None, 5],
    [1, None, INFO, None, 0],
    [2, None, ["", "c2"], None, 0],
    [0, msgpack.ExtType(1, b"\x00\xff"), None, None, 0],
    [0, msgpack.ExtType(2, msgpack.packb({"a": [1, b"x", 1.5]})), None, None, 0],
    [0, b"1", ["u", "c", msgpack.ExtType(2, b"\x01"), b"{}"], {}, 0],
    [0, b"1", None, None, 0, "later"],
)


def draw_body(chance: random.Random) -> list[Any]:
    """Return a body, as it should be or changed in its payload or its fields."""
    body = list(chance.choice(BODIES))
    if chance.random() < 0.4:
        body[1] = chance.choice((_odd_text, _odd_packed))(chance)
    if chance.random() < 0.3:
        changed = mutate_value(body, chance, odd_packed)
        body = changed if isinstance(changed, list) else [changed]
    return body


def _odd_text(chance: random.Random) -> bytes:
    return chance.choice(ODD_JSON).encode(errors="surrogatepass")


def _odd_packed(chance: random.Random) -> Any:
    while True:
        try:
            return msgpack.ExtType(2, msgpack.packb(mutate_value({"a": [1, {"b": 2}]}, chance, odd_packed)))
        except (OverflowError, ValueError):
            continue


def pack(value: Any) -> bytes | None:
    """The MessagePack of a value, if it has one."""
    try:
        data: bytes = msgpack.packb(value)
    except (OverflowError, ValueError):
        return None
    return data


class Envelopes(PureTarget):
    name = "envelopes"

    def draw(self, chance: random.Random) -> bytes:
        while True:
            envelope: Any = [chance.choice((0, 1, 5, 2**40)), chance.choice(("", "e")), draw_body(chance)]
            if chance.random() < 0.1:
                envelope = mutate_value(envelope, chance, odd_value)
            data = pack(envelope)
            if data is not None:
                return mutate(data, chance, WORDS) if chance.random() < 0.3 else data

    def check(self, data: bytes) -> Iterator[str]:
        try:
            decode_info(data)
            yield from _shown(decode_entry(7, data))
        except Unreadable:
            pass
        try:
            envelope = decode_envelope(data)
            body = envelope.body
            publication = publication_of(envelope.offset, body)
            info = info_of(body)
        except Unreadable:
            return
        yield from _shown(publication)
        yield from _shown(Publication(info=info))


def _shown(publication: Publication) -> Iterator[str]:
    """Write for subscribers what the hub read, and have others read it."""
    if publication.data:
        yield from model.shown(publication.data)
    info = publication.info
    if info is not None:
        for payload in (info.conn_info, info.chan_info):
            if payload:
                yield from model.shown(payload)
    tags, joined = publication.tags, info or ClientInfo()
    pushes = (
        Push(
            channel="c",
            pub=Publication(info=info, tags=tags, time=publication.time, offset=publication.offset),
        ),
        Push(channel="c", join=Join(joined)),
    )
    for push in pushes:
        yield from model.written(Reply(push=push))
