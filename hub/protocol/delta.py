"""Deltas of successive payloads, in the format of the Fossil version control system, as the SDKs read it.

A delta is the length of its target, then segments that copy from the source or insert literal bytes, then a
checksum of the target (the "Fossil Delta Format" page of fossil-scm.org).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

STEPS_MAX: Final = 16_384
"""Places of a target that are looked up in its source. What comes after them is sent as it is."""

INDEX_BYTES_MAX: Final = 65_536
"""Bytes of a source that are looked up at all, beside what both begin and end with."""

_BLOCK: Final = 16
"""Bytes that must agree for a copy to be found."""

_COPY_MIN: Final = 8
"""A shorter copy costs as much as the literal."""

_MATCH_STEPS: Final = 16
"""What to measure a match costs beside a look-up."""

_WINDOW: Final = 64
"""Bytes that are compared first; then twice as many, and so on."""

TARGET_BYTES_MAX: Final = 16_777_216
"""The longest target that a delta is applied to make: a short one could copy a source without end."""

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"

_SEGMENT: Final = re.compile(rb"([0-9A-Z_a-z~]{1,6})(?:([:;])|@([0-9A-Z_a-z~]{1,6}),)")
"""A length of literal bytes that follow, the checksum at the end, or a length and where to copy from."""


def create(source: bytes, target: bytes) -> bytes:
    """The delta that makes `target` out of `source`; the same two always give the same one.

    Literals begin and end between characters where the target is UTF-8, so that the delta is text then.

    Args:
        source: what the receiver has.
        target: what it is to have. But for the search, which is bounded, time and memory grow with both.
    """
    parts = [_number(len(target)), b"\n"]
    done = 0
    for start, end, shift in _copies(source, target):
        begin, end = _between_characters(target, start, end)
        if end - begin < _COPY_MIN:
            continue
        if begin > done:
            parts += (_number(begin - done), b":", target[done:begin])
        parts += (_number(end - begin), b"@", _number(begin + shift), b",")
        done = end
    if done < len(target):
        parts += (_number(len(target) - done), b":", target[done:])
    parts += (_number(_checksum(target)), b";")
    return b"".join(parts)


def apply(source: bytes, delta: bytes) -> bytes:
    """What `source` becomes by a delta.

    Args:
        source: what the delta was made for.
        delta: as `create` or another implementation of the format made it.

    Raises:
        ValueError: it is no delta, is one of another source, or makes more than `TARGET_BYTES_MAX`.
    """
    digits, newline, _ = delta.partition(b"\n")
    if not newline or not re.fullmatch(rb"[0-9A-Z_a-z~]{1,6}", digits):
        raise ValueError("a delta begins with the length of its target")
    length = _value(digits)
    if length > TARGET_BYTES_MAX:
        raise ValueError(f"a delta of more than {TARGET_BYTES_MAX} bytes")
    target = bytearray()
    at = len(digits) + 1
    while segment := _SEGMENT.match(delta, at):
        size, at = _value(segment[1]), segment.end()
        if segment[2] == b";":
            if len(target) != length or size != _checksum(target):
                raise ValueError("a delta of another source")
            return bytes(target)
        if segment[2]:
            part, at = delta[at : at + size], at + size
        else:
            start = _value(segment[3])
            part = source[start : start + size]
        if len(part) < size or len(target) + size > length:
            raise ValueError("a segment of a delta goes beyond its source or its target")
        target += part
    raise ValueError("a delta is cut short, or has a segment that is none")


def _copies(source: bytes, target: bytes) -> Iterator[tuple[int, int, int]]:
    """Ranges of the target that are in the source, in order, each with how much further on it is there."""
    head = _agreeing(source, 0, target, 0)
    rest = min(len(source), len(target)) - head
    tail = _agreeing_before(source, len(source), target, len(target), rest)
    middle_end = len(target) - tail
    yield 0, head, 0
    if middle_end - head >= _BLOCK:
        yield from _copies_between(source, target, head, middle_end)
    yield middle_end, len(target), len(source) - len(target)


def _copies_between(source: bytes, target: bytes, done: int, most: int) -> Iterator[tuple[int, int, int]]:
    """The same for a part of the target."""
    blocks: dict[bytes, int] = {}
    for start in range(0, min(len(source), INDEX_BYTES_MAX) - _BLOCK + 1, _BLOCK):
        blocks.setdefault(source[start : start + _BLOCK], start)
    at, steps = done, STEPS_MAX
    while at <= most - _BLOCK and steps > 0:
        steps -= 1
        start = blocks.get(target[at : at + _BLOCK], -1)
        if start < 0:
            at += 1
            continue
        end = min(most, at + _BLOCK + _agreeing(source, start + _BLOCK, target, at + _BLOCK))
        back = _agreeing_before(source, start, target, at, min(at - done, start))
        yield at - back, end, start - at
        done = at = end
        steps -= _MATCH_STEPS


def _agreeing(source: bytes, start: int, target: bytes, at: int) -> int:
    """How many bytes from here on are the same in both."""
    most = min(len(source) - start, len(target) - at)
    length, step = 0, _WINDOW
    while length < most:
        step = min(step, most - length)
        one, other = source[start + length : start + length + step], target[at + length : at + length + step]
        if one != other:
            difference = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
            return length + step - (difference.bit_length() + 7) // 8
        length += step
        step *= 2
    return length


def _agreeing_before(source: bytes, start: int, target: bytes, at: int, most: int) -> int:
    """How many bytes before here are the same in both, up to `most`."""
    length, step = 0, _WINDOW
    while length < most:
        step = min(step, most - length)
        end, target_end = start - length, at - length
        one, other = source[end - step : end], target[target_end - step : target_end]
        if one != other:
            difference = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
            return length + ((difference & -difference).bit_length() - 1) // 8
        length += step
        step *= 2
    return length


def _between_characters(target: bytes, begin: int, end: int) -> tuple[int, int]:
    """A narrower range that begins and ends between the characters of UTF-8 (RFC 3629 section 3)."""
    for _ in range(3):
        begin += begin < end and target[begin] & 0xC0 == 0x80
        end -= begin < end < len(target) and target[end] & 0xC0 == 0x80
    return begin, end


def _checksum(data: bytes | bytearray) -> int:
    """The sum of the big-endian 32-bit words of the data, padded with zeros."""
    padded = data + b"\0" * (-len(data) % 4)
    words: tuple[int, ...] = struct.unpack(f">{len(padded) // 4}I", padded)
    return sum(words) & 0xFFFFFFFF


def _number(value: int) -> bytes:
    digits = bytearray()
    while True:
        digits.append(_DIGITS[value & 63])
        value >>= 6
        if not value:
            digits.reverse()
            return bytes(digits)


def _value(digits: bytes) -> int:
    value = 0
    for digit in digits:
        value = value << 6 | _DIGITS.index(digit)
    return value
