"""Frames of RFC 6455, as a server sends them: unmasked, never fragmented."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_FIN: Final = 0x80


def encode(opcode: Opcode, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455 section 5.2).

    Args:
        opcode: what the frame is.
        payload: its application data, at most 2**63 - 1 bytes; 125 in a control frame.
    """
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", _FIN | opcode, 126, size) + payload
    return struct.pack("!BBQ", _FIN | opcode, 127, size) + payload


def encode_close(code: int, reason: str) -> bytes:
    """A close frame (RFC 6455 section 5.5.1).

    Args:
        code: 1000 to 4999.
        reason: at most 123 bytes of UTF-8.
    """
    return encode(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())
