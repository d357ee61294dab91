"""Frames of RFC 6455, as a server sends them: unmasked, never fragmented."""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Final

from hub.protocol.codes import REASON_BYTES_MAX


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_FIN: Final = 0x80
_RSV1: Final = 0x40

WINDOW_BITS: Final = 15
"""The LZ77 window of compressed frames, which every receiver must be ready for (RFC 7692 section 7.1.2.1)."""

COMPRESSED_BYTES_MIN: Final = 256
"""Shorter payloads are sent as they are: what compression saves there is not worth its time."""

_LEVEL: Final = 3
"""Of zlib's. 6 takes twice the time to save a twentieth more."""

FLUSHED: Final = b"\x00\x00\xff\xff"
"""The end of a flushed deflate block, which is left out (RFC 7692 section 7.2.1)."""


def encode(opcode: Opcode, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455 section 5.2).

    Args:
        opcode: what the frame is.
        payload: its application data, at most 2**63 - 1 bytes; 125 in a control frame.
    """
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    return _encode(_FIN | opcode, payload)


def encode_compressed(opcode: Opcode, payload: bytes) -> bytes:
    """One final, unmasked frame, compressed where that makes it smaller (RFC 7692 section 7.2.1).

    It refers to no frame before it, so one serves every receiver that negotiated permessage-deflate with
    `server_no_context_takeover` and did not ask for a smaller window than `WINDOW_BITS`.

    Args:
        opcode: text or binary.
        payload: its application data.
    """
    if len(payload) >= COMPRESSED_BYTES_MIN:
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -WINDOW_BITS)
        deflated = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
        if len(deflated) - len(FLUSHED) < len(payload):
            return _encode(_FIN | _RSV1 | opcode, deflated.removesuffix(FLUSHED))
    return _encode(_FIN | opcode, payload)


def _encode(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def encode_close(code: int, reason: str) -> bytes:
    """A close frame (RFC 6455 section 5.5.1).

    Args:
        code: 1000 to 4999.
        reason: at most 123 bytes of UTF-8.

    Raises:
        ValueError: the reason is longer.
    """
    text = reason.encode()
    if len(text) > REASON_BYTES_MAX:
        raise ValueError(f"a close reason is at most {REASON_BYTES_MAX} bytes of UTF-8, got {len(text)}")
    return encode(Opcode.CLOSE, code.to_bytes(2, "big") + text)
