"""A payload: the `data` or `info` of an app, which stays in the form that it came in.

It is JSON text, a `Raw`; binary, `bytes`; or a value in MessagePack, a `Packed`. Each was checked where it
came in, so that every encoding has a form for it:

| | JSON text | binary | MessagePack |
| in JSON | as it is | base64 text | its JSON, binary parts in base64 |
| in Protobuf | as it is | as it is | its JSON |
| in MessagePack | its value | as it is | as it is |

To a subscriber that takes deltas it goes as a `Quoted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from hub.protocol.jsonable import json_text


class Packed:
    """A payload in MessagePack.

    Args:
        data: one value, of which every encoding has a form.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data: Final = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)


class Quoted:
    """What stands for a payload where a subscriber takes deltas: it, or a delta, to be looked into by nobody.

    In JSON it is a string of what would stand there without deltas, in Protobuf bytes, in MessagePack a
    string, or binary.

    Args:
        data: JSON text, or a delta of such; or what a binary payload is.
    """

    __slots__ = ("data",)

    def __init__(self, data: str | bytes) -> None:
        self.data: Final = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quoted) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)


if TYPE_CHECKING:
    Payload: TypeAlias = Raw | bytes | Packed | Quoted | UnsetType
else:
    # What JSON is decoded to, by the types of messages: other forms do not come from there.
    Payload = Raw | UnsetType

NO_PAYLOAD: Final = UNSET
"""The absent payload: false, and left out of an encoded message."""


def payload(value: Any, name: str = "data") -> Raw | bytes | Packed:
    """The payload of a value that the hub or an app made (never a client's, which stays as it came).

    Args:
        value: `bytes`, which are binary, or anything that `json_text` encodes; a `Raw` is JSON text.
        name: what an error calls the value.

    Raises:
        TypeError, ValueError: the value has no JSON form. The text says which part, and the remedy.
    """
    return value if isinstance(value, Raw | bytes | Packed) else Raw(json_text(value, name))


def value(data: Payload) -> Any:
    """The Python value of a payload that was checked when it came: `bytes` of a binary one, None of none."""
    if isinstance(data, Raw):
        return msgspec.json.decode(data)
    if isinstance(data, Packed):
        return msgspec.msgpack.decode(data.data)
    return data or None


def octets_of(data: Payload) -> int:
    """How many bytes a payload has in the form that it is in."""
    return len(data.data if isinstance(data, Packed | Quoted) else data) if data else 0


def octets(data: Any) -> bytes:
    """A payload as bytes: JSON text, or what a binary one is.

    Raises:
        TypeError: it is no payload.
    """
    if isinstance(data, Raw):
        return bytes(data)
    if isinstance(data, Packed):
        return msgspec.json.encode(value(data))
    if isinstance(data, bytes):
        return data
    if isinstance(data, Quoted):
        return data.data.encode() if isinstance(data.data, str) else data.data
    raise TypeError(f"a payload is Raw, bytes, Packed or Quoted, got {type(data).__name__}")


def in_json(data: Any) -> Raw:
    """The `enc_hook` of an encoder to JSON, for what it has no form of by itself.

    Raises:
        TypeError: it is no payload.
    """
    if isinstance(data, Quoted):
        return Raw(msgspec.json.encode(data.data if isinstance(data.data, str) else _in_json(data.data)))
    return Raw(octets(data))


def _in_json(data: bytes) -> str:
    """The JSON text of a binary payload."""
    return msgspec.json.encode(data).decode()
