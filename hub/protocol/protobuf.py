"""The Protobuf encoding: messages of client.proto, each behind its length as a varint, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from hub.protocol import client_pb2, messages
from hub.protocol.json import text_or_binary
from hub.protocol.messages import (
    PONG,
    Command,
    Fault,
    Publication,
    Publications,
    PublishRequest,
    Push,
    Reply,
)
from hub.protocol.payloads import octets

_Reader: TypeAlias = Callable[[Any], Any]

VALUES_MAX: Final = 4096
"""Most entries in a list or map of a command."""

_LENGTH_BYTES_MAX: Final = 5
"""Longest varint of a length, or an id, which have 32 bits."""

_ID_MAX: Final = 2**32 - 1
_BUILTIN: Final = (bytes, client_pb2.Publication)

_KEPT: Final = 1024
"""Beginnings of pushes that are kept for the next one like them, and as many publishers."""


class ProtobufCodec:
    """Protobuf in binary messages: the subprotocol `centrifuge-protobuf`."""

    name = "protobuf"
    is_text = False

    def decode(self, data: bytes) -> Iterable[Command | Fault]:
        """Read the commands of one message. One of no bytes is the pong."""
        publish = _publish(data)
        return self._each(data) if publish is None else (publish,)

    def _each(self, data: bytes) -> Iterator[Command | Fault]:
        at, end = 0, len(data)
        if not end:
            yield Fault(0, "an empty message")
        while at < end:
            length, start = read_length(data, at)
            at = start + length
            if length < 0 or at > end:
                yield Fault(0, "a command's length is broken, or beyond the message")
                return
            yield _command(data[start:at]) if length else PONG

    def encode(self, reply: Reply) -> bytes:
        """One reply, behind its length."""
        push = reply.push
        if push is not None and push.pub is not None:
            return _publication(push, push.pub)
        if reply.publish is not None:
            message = _ID + varint(reply.id) + _PUBLISHED
        else:
            fields = msgspec.to_builtins(reply, builtin_types=_BUILTIN, enc_hook=self._form)
            message = client_pb2.Reply(**fields).SerializeToString()
        return varint(len(message)) + message

    def _form(self, value: Any) -> Any:
        if not isinstance(value, Publications):
            return octets(value)
        if self not in value.encoded:
            fields = msgspec.to_builtins(value[:], builtin_types=_BUILTIN, enc_hook=octets)
            value.encoded[self] = [client_pb2.Publication(**each) for each in fields]
        return value.encoded[self]

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Replies as one message."""
        return b"".join(messages)


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """The length that stands here, below 0 where it does not end, and where its message begins."""
    if data[at] < 0x80:
        return data[at], at + 1
    length = shift = 0
    for byte in data[at : at + _LENGTH_BYTES_MAX]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return length, at + shift // 7
    return -1, at


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_VARINTS: Final = [_varint(number) for number in range(0x800)]


def varint(number: int) -> bytes:
    """A number as a varint."""
    return _VARINTS[number] if number < 0x800 else _varint(number)


def _key(message: type[Message], name: str) -> bytes:
    """What stands before the value of a field: its number, and whether a length follows it."""
    field = message.DESCRIPTOR.fields_by_name[name]
    return varint(field.number << 3 | (2 if field.type in _LONG else 0))


_LONG: Final = (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
_ID: Final = _key(client_pb2.Reply, "id")
_PUSH: Final = _key(client_pb2.Reply, "push")
_PUB: Final = _key(client_pb2.Push, "pub")
_DATA: Final = _key(client_pb2.Publication, "data")
_INFO: Final = _key(client_pb2.Publication, "info")
_OFFSET: Final = _key(client_pb2.Publication, "offset")
_COMMAND_ID: Final = _key(client_pb2.Command, "id")[0]
_PUBLISH: Final = _key(client_pb2.Command, "publish")[0]
_publish_request: Final = client_pb2.PublishRequest.FromString
_PUBLISHED: Final = client_pb2.Reply(publish={}).SerializeToString()
"""A publish result; behind an id it is the reply."""


def _publication(push: Push, pub: Publication) -> bytes:
    """The reply of a publication, behind its length, put together here: the one of which there are many."""
    head = _head(push.id, push.channel)
    data = octets(pub.data) if pub.data else b""
    rest = b""
    info = pub.info
    if info is not None:
        if info.conn_info or info.chan_info:
            rest = _info(msgspec.to_builtins(info, builtin_types=_BUILTIN, enc_hook=octets))
        else:
            rest = _publisher(info.user, info.client)
    if pub.offset:
        rest += _OFFSET + varint(pub.offset)
    if pub.tags or pub.delta or pub.time or pub.channel:
        others = client_pb2.Publication(tags=pub.tags, delta=pub.delta, time=pub.time, channel=pub.channel)
        rest += others.SerializeToString()
    before_head, before_data = _lengths(len(head), len(data), len(rest))
    return b"".join((before_head, head, before_data, data, rest))


@lru_cache(maxsize=_KEPT)
def _lengths(head: int, data: int, rest: int) -> tuple[bytes, bytes]:
    """What stands before the head of a push and before the payload in it, by the bytes of each part."""
    before_data = _DATA + varint(data) if data else b""
    size = len(before_data) + data + rest
    before_data = varint(size) + before_data
    before_head = _PUSH + varint(head + len(before_data) + data + rest)
    return varint(len(before_head) + head + len(before_data) + data + rest) + before_head, before_data


@lru_cache(maxsize=_KEPT)
def _head(id: int, channel: str) -> bytes:
    """A push as far as its publication."""
    return client_pb2.Push(id=id, channel=channel).SerializeToString() + _PUB


@lru_cache(maxsize=_KEPT)
def _publisher(user: str, client: str) -> bytes:
    return _info({"user": user, "client": client})


def _info(fields: dict[str, Any]) -> bytes:
    """The field of a publication that tells its publisher."""
    message = client_pb2.ClientInfo(**fields).SerializeToString()
    return _INFO + varint(len(message)) + message


def _command(message: bytes) -> Command | Fault:
    try:
        command: Command = _read_command(client_pb2.Command.FromString(message))
    except (DecodeError, ValueError) as exc:
        return Fault(_command_id(message), str(exc))
    return command


def _publish(data: bytes) -> Command | None:
    """The one command of a message, where it is a good publish behind its id, as every encoder writes it."""
    try:
        # Most numbers are of one byte, and a call for each would take as long as all the rest.
        length, at = (data[0], 1) if data[0] < 0x80 else read_length(data, 0)
        id, key_at = (data[at + 1], at + 2) if data[at + 1] < 0x80 else read_length(data, at + 1)
        size, start = (
            (data[key_at + 1], key_at + 2) if data[key_at + 1] < 0x80 else read_length(data, key_at + 1)
        )
        if data[at] != _COMMAND_ID or data[key_at] != _PUBLISH or id > _ID_MAX:
            return None
        if not at + length == start + size == len(data):
            return None
        request = _publish_request(data[start:])
        if request.type or request.key or request.removed or request.idempotency_key:
            return None
        return Command(id, publish=PublishRequest(request.channel, text_or_binary(request.data)))
    except (IndexError, DecodeError, ValueError):
        return None


def _command_id(message: bytes) -> int:
    """The id of a command that could not be read, or 0: what else is in it stays unread here."""
    try:
        return client_pb2.Identified.FromString(message).id
    except DecodeError:
        return 0


def _reader(descriptor: Any) -> _Reader:
    """What makes the struct of a message, both of the same name and with the same fields."""
    struct: type[msgspec.Struct] = getattr(messages, descriptor.name)
    readers = {field.name: _field_reader(field) for field in descriptor.fields}

    def read(message: Message) -> msgspec.Struct:
        fields = {}
        for field, value in message.ListFields():
            name = field.name
            reader = readers[name]
            fields[name] = reader(value) if reader else value
        return struct(**fields)

    if struct is messages.FilterNode:
        readers["nodes"] = _of_few(lambda nodes: tuple(map(read, nodes)))
    return read


def _field_reader(field: FieldDescriptor) -> _Reader | None:
    """What makes a field's value, where that is not the value as it is."""
    kind = field.message_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return text_or_binary
    if field.type == FieldDescriptor.TYPE_INT64:
        return _not_negative
    if field.is_repeated and kind and kind.GetOptions().map_entry:
        of_value = kind.fields_by_name["value"].message_type
        return _of_few(_map_reader(_reader(of_value)) if of_value else dict)
    if field.is_repeated:
        return _of_few(tuple)
    return _reader(kind) if kind else None


def _map_reader(read: _Reader) -> _Reader:
    return lambda entries: {name: read(entry) for name, entry in entries.items()}


def _of_few(read: _Reader) -> _Reader:
    """A reader of many, before each becomes an object here: a message of 2 bytes costs 200."""

    def read_few(several: Any) -> Any:
        if len(several) > VALUES_MAX:
            raise ValueError(f"more than {VALUES_MAX} values")
        return read(several)

    return read_few


def _not_negative(number: int) -> int:
    if number < 0:
        raise ValueError(f"expected a number from 0, got {number}")
    return number


_read_command: Final = _reader(client_pb2.Command.DESCRIPTOR)
