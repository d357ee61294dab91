"""The messages between nodes, as MessagePack: versioned, flat, and bounded in size.

A message is a map of scalars and byte strings. `v` is the version of the format, `type` the kind of message.
A reader ignores versions, types and fields that it does not know: nodes of two releases work together.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgpack  # type: ignore[import-untyped]
import msgspec
from msgspec import Struct

VERSION: Final = 1

MESSAGE_BYTES_MAX: Final = 16_777_216
"""A larger message is not read, and not sent: an answer about very many channels is the largest."""

LOGGED_BYTES_MAX: Final = 131_072
"""A larger message is not appended to the log, of which Redis keeps thousands."""

FIELDS_MAX: Final = 32


class UnreadableError(ValueError):
    """Bytes that are no message of this version; the text says why."""


class UnknownError(ValueError):
    """A message of a version or a type that this release does not know."""


class BusMessage(Struct, tag_field="type", kw_only=True):
    """Base of all messages.

    Args:
        node: id of the node that sends it.
    """

    node: str = ""


class Hello(BusMessage, tag="hello"):
    """The node is there."""


class Bye(BusMessage, tag="bye"):
    """The node ends."""


class BusCommand(BusMessage, tag="call"):
    """Every node is to do this to the connections that it holds, in the order of the log.

    Args:
        id: of the call, unique over all nodes and their lives.
        at: Unix seconds at which it was made.
        again: whether it is appended once more, since the broker lost the log.
        method: of the server API.
        request: of that method, as JSON.
    """

    id: str
    method: str
    request: bytes
    at: float = 0.0
    again: bool = False


class Confirm(BusMessage, tag="confirm"):
    """The node did what a call asked for, or refused to.

    Args:
        id: of the call.
        code: of the error that the node refused with; 0 where it did what was asked.
        reason: of the error.
    """

    id: str
    code: int = 0
    reason: str = ""


class OwnerChanged(BusMessage, tag="owner"):
    """A session has another owner now, or ended.

    Args:
        id: as for `BusCommand`.
        at, again: as for `BusCommand`.
        client: id of the session's client.
        owner: the socket that has the session; empty where it ended.
        before: the socket that the session's reconnect token was sent to; empty where it ended.
    """

    client: str
    owner: str
    before: str = ""
    id: str = ""
    at: float = 0.0
    again: bool = False


class Survey(BusMessage, tag="survey"):
    """Every node is to answer with what it knows.

    Args:
        id: of the survey, unique on the node that asks.
        method: of the server API.
        request: of that method, as JSON.
    """

    id: int
    method: str
    request: bytes


class Answer(BusMessage, tag="answer"):
    """What a node knows.

    Args:
        id: of the survey.
        result: of the method, as JSON.
    """

    id: int
    result: bytes


class Relay(BusMessage, tag="relay"):
    """A node is to take this as if the client had sent it there.

    Args:
        session: of the client.
        data: what it sent.
    """

    session: str
    data: bytes


Logged: TypeAlias = BusCommand | OwnerChanged
"""Messages that change state on other nodes: they are in the log, and no node misses one."""

AnyMessage: TypeAlias = Hello | Bye | BusCommand | Confirm | OwnerChanged | Survey | Answer | Relay

TYPES: Final = frozenset({"hello", "bye", "call", "confirm", "owner", "survey", "answer", "relay"})


def encode(message: AnyMessage) -> bytes:
    """A message as bytes.

    Raises:
        ValueError: it is larger than `MESSAGE_BYTES_MAX`.
    """
    fields: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    data: bytes = msgpack.packb({"v": VERSION, **fields})
    if len(data) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message between nodes is at most {MESSAGE_BYTES_MAX} bytes, not {len(data)}")
    return data


def decode(data: bytes) -> AnyMessage:
    """Read a message.

    Raises:
        UnknownError: it is of a version or a type that this release does not know.
        UnreadableError: it is no message.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise UnreadableError(f"it has {len(data)} bytes, {MESSAGE_BYTES_MAX} at the most")
    try:
        fields = msgpack.unpackb(
            data,
            max_map_len=FIELDS_MAX,
            max_array_len=0,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises exceptions of many kinds, all of them about these bytes
        raise UnreadableError(f"it is not MessagePack: {error}") from None
    if not isinstance(fields, dict) or any(isinstance(value, dict) for value in fields.values()):
        raise UnreadableError("it is not a flat map")
    version, kind = fields.pop("v", None), fields.get("type")
    if version != VERSION or not isinstance(kind, str) or kind not in TYPES:
        raise UnknownError(f"version {version!r}, type {kind!r}")
    try:
        message: AnyMessage = msgspec.convert(fields, AnyMessage, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise UnreadableError(str(error)) from None
    if not message.node:
        raise UnreadableError("it names no node")
    return message
