"""The JSON encoding: one or more objects separated by newlines, in both directions."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from hub.protocol.messages import PONG, Command, Fault, Publications, Reply
from hub.protocol.nulls import without_nulls
from hub.protocol.payloads import in_json

DEPTH_MAX: Final = 32
"""Deepest nesting of arrays and objects in a command or a payload."""

_NEWLINE: Final = 0x0A
_RETURN: Final = 0x0D
_BACKSLASH: Final = 0x5C

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
"""A string, also one that does not end: text that is no JSON must not be searched again from each quote."""
_LONG_DIGITS: Final = 300
_LONG_NUMBER: Final = re.compile(rb"\d{%d}" % _LONG_DIGITS)


class MalformedError(ValueError):
    """Text that is no JSON, or that some parsers take and others refuse or read otherwise."""


def check(text: bytes) -> Any:
    """Parse JSON text, and check that every parser takes it and reads the same, so that no subscriber fails.

    Refused are: what RFC 8259 does not allow, invalid UTF-8, lone surrogates, numbers beyond a double,
    duplicate keys, and nesting deeper than `DEPTH_MAX`.

    Raises:
        MalformedError: with what is wrong.
    """
    # Before any parser that recurses. Brackets inside strings count here too, so more than the limit only
    # calls for a closer look.
    if text.count(b"[") + text.count(b"{") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        raise MalformedError(f"nested deeper than {DEPTH_MAX}")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise MalformedError(fault_of(text, exc)) from None
    if not _has_all_keys(text, value) or (len(text) >= _LONG_DIGITS and _LONG_NUMBER.search(text)):
        json.loads(text, object_pairs_hook=_no_duplicates, parse_int=_in_range)
    return value


def fault_of(text: bytes, error: Exception) -> str:
    """What is wrong with JSON text that a decoder refused.

    Args:
        text: the text, of a depth that was checked.
        error: of the decoder.
    """
    if not text.strip():
        return "it is empty"
    if text.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark"
    fault = str(error)
    if "surrogate" in fault or ("truncated" in fault and b"\\u" in text and _is_json(text)):
        return "a string holds a lone surrogate, which is no character"
    return "it ends too early" if "truncated" in fault else fault


def _has_all_keys(text: bytes, value: Any) -> bool:
    """Whether no key was dropped as a duplicate: a colon follows each, and those in strings stay."""
    colons = text.count(b":")
    if type(value) is dict and len(value) == colons:
        return True  # no other could be a key
    if _BACKSLASH in text and b"\\u" in text:  # which may be a colon in a string
        return _STRING.sub(b"", text).count(b":") == count_keys(value)
    return msgspec.json.encode(value).count(b":") == colons


def _depth(text: bytes) -> int:
    deepest = depth = 0
    for byte in _STRING.sub(b"", text):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def count_keys(value: Any) -> int:
    """How many keys a parsed value holds, at all levels."""
    count = 0
    if type(value) is dict:
        count = len(value)
        value = value.values()
    elif type(value) is not list:
        return 0
    for item in value:
        if type(item) is dict or type(item) is list:
            count += count_keys(item)
    return count


def _no_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise MalformedError("duplicate key")


def _in_range(digits: str) -> int:
    if len(digits) > 310 or math.isinf(float(digits)):
        raise MalformedError("number out of range")
    return 0


def one_line(text: bytes) -> Raw:
    """JSON text as a payload that fits the newline framing.

    Newlines in JSON text can only stand between tokens, where a space means the same. Nothing else changes.
    """
    if _NEWLINE in text or _RETURN in text:
        text = text.replace(b"\r", b" ").replace(b"\n", b" ")
    return Raw(text)


def text_or_binary(data: bytes) -> Raw | bytes:
    """The payload of bytes that are JSON text by convention: a `Raw`, or the bytes where they are no JSON.

    Raises:
        MalformedError: they are JSON that some parsers refuse or read otherwise.
    """
    try:
        check(data)
    except MalformedError:
        if _is_json(data):
            raise
        return data
    return one_line(data)


def _is_json(data: bytes) -> bool:
    """Whether bytes keep to the grammar of RFC 8259, whatever parsers make of them."""
    try:
        json.loads(data.decode(), parse_int=len, parse_constant=_no_constant)
    except RecursionError:
        return True  # as far as anybody can tell
    except ValueError:
        return False
    return True


def _no_constant(name: str) -> None:
    raise MalformedError(f"{name} is no JSON")


class JSONCodec:
    """JSON in text messages: the subprotocol `centrifuge-json`, or none."""

    name = "json"
    is_text = True

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Command)
        self._encoder = msgspec.json.Encoder(enc_hook=self._form)

    def decode(self, data: bytes) -> list[Command | Fault]:
        """Read the commands of one message. Blank lines are passed over."""
        if _NEWLINE not in data:
            return [self._command(data)]
        return [self._command(line) for line in data.split(b"\n") if line.strip()]

    def _command(self, line: bytes) -> Command | Fault:
        if line == b"{}":
            return PONG
        try:
            command = self._decoder.decode(line)
            check(line)
        except (msgspec.MsgspecError, MalformedError, UnicodeDecodeError, RecursionError) as exc:
            return self._without_nulls(line) if b"null" in line else _fault(line, exc)
        return command

    def _without_nulls(self, line: bytes) -> Command | Fault:
        """The command of a line that could not be read as it stands, with null for absent members."""
        try:
            check(line)
            return self._decoder.decode(without_nulls(line, msgspec.json))
        except (msgspec.MsgspecError, MalformedError) as exc:
            return _fault(line, exc)

    def encode(self, reply: Reply) -> bytes:
        """One reply, without a newline."""
        return self._encoder.encode(reply)

    def _form(self, value: Any) -> Raw:
        if not isinstance(value, Publications):
            return in_json(value)
        if self not in value.encoded:
            value.encoded[self] = Raw(self._encoder.encode(value[:]))
        shared: Raw = value.encoded[self]
        return shared

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Replies as one message, a line each."""
        return b"\n".join(messages)


def _fault(line: bytes, error: Exception) -> Fault:
    is_told = isinstance(error, MalformedError | RecursionError)
    return Fault(_command_id(line), str(error) if is_told else fault_of(line, error))


def _command_id(line: bytes) -> int:
    """The id of a command that could not be read, or 0: with one, its sender can be told."""
    if _depth(line) > DEPTH_MAX:
        # Not for a parser that recurses; the id of an SDK's command stands first or last.
        found = re.match(rb'\s*\{\s*"id"\s*:\s*(\d{1,10})\s*,', line) or re.search(
            rb',\s*"id"\s*:\s*(\d{1,10})\s*\}\s*$', line
        )
        return int(found[1]) if found else 0
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    number = value.get("id") if isinstance(value, dict) else None
    return number if type(number) is int and 0 < number < 2**32 else 0
