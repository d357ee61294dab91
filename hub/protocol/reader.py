"""What a client sends over a WebSocket: bytes into whole messages, pings and a close (RFC 6455, RFC 7692)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from hub.protocol.frames import FLUSHED, WINDOW_BITS, Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - where websockets was built without its extension
    from websockets.utils import apply_mask

PINGS_MAX: Final = 20
"""Pings that one call of `receive` may bring."""

_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
"""What a close frame may carry (RFC 6455 section 7.4, and IANA's registry)."""

_FIN: Final = 0x80
_RSV1: Final = 0x40
_RESERVED: Final = 0x30
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_WHOLE_TEXT: Final = _FIN | Opcode.TEXT
_WHOLE_BINARY: Final = _FIN | Opcode.BINARY
_WHOLE: Final = (_WHOLE_TEXT, _WHOLE_BINARY)
_CONTROL_BYTES_MAX: Final = 125

_PROTOCOL_ERROR: Final = 1002
_INVALID_DATA: Final = 1007
_POLICY_VIOLATION: Final = 1008
_TOO_BIG: Final = 1009


@dataclass(frozen=True, slots=True)
class FrameFault:
    """What a peer did wrong.

    Args:
        code: to close with (RFC 6455 section 7.4.1).
        reason: for the close frame and the log.
    """

    code: int
    reason: str


TOO_MANY_PINGS: Final = FrameFault(_POLICY_VIOLATION, "too many pings")


class Binary(bytes):
    """A message that came as binary, where one that came as text is plain bytes."""

    __slots__ = ()


class FrameReader:
    """Reads what one client sends. It never raises for what a peer did: after a fault or a close it is over.

    Args:
        message_bytes_max: of a message, and after inflation where it came compressed. What is longer is not
            held: its frame's header is enough.
        fragments_max: frames that a message may come in.
        inflates: whether permessage-deflate was negotiated, with `client_no_context_takeover`.
    """

    __slots__ = (
        "_bytes_max",
        "_first",
        "_fragments",
        "_fragments_max",
        "_held",
        "_inflates",
        "_size",
        "_wanted",
        "close",
        "fault",
        "pings",
    )

    def __init__(self, message_bytes_max: int, fragments_max: int, *, inflates: bool = False) -> None:
        self.pings: list[bytes] = []
        """Payloads of the pings that the last `receive` brought, to be answered in this order."""
        self.close: bytes | None = None
        """The payload of the peer's close frame, once it came: what to echo."""
        self.fault: FrameFault | None = None
        """What the peer did wrong, once it did."""
        self._bytes_max = message_bytes_max
        self._fragments_max = fragments_max
        self._inflates = inflates
        self._held: bytearray | None = None
        """A frame that is not whole yet; nothing is done with it before it has `_wanted` bytes."""
        self._wanted = 0
        self._fragments: list[bytes] | None = None
        """Of a message that is not whole yet."""
        self._first = 0
        """The first byte of that message's first frame."""
        self._size = 0

    @property
    def is_over(self) -> bool:
        """Whether the peer closed, or did wrong: what comes after it means nothing."""
        return self.close is not None or self.fault is not None

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes as they came. Returns the messages that are whole with them; text was checked."""
        messages: list[bytes] = []
        if self.pings:
            self.pings = []
        if self._held is not None:
            self._held += data
            if len(self._held) < self._wanted:
                return messages
            data, self._held = bytes(self._held), None
        position, end, wanted = 0, len(data), 0
        while position + 2 <= end and self.close is None and self.fault is None:
            first, second = data[position], data[position + 1]
            size, body = second & ~_MASKED, position + 6
            if size >= 126:
                width = 2 if size == 126 else 8
                body += width
                if body - 4 > end:
                    break
                size = int.from_bytes(data[position + 2 : body - 4], "big")
            is_whole = first in _WHOLE and self._fragments is None
            if not (is_whole and second & _MASKED and size <= self._bytes_max):
                self.fault = self._fault_of(first, second, size)
                if self.fault:
                    break
            if body + size > end:
                wanted = body + size - position
                break
            payload = apply_mask(data[body : body + size], data[body - 4 : body])
            position = body + size
            if not is_whole:
                self._on_frame(first, payload, messages)
            elif first == _WHOLE_BINARY:
                messages.append(Binary(payload))
            elif payload.isascii() or self._is_text(payload):
                messages.append(payload)
        if position < end and self.close is None and self.fault is None:
            self._held = bytearray(data[position:])
            self._wanted = wanted or len(self._held) + 1
        return messages

    def _fault_of(self, first: int, second: int, size: int) -> FrameFault | None:
        """What is wrong with the header of a frame (RFC 6455 sections 5.2 to 5.5)."""
        opcode = first & _OPCODE
        reserved = first & _RESERVED
        if first & _RSV1 and not (self._inflates and opcode in (Opcode.TEXT, Opcode.BINARY)):
            reserved |= _RSV1
        if reserved:
            return FrameFault(_PROTOCOL_ERROR, "reserved bits must be 0")
        if not second & _MASKED:
            return FrameFault(_PROTOCOL_ERROR, "a frame is not masked")
        if opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
            if size > _CONTROL_BYTES_MAX or not first & _FIN:
                return FrameFault(_PROTOCOL_ERROR, "a control frame is too long, or fragmented")
        elif opcode > Opcode.BINARY:
            return FrameFault(_PROTOCOL_ERROR, f"opcode {opcode} is reserved")
        elif (opcode == Opcode.CONTINUATION) != (self._fragments is not None):
            return FrameFault(_PROTOCOL_ERROR, "a continuation of nothing, or a message within another")
        elif self._size + size > self._bytes_max:
            return FrameFault(_TOO_BIG, f"a message is longer than {self._bytes_max} bytes")
        return None

    def _on_frame(self, first: int, payload: bytes, messages: list[bytes]) -> None:
        """Take a frame whose header was found good."""
        opcode = first & _OPCODE
        if opcode == Opcode.PING:
            if len(self.pings) == PINGS_MAX:
                self.fault = TOO_MANY_PINGS
            self.pings.append(payload)
        elif opcode == Opcode.CLOSE:
            self._on_close(payload)
        elif opcode != Opcode.PONG:
            self._on_data(first, payload, messages)

    def _on_close(self, payload: bytes) -> None:
        if len(payload) == 1 or (payload and int.from_bytes(payload[:2], "big") not in _CLOSE_CODES):
            self.fault = FrameFault(_PROTOCOL_ERROR, "a close frame has no valid code")
        elif payload.isascii() or self._is_text(payload[2:]):
            self.close = payload

    def _on_data(self, first: int, payload: bytes, messages: list[bytes]) -> None:
        if self._fragments is None:
            self._fragments, self._first, self._size = [], first, 0
        self._fragments.append(payload)
        self._size += len(payload)
        if len(self._fragments) > self._fragments_max:
            self.fault = FrameFault(_TOO_BIG, "too many fragments")
        elif first & _FIN:
            whole = b"".join(self._fragments)
            first, self._fragments, self._size = self._first, None, 0
            message = self._inflated(whole) if first & _RSV1 else whole
            if message is None:
                return
            if first & _OPCODE != Opcode.TEXT:
                messages.append(Binary(message))
            elif self._is_text(message):
                messages.append(message)

    def _inflated(self, data: bytes) -> bytes | None:
        """The message that was compressed to this (RFC 7692 section 7.2.2)."""
        inflate = zlib.decompressobj(-WINDOW_BITS)
        try:
            message = inflate.decompress(data + FLUSHED, self._bytes_max + 1)
        except zlib.error:
            self.fault = FrameFault(_PROTOCOL_ERROR, "a compressed message does not inflate")
            return None
        if len(message) > self._bytes_max:
            self.fault = FrameFault(_TOO_BIG, f"a message inflates to more than {self._bytes_max} bytes")
            return None
        return message

    def _is_text(self, data: bytes) -> bool:
        try:
            data.decode()
        except UnicodeDecodeError:
            self.fault = FrameFault(_INVALID_DATA, "text is not UTF-8")
            return False
        return True
