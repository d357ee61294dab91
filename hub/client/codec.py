"""The client's side of an encoding: commands into messages, messages into replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from msgspec import Raw

from hub.protocol import client_pb2, messages
from hub.protocol.messages import Command, ConnectResult, Payload, Reply
from hub.protocol.msgpack import measure
from hub.protocol.payloads import octets
from hub.protocol.protobuf import read_length, varint


class ClientCodec(Protocol):
    """Commands into bytes, bytes into replies. A payload is a `Raw` in the encoding's own bytes."""

    @property
    def subprotocol(self) -> str:
        """What the handshake asks for."""

    @property
    def binary(self) -> bool:
        """Whether messages are binary, and not text."""

    def encode(self, command: Command) -> bytes:
        """One command, not yet joined with others."""

    def join(self, commands: Sequence[bytes]) -> bytes:
        """Encoded commands as one message."""

    def decode(self, message: bytes) -> list[Reply]:
        """The replies in one message.

        Raises:
            ValueError: it is none that a hub sends.
        """

    def payload(self, value: Any) -> Raw:
        """A value as a payload.

        Raises:
            TypeError: it has no form in this encoding.
        """

    def value(self, payload: Payload) -> Any:
        """The value of a payload, None for none.

        Raises:
            ValueError: it cannot be read.
        """


class ClientJSONCodec:
    """JSON in text messages, a line for each command or reply."""

    subprotocol: Final = "centrifuge-json"
    binary: Final = False

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Reply)

    def encode(self, command: Command) -> bytes:
        return self._encoder.encode(command)

    def join(self, commands: Sequence[bytes]) -> bytes:
        return b"\n".join(commands)

    def decode(self, message: bytes) -> list[Reply]:
        with _as_value_error():
            return [self._decoder.decode(line) for line in message.split(b"\n") if line]

    def payload(self, value: Any) -> Raw:
        return Raw(self._encoder.encode(value))

    def value(self, payload: Payload) -> Any:
        if not isinstance(payload, Raw):
            return None
        with _as_value_error():
            return msgspec.json.decode(payload)


class ClientMessagePackCodec:
    """MessagePack in binary messages, the maps of the JSON model one after another."""

    subprotocol: Final = "hub-msgpack"
    binary: Final = True

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Reply)

    def encode(self, command: Command) -> bytes:
        return self._encoder.encode(command)

    def join(self, commands: Sequence[bytes]) -> bytes:
        return b"".join(commands)

    def decode(self, message: bytes) -> list[Reply]:
        replies = []
        at = 0
        while at < len(message):
            end, _, fault = measure(message, at)
            if end < 0:
                raise ValueError(fault)
            with _as_value_error():
                replies.append(self._decoder.decode(message[at:end]))
            at = end
        return replies

    def payload(self, value: Any) -> Raw:
        return Raw(self._encoder.encode(value))

    def value(self, payload: Payload) -> Any:
        if not isinstance(payload, Raw):
            return None
        with _as_value_error():
            return msgspec.msgpack.decode(payload)


class ClientProtobufCodec:
    """Protobuf in binary messages, each command or reply behind its length.

    A payload is JSON text by convention, and `bytes` are themselves; what comes and is no JSON is binary.
    """

    subprotocol: Final = "centrifuge-protobuf"
    binary: Final = True

    def encode(self, command: Command) -> bytes:
        fields = msgspec.to_builtins(command, builtin_types=(bytes,), enc_hook=octets)
        message = client_pb2.Command(**fields).SerializeToString()
        return varint(len(message)) + message

    def join(self, commands: Sequence[bytes]) -> bytes:
        return b"".join(commands)

    def decode(self, message: bytes) -> list[Reply]:
        replies = []
        at = 0
        while at < len(message):
            length, start = read_length(message, at)
            at = start + length
            if length < 0 or at > len(message):
                raise ValueError("a reply's length is broken, or beyond the message")
            with _as_value_error():
                replies.append(_struct(client_pb2.Reply.FromString(message[start:at])))
        return replies

    def payload(self, value: Any) -> Raw:
        return Raw(value if isinstance(value, bytes) else msgspec.json.encode(value))

    def value(self, payload: Payload) -> Any:
        if not isinstance(payload, Raw | bytes):
            return None
        try:
            return msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return bytes(payload)


def _struct(message: Message) -> Any:
    """The struct of the same name, with the fields that are set."""
    name = message.DESCRIPTOR.name
    kind = ConnectResult if name == "ConnectPush" else getattr(messages, name)
    return kind(**{field.name: _field(field, value) for field, value in message.ListFields()})


def _field(field: FieldDescriptor, value: Any) -> Any:
    kind = field.message_type
    if kind is None:
        return value
    if kind.GetOptions().map_entry:
        is_plain = kind.fields_by_name["value"].message_type is None
        return dict(value) if is_plain else {key: _struct(each) for key, each in value.items()}
    return [_struct(each) for each in value] if field.is_repeated else _struct(value)


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Whatever is wrong with bytes that cannot be decoded, as the one error that a codec raises."""
    try:
        yield
    except (msgspec.MsgspecError, DecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from None


CODECS: Final[dict[str, ClientCodec]] = {
    "json": ClientJSONCodec(),
    "msgpack": ClientMessagePackCodec(),
    "protobuf": ClientProtobufCodec(),
}
"""By name."""
