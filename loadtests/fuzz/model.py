"""The rules of the protocol for values, told a second time and in another way than by the hub's codecs."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
import msgspec
from msgspec import Meta, Raw, Struct
from support.dialects import DIALECTS

from hub.protocol import messages
from hub.protocol.messages import Payload, Publication, Push, Reply
from hub.protocol.payloads import Packed, octets

DEPTH_MAX: Final = 32
VALUES_MAX: Final = 4096


class Pairs(list[Any]):
    """A map as its pairs: nothing of it is lost where a key comes twice or cannot be hashed."""


def depth(value: Any) -> int:
    """How deep arrays and maps are nested."""
    deepest, level = 0, [value]
    while nested := [each for each in level if isinstance(each, list)]:
        deepest += 1
        level = [item for each in nested for item in _items(each)]
    return deepest


def _items(value: list[Any]) -> list[Any]:
    return [item for _, item in value] if isinstance(value, Pairs) else value


def walk(value: Any) -> Iterator[Any]:
    """A value and all values and keys in it."""
    yield value
    if isinstance(value, Pairs):
        for key, item in value:
            yield key
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def plain(value: Any) -> Any:
    """The value with maps as dicts, the last of equal keys kept."""
    if isinstance(value, Pairs):
        return {key: plain(item) for key, item in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def has_duplicates(value: Any) -> bool:
    """Whether a key comes twice in a map."""
    maps = (each for each in walk(value) if isinstance(each, Pairs))
    return any(len({repr(key) for key, _ in each}) < len(each) for each in maps)


def fits(value: Any, kind: Any, *, whole_floats: bool = False) -> bool:
    """Whether a plain value is one of a type of `hub.protocol.messages`; unknown fields are ignored.

    A member that is null counts as absent.

    Args:
        value: plain.
        kind: the type.
        whole_floats: whether 1.0 is an integer.
    """
    return _Fits(whole_floats).check(value, kind)


class _Fits:
    def __init__(self, whole_floats: bool) -> None:
        self._whole_floats = whole_floats

    def check(self, value: Any, kind: Any) -> bool:
        if kind is Payload or kind is Any:
            return True
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            low, high = _bounds(arguments[1:])
            return self.check(value, arguments[0]) and low <= value <= high
        if origin in (typing.Union, types.UnionType):
            return Raw in arguments or any(self.check(value, each) for each in arguments)
        if origin is dict:
            return isinstance(value, dict) and all(
                self.check(each, arguments[1]) or (each is None and _is_struct(arguments[1]))
                for each in value.values()
            )
        if origin in (list, tuple, Sequence):
            return isinstance(value, list) and all(self.check(each, arguments[0]) for each in value)
        if kind in (None, type(None)):
            return value is None
        if kind is int and self._whole_floats and isinstance(value, float):
            return value.is_integer()
        if _is_struct(kind):
            hints = typing.get_type_hints(kind, include_extras=True)
            return isinstance(value, dict) and all(
                self.check(value[name], hint) for name, hint in hints.items() if _has(value, name, hint)
            )
        return type(value) is kind


def _has(value: dict[str, Any], name: str, hint: Any) -> bool:
    """Whether a member is there: null counts as absent, but in payloads."""
    return name in value and (value[name] is not None or hint == Payload)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _bounds(marks: Iterable[Any]) -> tuple[float, float]:
    [meta] = [mark for mark in marks if isinstance(mark, Meta)]
    return (-math.inf if meta.ge is None else meta.ge), (math.inf if meta.le is None else meta.le)


def agrees(struct: Struct, value: dict[str, Any], payload: Any) -> str | None:
    """Compare a struct that the hub read with the map that it was read from.

    Args:
        struct: of the hub.
        value: plain.
        payload: tells whether a payload of the hub is a value: `payload(form, value) -> bool`.

    Returns:
        The path of the first field that differs.
    """
    defaults = type(struct)()
    hints = typing.get_type_hints(type(struct), include_extras=True)
    for name in struct.__struct_fields__:
        got = getattr(struct, name)
        if not _has(value, name, hints[name]):
            if got != getattr(defaults, name) and (got or hints[name] != Payload):
                return name
        elif hints[name] == Payload:
            if not payload(got, value[name]):
                return name
        elif (below := _agrees(got, value[name], payload)) is not None:
            return f"{name}{below}"
    return None


def _agrees(got: Any, want: Any, payload: Any) -> str | None:
    if isinstance(got, Struct):
        below = agrees(got, want, payload)
        return None if below is None else f".{below}"
    if isinstance(got, dict):
        want = {key: each for key, each in want.items() if each is not None}
        if got.keys() != want.keys():
            return ""
        found = (_agrees(got[key], want[key], payload) for key in got)
    elif isinstance(got, list | tuple):
        if len(got) != len(want):
            return ""
        found = (_agrees(*pair, payload) for pair in zip(got, want, strict=True))
    else:
        return None if got == want else ""
    return next((each for each in found if each is not None), None)


def close(got: Any, want: Any) -> bool:
    """Whether two values are equal, where an integer of more than 64 bits may be a float."""
    if isinstance(got, dict) and isinstance(want, dict):
        return got.keys() == want.keys() and all(close(got[key], want[key]) for key in got)
    if isinstance(got, list) and isinstance(want, list):
        return len(got) == len(want) and all(map(close, got, want))
    if type(want) is int and not -(2**63) <= want < 2**64:
        return isinstance(got, int | float) and (got == want or got == _float(want))
    return bool(got == want) and isinstance(got, bool) == isinstance(want, bool)


def _float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def shown(data: Any) -> Iterator[str]:
    """Write a payload that the hub accepted for subscribers of each encoding, and have others read it.

    Yields the kinds of what goes wrong.
    """
    reply = Reply(push=Push(channel="c", pub=Publication(data=data)))
    want = _shown_in_json(data)
    for name, dialect in DIALECTS.items():
        try:
            [read] = dialect.read(dialect.codec.join([dialect.codec.encode(reply)]))
        except Exception as exc:
            yield f"a payload that was accepted fails at a subscriber in {name}: {type(exc).__name__}"
            continue
        got = read["push"]["pub"].get("data", b"" if name == "protobuf" else None)
        if name == "protobuf":
            same = got == octets(data)
        elif name == "msgpack" and not isinstance(data, Raw):
            same = got == messages.value(data)
        else:
            # JSON text that MessagePack has no form of is a text there.
            same = close(got, want) or (name == "msgpack" and got == bytes(data).decode())
        if not same:
            yield f"a subscriber in {name} reads another payload than was sent"


def _shown_in_json(data: Any) -> Any:
    if isinstance(data, Raw):
        return json.loads(bytes(data))
    return json.loads(msgspec.json.encode(messages.value(data)))


def written(reply: Reply) -> Iterator[str]:
    """Write a reply in each encoding, and have others read it. Yields the kinds of what goes wrong."""
    for name, dialect in DIALECTS.items():
        try:
            dialect.read(dialect.codec.join([dialect.codec.encode(reply)]))
        except Exception as exc:
            yield f"a reply cannot be written or read in {name}: {type(exc).__name__}"


def payloads_of(command: messages.Command) -> Iterator[Any]:
    """The payloads of a command."""
    for request in command.requests():
        if data := getattr(request, "data", None):
            yield data


def json_is(form: Any, want: Any) -> bool:
    """Whether a payload that came as JSON is a value."""
    return isinstance(form, Raw) and close(json.loads(bytes(form)), want)


def msgpack_is(form: Any, want: Any) -> bool:
    """Whether a payload that came as MessagePack is a value."""
    got = msgpack.unpackb(form.data, strict_map_key=False) if isinstance(form, Packed) else form
    return type(got) is type(want) and bool(got == want)
