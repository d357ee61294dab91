"""Frames of a client: the hub's reader beside the Sans-I/O server protocol of PyPI `websockets`."""

from __future__ import annotations

import logging
import random
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from hub.protocol.reader import PINGS_MAX, TOO_MANY_PINGS, Binary, FrameReader
from loadtests.fuzz.model import is_utf8
from loadtests.fuzz.mutate import ODD_BYTES, mutate
from loadtests.fuzz.target import PureTarget

BYTES_MAX = 4096
FRAGMENTS_MAX = 16
BYTES_IN_PIECES_MAX = 1024
"""Longer streams are not read a second time in pieces of one byte."""
PADDING = bytes(BYTES_MAX + 16)
"""Makes any frame whole that a reader waits for."""
_SILENT = logging.getLogger("loadtests.fuzz.silent")
_SILENT.setLevel(logging.CRITICAL + 1)
_SILENT.propagate = False

WORDS = (
    *(
        bytes((first, 0x80 | size)) + b"\0\0\0\0"
        for first in (0, 1, 2, 0x80, 0x81, 0x82)
        for size in (0, 1, 126)
    ),
    *(bytes((first,)) for first in (0x88, 0x89, 0x8A, 0xC1, 0xC2, 0xC0, 0x41, 0x40, 0x91, 0xA1, 0x83, 0x8B)),
    *(struct.pack("!BBH", 0x82, 0xFE, size) for size in (0, 125, 126, BYTES_MAX, BYTES_MAX + 1, 65_535)),
    *(struct.pack("!BBQ", 0x82, 0xFF, size) for size in (0, 126, 65_536, 2**32, 2**62, 2**63, 2**64 - 1)),
    *(
        code.to_bytes(2, "big")
        for code in (0, 999, 1000, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 3000, 5000)
    ),
    *ODD_BYTES,
)


@dataclass
class Heard:
    """What a reader made of a stream of bytes.

    Args:
        messages: whole ones, each with whether it is text.
        pings: their payloads.
        code: of the close frame that the reader sends for a fault; 0 for none.
        close: payload of the peer's close frame.
        reason: of the fault.
    """

    messages: list[tuple[bool, bytes]] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    code: int = 0
    close: bytes | None = None
    reason: str = ""

    @property
    def has_ended(self) -> bool:
        return self.code != 0 or self.close is not None

    @property
    def progress(self) -> int:
        return len(self.messages) + len(self.pings)

    @property
    def what(self) -> str:
        """The code and the reason, without numbers and places."""
        return f"{self.code} {re.sub(r'[ (]*[0-9]+.*| at position.*', '', self.reason)}"

    def is_like(self, other: Heard) -> bool:
        """Whether both heard the same and end alike, whatever reason each gives."""
        return replace(self, reason="") == replace(other, reason="")


class ClientFrames(PureTarget):
    name = "frames"

    def draw(self, chance: random.Random) -> bytes:
        """Return a byte that says how to read the rest, and frames."""
        inflates = chance.random() < 0.4
        frames = b"".join(_message(chance, inflates) for _ in range(chance.choice((1, 2, 3, 6))))
        if chance.random() < 0.1:
            frames += _frame(chance, Opcode.PING, b"") * chance.choice((19, 20, 21, 50))
        if chance.random() < 0.4:
            frames += _frame(chance, Opcode.CLOSE, _close(chance))
            frames += chance.choice((b"", b"", _message(chance, inflates)))
        if chance.random() < 0.75:
            frames = mutate(frames, chance, WORDS)
        return bytes((inflates | chance.randrange(128) << 1,)) + frames

    def check(self, data: bytes) -> Iterator[str]:
        if not data:
            return
        inflates, stream = bool(data[0] & 1), data[1:]
        ours = hear_hub(pieces(stream, data[0]), inflates)
        if any(len(message) > BYTES_MAX for _, message in ours.messages):
            yield "the hub takes a message over the limit"
        if ours.code != TOO_MANY_PINGS.code and len(stream) <= BYTES_IN_PIECES_MAX:
            again = hear_hub([stream[at : at + 1] for at in range(len(stream))], inflates)
            if ours != again:
                yield "the hub reads pieces of one byte otherwise"
        yield from _compare(stream, inflates, ours, hear_websockets(stream, inflates))


def _compare(stream: bytes, inflates: bool, ours: Heard, theirs: Heard) -> Iterator[str]:
    for mine, others in ((ours.messages, theirs.messages), (ours.pings, theirs.pings)):
        common = min(len(mine), len(others))
        if mine[:common] != others[:common]:
            yield "another message or ping"
    if ours.is_like(theirs):
        return
    if ours.code == TOO_MANY_PINGS.code and (not theirs.code or ours.progress <= theirs.progress):
        yield (
            "hub refuses first: over 20 pings in one piece"
            if len(theirs.pings) > PINGS_MAX
            else "the hub miscounts"
        )
    elif ours.code and not theirs.has_ended:
        longer = hear_websockets(stream + PADDING, inflates)
        yield "hub refuses a frame by its header" if longer.code else f"hub refuses: {ours.what}"
    elif theirs.code and not ours.has_ended:
        longer = hear_hub([stream + PADDING], inflates)
        yield "websockets refuses half a header" if longer.code else f"websockets refuses: {theirs.what}"
    elif ours.code and theirs.code and ours.progress == theirs.progress:
        yield "both refuse, with other codes"
    elif ours.code and ours.progress <= theirs.progress:
        yield f"hub refuses first: {ours.what}"
    elif theirs.code and ours.progress >= theirs.progress:
        yield f"websockets refuses first: {theirs.what}"
    else:
        yield f"hub hears {ours.progress}, websockets {theirs.progress}, with the same end"


def pieces(stream: bytes, seed: int) -> list[bytes]:
    """Cut a stream in pieces, as a socket may."""
    if seed & 2:
        return [stream]
    size = 1 + (seed >> 2)
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def hear_hub(chunks: list[bytes], inflates: bool) -> Heard:
    """Have the hub read."""
    reader = FrameReader(BYTES_MAX, FRAGMENTS_MAX, inflates=inflates)
    heard = Heard()
    for chunk in chunks:
        if reader.is_over:
            break
        heard.messages += [(not isinstance(each, Binary), bytes(each)) for each in reader.receive(chunk)]
        heard.pings += reader.pings
    heard.close = reader.close
    if reader.fault is not None:
        heard.code, heard.reason = reader.fault.code, reader.fault.reason
    return heard


def hear_websockets(stream: bytes, inflates: bool) -> Heard:
    """Have `websockets` read, and check text as its connections do."""
    protocol = ServerProtocol(state=State.OPEN, max_size=BYTES_MAX, logger=_SILENT)
    if inflates:
        protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
    protocol.receive_data(stream)
    heard = Heard()
    parts: list[bytes] = []
    is_text = False
    for event in protocol.events_received():
        opcode, data = event.opcode, bytes(event.data)  # type: ignore[union-attr]
        if opcode is Opcode.PING:
            heard.pings.append(data)
        elif opcode is Opcode.CLOSE:
            heard.close = data
        elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if opcode is not Opcode.CONT:
                parts, is_text = [], opcode is Opcode.TEXT
            parts.append(data)
            if event.fin:  # type: ignore[union-attr]
                whole = b"".join(parts)
                if is_text and not is_utf8(whole):
                    heard.code, heard.reason, heard.close = 1007, "text is not UTF-8", None
                    return heard
                heard.messages.append((is_text, whole))
    if protocol.parser_exc is not None and protocol.close_sent is not None:
        heard.code, heard.reason, heard.close = protocol.close_sent.code, protocol.close_sent.reason, None
    return heard


def _message(chance: random.Random, inflates: bool) -> bytes:
    """A message in one frame or several, with pings between them."""
    is_text = chance.random() < 0.6
    size = chance.choice((0, 1, 5, 60, 124, 125, 126, 127, 300, BYTES_MAX - 1, BYTES_MAX, BYTES_MAX + 1))
    payload = ("é{}a" * size).encode()[:size] if is_text else chance.randbytes(size)
    if is_text and not is_utf8(payload):
        payload = payload[:-1]
    rsv1 = inflates and chance.random() < 0.7
    if rsv1:
        deflate = zlib.compressobj(wbits=-15)
        payload = deflate.compress(payload) + deflate.flush(
            chance.choice((zlib.Z_SYNC_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH))
        )
        payload = payload.removesuffix(b"\x00\x00\xff\xff")
    opcode = Opcode.TEXT if is_text else Opcode.BINARY
    count = chance.choice((1, 1, 1, 2, 3, 17))
    cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(count - 1))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = []
    for number, part in enumerate(parts):
        fin = number == len(parts) - 1
        frames.append(_frame(chance, opcode if not number else Opcode.CONT, part, fin, rsv1 and not number))
        if not fin and chance.random() < 0.3:
            frames.append(
                _frame(chance, chance.choice((Opcode.PING, Opcode.PONG)), b"x" * chance.randrange(126))
            )
    return b"".join(frames)


def _frame(chance: random.Random, opcode: int, payload: bytes, fin: bool = True, rsv1: bool = False) -> bytes:
    mask = chance.choice((b"\0\0\0\0", chance.randbytes(4)))
    first, size = opcode | fin << 7 | rsv1 << 6, len(payload)
    if size < 126 and chance.random() < 0.98:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16 and chance.random() < 0.98:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + mask + apply_mask(payload, mask)


def _close(chance: random.Random) -> bytes:
    code = chance.choice((1000, 1001, 1002, 1005, 1014, 3000, 4999, 5000, 999, chance.randrange(65_536)))
    reason = chance.choice((b"", b"bye", "é".encode(), b"\xff", b"x" * 123, b"x" * 124))
    return chance.choice((b"", b"\x03", code.to_bytes(2, "big") + reason, code.to_bytes(2, "big") + reason))
