"""The Protobuf encoding: messages of client.proto, each behind its length as a varint, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from hub.protocol import client_pb2, messages
from hub.protocol.json import text_or_binary
from hub.protocol.messages import (
    PONG,
    ClientInfo,
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
"""Longest varint of a length, which has 32 bits."""

_BUILTIN: Final = (bytes, client_pb2.Publication)

_ID: Final = bytes((client_pb2.Reply.ID_FIELD_NUMBER << 3,))
_COMMAND_ID: Final = client_pb2.Command.DESCRIPTOR.fields_by_name["id"]
_PUBLISH: Final = client_pb2.Command.DESCRIPTOR.fields_by_name["publish"]
_PUBLISHED: Final = client_pb2.Reply(publish={}).SerializeToString()
"""A publish result; behind an id it is the reply."""


class ProtobufCodec:
    """Protobuf in binary messages: the subprotocol `centrifuge-protobuf`."""

    name = "protobuf"
    is_text = False

    def decode(self, data: bytes) -> Iterator[Command | Fault]:
        """Read the commands of one message. One of no bytes is the pong."""
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
            message = _publication(push, push.pub)
        elif reply.publish is not None:
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


_DIGITS: Final = [bytes((digit,)) for digit in range(0x80)]


def varint(number: int) -> bytes:
    """A number as a varint."""
    if number < 0x80:
        return _DIGITS[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _publication(push: Push, pub: Publication) -> bytes:
    """The reply of a publication, field by field: the one message of which there are many.

    One field of each part is set also where it has its default: the part is there then.
    """
    reply = client_pb2.Reply()
    reply.push.channel = push.channel
    if push.id:
        reply.push.id = push.id
    message = reply.push.pub
    message.offset = pub.offset
    if pub.data:
        message.data = octets(pub.data)
    if pub.info is not None:
        _put_info(message.info, pub.info)
    if pub.tags:
        message.tags.update(pub.tags)
    if pub.delta:
        message.delta = True
    if pub.time:
        message.time = pub.time
    if pub.channel:
        message.channel = pub.channel
    return reply.SerializeToString()


def _put_info(message: client_pb2.ClientInfo, info: ClientInfo) -> None:
    message.client = info.client
    if info.user:
        message.user = info.user
    if info.conn_info:
        message.conn_info = octets(info.conn_info)
    if info.chan_info:
        message.chan_info = octets(info.chan_info)


def _command(message: bytes) -> Command | Fault:
    try:
        parsed = client_pb2.Command.FromString(message)
        fields = parsed.ListFields()
        if len(fields) == 2 and fields[0][0] is _COMMAND_ID and fields[1][0] is _PUBLISH:
            publish = fields[1][1]
            request = PublishRequest(publish.channel, text_or_binary(publish.data))
            return Command(fields[0][1], publish=request)
        command: Command = _read_command(parsed)
    except (DecodeError, ValueError) as exc:
        return Fault(_command_id(message), str(exc))
    return command


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
