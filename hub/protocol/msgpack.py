"""The MessagePack encoding: the maps of the JSON model one after another, in both directions.

The format is the MessagePack specification's; what of it is not taken from a client, `measure` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from hub.protocol.json import DEPTH_MAX, count_keys
from hub.protocol.messages import PONG, Command, ConnectRequest, Fault, Publications, Reply, Request
from hub.protocol.nulls import without_nulls
from hub.protocol.payloads import NO_PAYLOAD, Packed, Payload, Quoted

VALUES_MAX: Final = 4096
"""Most values in a command or a payload, at all levels."""

_EMPTY_MAP: Final = b"\x80"
_MAP_OF_TWO: Final = b"\x82"
_PLAIN: Final = frozenset({str, int, bool, type(None), bytes})
_NESTED: Final = frozenset({dict, list})
_OWN: Final = (bytes, Packed)
"""Payloads that are here what they came as."""


class MessagePackCodec:
    """MessagePack in binary messages: the subprotocol `hub-msgpack`."""

    name = "msgpack"
    is_text = False

    def __init__(self) -> None:
        self._decoder = msgspec.msgpack.Decoder(Command)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_as_it_is)

    def decode(self, data: bytes) -> Iterable[Command | Fault]:
        """Read the commands of one message."""
        command = self._publish(data)
        return self._each(data) if command is None else (command,)

    def _publish(self, data: bytes) -> Command | None:
        """The one command of a message, where it is a publish, and shows without a walk over its bytes that
        nothing is wrong with it.

        It has not the bytes for too many values. What is written just as it would be here has no key twice.
        """
        if data[:1] != _MAP_OF_TWO or len(data) > VALUES_MAX:
            return None
        try:
            command = self._decoder.decode(data)
            publish = command.publish
            if not (command.id and publish and publish.data) or self._encoder.encode(command) != data:
                return None
            packed = bytes(publish.data)  # type: ignore[arg-type] # a Raw, as it was just decoded
            value = msgspec.msgpack.decode(packed)
            if not _is_plain((value,), DEPTH_MAX - 1) or self._encoder.encode(value) != packed:
                return None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        publish.data = value if type(value) is bytes else Packed(packed)
        return command

    def _each(self, data: bytes) -> Iterator[Command | Fault]:
        at = 0
        while at < len(data) or not data:
            end, keys, fault = measure(data, at)
            if end < 0:
                yield Fault(0, fault)
                return
            command = data[at:end]
            at = end
            if command == _EMPTY_MAP:
                yield PONG
            elif fault:
                yield Fault(_first_id(command), fault)
            else:
                yield self._command(command, keys)

    def _command(self, data: bytes, keys: int) -> Command | Fault:
        value = None
        try:
            value = msgspec.msgpack.decode(data)  # of payloads too: their text must be UTF-8
            command = self._decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            return Fault(_id_of(value) or _first_id(data), str(exc))
        if count_keys(value) != keys:
            return Fault(_id_of(value), "duplicate key")
        return _taken(command)

    def _decode(self, data: bytes) -> Command:
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError:
            return self._decoder.decode(without_nulls(data, msgspec.msgpack))

    def encode(self, reply: Reply) -> bytes:
        """One reply."""
        if reply.publish is not None:
            return self._encoder.encode(reply)
        pub = reply.push.pub if reply.push is not None else None
        if pub is not None and type(pub.data) in _OWN:
            info = pub.info
            if info is None or not (info.conn_info or info.chan_info):
                return self._encoder.encode(reply)  # nothing in it has another form here
        return self._encode(reply)

    def _encode(self, value: Any) -> bytes:
        fields = msgspec.to_builtins(value, builtin_types=_OWN, enc_hook=self._form)
        try:
            return self._encoder.encode(fields)
        except OverflowError:
            return self._encoder.encode(_fitting(fields))

    def _form(self, value: Any) -> Any:
        if isinstance(value, Quoted):
            return value.data
        if not isinstance(value, Publications):
            return _value_of(value)
        if self not in value.encoded:
            value.encoded[self] = Packed(self._encode(value[:]))
        return value.encoded[self]

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Replies as one message."""
        return b"".join(messages)


def _as_it_is(payload: Any) -> Raw:
    assert isinstance(payload, Packed), f"{type(payload).__name__} has no MessagePack"
    return Raw(payload.data)


def checked(data: bytes) -> Packed:
    """The payload of a value that another node took from a client.

    Raises:
        ValueError: it is no value of which every encoding has a form.
    """
    if not _is_plain((msgspec.msgpack.decode(data),), DEPTH_MAX):
        raise ValueError("a payload that not every encoding has a form of")
    return Packed(data)


def _value_of(text: Raw) -> Any:
    """The value of a JSON text, or the text where it has none here, such as 1e999.

    The hub refuses such texts, but another writer to Redis may have left one in a channel. It must not keep
    what else is sent from the subscribers.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return bytes(text).decode()


def _fitting(value: Any) -> Any:
    """The same, with integers beyond 64 bits, which JSON text may hold, as floats."""
    if isinstance(value, dict):
        return {key: _fitting(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_fitting(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:  # a number that the hub refuses, from another writer to Redis
            return math.inf if value > 0 else -math.inf
    return value


def _is_plain(value: dict[Any, Any] | Sequence[Any], levels: int) -> bool:
    """Whether it is at most so many levels deep, its keys are strings, and each encoding has a form of it."""
    items: Iterable[Any] = value
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                return False
        items = value.values()
    for item in items:
        kind = type(item)
        if kind is float:
            if not math.isfinite(item):
                return False
        elif kind not in _PLAIN and not (kind in _NESTED and levels > 1 and _is_plain(item, levels - 1)):
            return False
    return True


def _taken(command: Command) -> Command:
    """A command with the forms of its payloads."""
    for request in command.requests():
        _take_payload(request)
        if isinstance(request, ConnectRequest):
            for subscribe in request.subs.values():
                _take_payload(subscribe)
    return command


def _take_payload(request: Request) -> None:
    """Put the form of a payload in place of the bytes that the decoder left of it."""
    data: Payload = getattr(request, "data", NO_PAYLOAD)
    if isinstance(data, Raw):
        packed = bytes(data)
        binary = packed[0] in _BINARY_HEADS
        request.data = msgspec.msgpack.decode(packed) if binary else Packed(packed)  # type: ignore[union-attr]


def _id_of(value: Any) -> int:
    """The id of a command that is none, or 0."""
    number = value.get("id") if isinstance(value, dict) else None
    return number if type(number) is int and 0 < number < 2**32 else 0


def _first_id(data: bytes) -> int:
    """The id of a command that is not or cannot be decoded, where it comes first as in an SDK's, or 0."""
    if data[0] & 0xF0 != 0x80 or data[1:4] != b"\xa2id":
        return 0
    end, _, _ = measure(data, 4)
    number = msgspec.msgpack.decode(data[4:end]) if data[4] < 0x80 or 0xCC <= data[4] <= 0xCE else 0
    return _id_of({"id": number})


_CUT_SHORT: Final = (-1, 0, "a command is cut short")
_BINARY_HEADS: Final = b"\xc4\xc5\xc6"
_TEXT_HEADS: Final = frozenset([*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB])
_FLOATS: Final = {0xCA: 5, 0xCB: 9}
_WIDTHS: Final = {
    **{0xC4: 1, 0xC5: 2, 0xC6: 4},  # bin
    **{0xC7: 1, 0xC8: 2, 0xC9: 4},  # ext
    **{0xD9: 1, 0xDA: 2, 0xDB: 4},  # str
    **{0xDC: 2, 0xDD: 4},  # array
    **{0xDE: 2, 0xDF: 4},  # map
}
"""Bytes of the length or count behind these heads."""


def _size_of(head: int) -> int:
    """The size of a value with this head, where the head tells; 0 where more has to be looked at."""
    if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):
        return 1
    if 0xA0 <= head < 0xC0:
        return 1 + head - 0xA0
    if 0xCC <= head < 0xD4:
        return 1 + (1 << (head & 3))
    return 0


_SIZES: Final = bytes(map(_size_of, range(256)))


def measure(data: bytes, at: int) -> tuple[int, int, str]:
    """Walk over one value, and make no object of it.

    Args:
        data: holds it.
        at: where it begins.

    Returns:
        Where it ends, below 0 where that cannot be told; how many keys its maps have; and what is wrong with
        it: what another encoding has no form for, or what would take memory out of all proportion.
    """
    fault = ""
    keys = 0
    values = left = 1  # of all, and still to come in the innermost array or map
    outer: list[int] = []  # of those around it, twice what is left, and one more in a map
    in_map = 0
    end = len(data)
    while True:
        while not left:
            if not outer:
                return (at, keys, fault) if at <= end else _CUT_SHORT
            rest = outer.pop()
            left, in_map = rest >> 1, rest & 1
        if at >= end:
            return _CUT_SHORT
        head = data[at]
        if in_map and not left & 1 and head not in _TEXT_HEADS:
            fault = fault or "a key that is no string"
        left -= 1
        size = _SIZES[head]
        if size:
            at += size
            continue
        if head in _FLOATS:
            fault = fault or _float_fault(data[at + 1 : at + 3], head)
            at += _FLOATS[head]
            continue
        count = 0
        if head < 0xA0:
            at += 1
            count = head & 0x0F
        elif width := _WIDTHS.get(head, 0):
            count = int.from_bytes(data[at + 1 : at + 1 + width])
            at += 1 + width
        elif head >= 0xD4:  # ext of a fixed size
            at += 2 + (1 << head - 0xD4)
        else:
            return -1, 0, "a byte that begins no value"
        if 0xC7 <= head <= 0xC9 or 0xD4 <= head <= 0xD8:
            fault = fault or "an extension type"
            at += count + (head < 0xD0)
        elif head in _BINARY_HEADS or head in _TEXT_HEADS:
            at += count
        else:
            outer.append(left << 1 | in_map)
            in_map = int(head < 0x90 or head >= 0xDE)
            keys += count * in_map
            left = count << in_map
            values += left
            if at + left > end:
                return -1, 0, "a count beyond the message"
            if len(outer) > DEPTH_MAX:
                fault = fault or f"nested deeper than {DEPTH_MAX}"
            if values > VALUES_MAX:
                fault = fault or f"more than {VALUES_MAX} values"


def _float_fault(top: bytes, head: int) -> str:
    """What is wrong with a float, by its first two bytes: JSON has neither infinities nor NaN (IEEE 754)."""
    exponent = int.from_bytes(top) & 0x7FFF
    infinite = exponent >= 0x7F80 if head == 0xCA else exponent >= 0x7FF0
    return "a number that is not finite" if infinite else ""
