"""Messages between nodes: the hub's reader beside PyPI `msgpack` and the types of the messages."""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec

from hub.node import bus_messages
from hub.node.bus_messages import AnyMessage, UnknownError, UnreadableError
from loadtests.fuzz.corpus import CHANNEL
from loadtests.fuzz.model import Pairs
from loadtests.fuzz.mutate import mutate, mutate_value
from loadtests.fuzz.target import PureTarget
from loadtests.fuzz.targets.msgpack_commands import WORDS, odd

REQUEST = b'{"user":"victim","channel":"%b"}' % CHANNEL.encode()
MESSAGES: tuple[dict[str, Any], ...] = (
    {"v": 1, "type": "hello", "node": "n"},
    {"v": 1, "type": "bye", "node": "n"},
    {
        "v": 1,
        "type": "call",
        "node": "n",
        "id": "n-1",
        "method": "unsubscribe",
        "request": REQUEST,
        "at": 1.5,
    },
    {
        "v": 1,
        "type": "call",
        "node": "n",
        "id": "n-2",
        "method": "disconnect",
        "request": REQUEST,
        "again": True,
    },
    {"v": 1, "type": "confirm", "node": "n", "id": "n-1"},
    {"v": 1, "type": "owner", "node": "n", "client": "c", "owner": "o", "id": "n-3", "at": 2, "again": False},
    {"v": 1, "type": "survey", "node": "n", "id": 7, "method": "info", "request": b"{}"},
    {"v": 1, "type": "survey", "node": "n", "id": 8, "method": "channels", "request": b'{"pattern":"*"}'},
    {"v": 1, "type": "answer", "node": "n", "id": 7, "result": b"[]"},
    {"v": 1, "type": "relay", "node": "n", "session": "s", "data": b'{"id":1,"ping":{}}'},
    {"v": 2, "type": "newer", "node": "n", "x": 1},
)
_BY_TYPE = {kind.__struct_config__.tag: kind for kind in typing.get_args(AnyMessage)}


def draw_message(chance: random.Random) -> bytes:
    """Return a message between nodes, as it should be or changed."""
    while True:
        message: Any = chance.choice(MESSAGES)
        for _ in range(chance.choice((0, 1, 1, 3))):
            message = mutate_value(message, chance, odd)
        try:
            data: bytes = msgpack.packb(message)
        except (OverflowError, ValueError):
            continue
        return mutate(data, chance, WORDS) if chance.random() < 0.4 else data


class BusMessages(PureTarget):
    name = "bus"

    def draw(self, chance: random.Random) -> bytes:
        return draw_message(chance)

    def check(self, data: bytes) -> Iterator[str]:
        wrong, fields = _read(data)
        try:
            message = bus_messages.decode(data)
        except UnknownError:
            if wrong is None and _is_known(fields):
                yield "hub does not know a type or a version"
            return
        except UnreadableError as exc:
            if wrong is None and _is_known(fields) and _is_typed(fields):
                odd = any(
                    isinstance(each, list | msgpack.ExtType | msgpack.Timestamp) for each in fields.values()
                )
                yield "hub refuses: an array or an extension" if odd else f"hub refuses: {str(exc)[:60]}"
            return
        if wrong is not None:
            yield f"hub accepts: {wrong}"
            return
        if not (_is_known(fields) and _is_typed(fields)):
            yield "hub accepts: a field of another type"
            return
        names = [name for name in message.__struct_fields__ if name in fields]
        # Compared as text: NaN, which a time may be, does not equal itself.
        if any(repr(getattr(message, name)) != repr(_float(message, name, fields[name])) for name in names):
            yield "another value"
        if repr(bus_messages.decode(bus_messages.encode(message))) != repr(message):
            yield "a message is another one after it was written and read"


def _read(data: bytes) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with a message by itself, and its fields."""
    try:
        value = msgpack.unpackb(data, object_pairs_hook=Pairs, strict_map_key=False, ext_hook=msgpack.ExtType)
    except Exception as exc:
        return f"no MessagePack: {type(exc).__name__}", {}
    if not isinstance(value, Pairs):
        return "no map", {}
    keys = [key for key, _ in value]
    if any(not isinstance(key, str) for key in keys):
        return "a key that is no text", {}
    fields = dict(value)
    if any(isinstance(each, Pairs) for each in fields.values()):
        return "a map in a map", fields
    return None, fields


def _is_known(fields: dict[str, Any]) -> bool:
    kind = fields.get("type")
    return fields.get("v") == bus_messages.VERSION and isinstance(kind, str) and kind in _BY_TYPE


def _is_typed(fields: dict[str, Any]) -> bool:
    if not fields.get("node"):
        return False
    hints = typing.get_type_hints(_BY_TYPE[fields["type"]])
    required = {
        each.encode_name for each in msgspec.structs.fields(_BY_TYPE[fields["type"]]) if each.required
    }
    return required <= fields.keys() and all(
        _is(fields[name], hint) for name, hint in hints.items() if name in fields and name != "type"
    )


def _float(message: AnyMessage, name: str, value: Any) -> Any:
    return float(value) if isinstance(getattr(message, name), float) else value


def _is(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_is(value, each) for each in typing.get_args(hint))
    return type(value) is hint or (hint is float and type(value) is int)
