"""Deltas of successive payloads, in the format of the Fossil version control system, as the SDKs read it.

A delta is the length of its target, then segments that copy from the source or insert literal bytes, then a
checksum of the target (the "Fossil Delta Format" page of fossil-scm.org).
"""

from __future__ import annotations

import struct
from typing import Final

_BLOCK: Final = 16
"""Bytes that must agree for a copy: a shorter one costs about as much as the literal."""

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def create(source: bytes, target: bytes) -> bytes:
    """The delta that makes `target` out of `source`; the same two always give the same one.

    Literals begin and end between characters where the target is UTF-8, so that the delta is text then.

    Args:
        source: what the receiver has.
        target: what it is to have. Time and memory grow with the sum of both lengths.
    """
    blocks: dict[bytes, int] = {}
    for start in range(0, len(source) - _BLOCK + 1, _BLOCK):
        blocks.setdefault(source[start : start + _BLOCK], start)
    parts = [_number(len(target)), b"\n"]
    done = at = 0
    while at <= len(target) - _BLOCK:
        start = blocks.get(target[at : at + _BLOCK], -1)
        if start < 0:
            at += 1
            continue
        length = _BLOCK + _agreeing(source, start + _BLOCK, target, at + _BLOCK)
        back = _agreeing_before(source, start, target, at, at - done)
        begin, end = _between_characters(target, at - back, at + length)
        if begin > done:
            parts += (_number(begin - done), b":", target[done:begin])
        parts += (_number(end - begin), b"@", _number(start - at + begin), b",")
        done = end
        at += length
    if done < len(target):
        parts += (_number(len(target) - done), b":", target[done:])
    parts += (_number(_checksum(target)), b";")
    return b"".join(parts)


def _agreeing(source: bytes, start: int, target: bytes, at: int) -> int:
    """How many bytes from here on are the same in both."""
    most = min(len(source) - start, len(target) - at)
    length, step = 0, _BLOCK
    while length < most:
        step = min(step, most - length)
        if source[start + length : start + length + step] == target[at + length : at + length + step]:
            length += step
            step *= 2
        elif step == 1:
            break
        else:
            step //= 2
    return length


def _agreeing_before(source: bytes, start: int, target: bytes, at: int, most: int) -> int:
    """How many bytes before here are the same in both, up to `most`."""
    length = 0
    while length < most and length < start and source[start - length - 1] == target[at - length - 1]:
        length += 1
    return length


def _between_characters(target: bytes, begin: int, end: int) -> tuple[int, int]:
    """A narrower range that begins and ends between the characters of UTF-8 (RFC 3629 section 3)."""
    for _ in range(3):
        begin += begin < end and target[begin] & 0xC0 == 0x80
        end -= begin < end < len(target) and target[end] & 0xC0 == 0x80
    return begin, end


def _checksum(data: bytes) -> int:
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
