"""Commands in Protobuf: the hub's reader beside the classes of an SDK and the framing of google.protobuf."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from centrifuge.protocol import client_pb2 as theirs  # type: ignore[import-untyped]
from google.protobuf.internal import decoder
from google.protobuf.message import DecodeError
from support.dialects import delimited, from_protobuf

from hub.protocol.messages import Fault
from hub.protocol.payloads import octets
from hub.protocol.protobuf import ProtobufCodec
from loadtests.fuzz import model
from loadtests.fuzz.corpus import draw_command
from loadtests.fuzz.mutate import ODD_BYTES, ODD_JSON, json_text, mutate, odd_value
from loadtests.fuzz.target import PureTarget
from loadtests.fuzz.targets.json_commands import read as read_json

TAGS = tuple(bytes((field << 3 | kind,)) for field in range(16) for kind in (0, 1, 2, 5))
WORDS = (
    *TAGS,
    *ODD_BYTES,
    *(
        b"\x80\x00",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\x7f",
        b"\xff" * 9 + b"\x01",
        b"\x0b\x0c",
        b"\x08\x01",
    ),
    *(word.encode(errors="surrogatepass") for word in ODD_JSON if len(word) < 200),
    b"\x3a\x00" * 4097,
)
_PAYLOADS = ("data", "conn_info", "chan_info")


class ProtobufCommands(PureTarget):
    name = "protobuf"

    def __init__(self) -> None:
        self._codec = ProtobufCodec()

    def draw(self, chance: random.Random) -> bytes:
        messages = [self._write(chance) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        if chance.random() < 0.5:
            # Inside a message, so that its length stays right.
            messages = [mutate(message, chance, WORDS) for message in messages]
        data = b"".join(map(delimited, messages))
        return mutate(data, chance, WORDS) if chance.random() < 0.3 else data

    def _write(self, chance: random.Random) -> bytes:
        while True:
            try:
                command = theirs.Command(**_fields(draw_command(chance, odd_value), chance))
                data: bytes = command.SerializeToString()
            except (TypeError, ValueError, AttributeError, KeyError, OverflowError):
                continue  # a field of another type cannot be written at all
            return data

    def check(self, data: bytes) -> Iterator[str]:
        results = list(self._codec.decode(data))
        messages, ended = split(data)
        for message, result in zip(messages, results, strict=False):
            yield from self._compare(message, result)
        rest = results[len(messages) :]
        if len(results) < len(messages):
            yield "the hub reads fewer commands"
        elif ended and not (len(rest) == 1 and isinstance(rest[0], Fault) and not rest[0].id):
            yield f"the hub does not refuse: {ended}"
        elif not ended and rest and data:
            yield "the hub reads more commands"

    def _compare(self, message: bytes, result: Any) -> Iterator[str]:
        try:
            command = theirs.Command.FromString(message)
        except DecodeError:
            if not isinstance(result, Fault):
                yield "hub accepts a message that is no command"
            return
        value = from_protobuf(command)
        wrong = _wrong(value)
        if isinstance(result, Fault):
            yield f"hub refuses: {wrong}" if wrong else f"hub refuses a command: {result.reason[:60]}"
            if result.id != command.id:
                yield "another id in a fault"
            return
        if wrong is not None:
            yield f"hub accepts: {wrong}"
        differs = model.agrees(result, value, _is)
        if differs is not None and differs.endswith((".type", ".phase")):
            yield "the hub reads type and phase of a subscription"
        elif differs is not None:
            yield f"another value: {differs}"
        for payload in model.payloads_of(result):
            yield from model.shown(payload)


def _fields(command: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A command with its payloads as bytes: JSON text, or now and then binary."""
    fields = {}
    for name, value in command.items():
        if name in _PAYLOADS:
            text = json_text(value, chance)
            value = text if chance.random() < 0.8 else chance.randbytes(chance.randrange(40))
        elif isinstance(value, dict):
            value = _fields(value, chance)
        fields[name] = value
    return fields


def _is(form: Any, want: bytes) -> bool:
    """Whether a payload is these bytes; newlines between tokens of JSON text may have become spaces."""
    return octets(form) == want or octets(form) == want.replace(b"\r", b" ").replace(b"\n", b" ")


def split(data: bytes) -> tuple[list[bytes], str]:
    """The messages behind their lengths, and why there are no more."""
    messages: list[bytes] = []
    at = 0
    while at < len(data):
        try:
            length, start = decoder._DecodeVarint(data, at)  # type: ignore[attr-defined]
        except (IndexError, DecodeError):
            return messages, "a length that does not end"
        if start + length > len(data):
            return messages, "a length beyond the message"
        at = start + length
        messages.append(data[start:at])
    return messages, ""


def _wrong(value: Any) -> str | None:
    """What the protocol finds wrong with the fields of a command that Protobuf can read."""
    for name, item in value.items():
        if isinstance(item, bytes):
            if (wrong := _wrong_payload(item)) is not None:
                return wrong
        elif isinstance(item, dict | list):
            if len(item) > model.VALUES_MAX:
                return "too many values"
            items = item if isinstance(item, list) else [item]
            for each in items:
                if isinstance(each, dict) and (wrong := _wrong(each)) is not None:
                    return wrong
        elif type(item) is int and item < 0 and name != "limit":
            return "a negative number"
    return None


def _wrong_payload(data: bytes) -> str | None:
    """What is wrong with a payload that is JSON text. Any other payload is binary, and has no faults."""
    _, wrong = read_json(data)
    if wrong == "NaN or Infinity" or wrong in ("no JSON", "no UTF-8", "no object", None):
        return None
    if wrong in ("a field of another type", "an integer written as a float"):
        return None
    return f"a payload with {wrong}"
