"""hub/protocol/frames.py, read back by an independent implementation of RFC 6455."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.streams import StreamReader

from hub.protocol.frames import Opcode, encode, encode_close


def read(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parser)
    frame = done.value.value
    assert isinstance(frame, Frame)
    reader.feed_eof()
    at_end = reader.at_eof()
    with pytest.raises(StopIteration) as end:
        next(at_end)
    assert end.value.value is True
    return frame


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_every_length_of_length(opcode: Opcode, size: int) -> None:
    frame = read(encode(opcode, b"x" * size))
    assert (frame.opcode, frame.fin, len(frame.data)) == (TheirOpcode(opcode), True, size)
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (False, False, False)


@pytest.mark.parametrize(
    ("size", "header"),
    [(125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (65_536, b"\x81\x7f" + (65_536).to_bytes(8, "big"))],
)
def test_the_shortest_header_is_used(size: int, header: bytes) -> None:
    assert encode(Opcode.TEXT, bytes(size)) == header + bytes(size)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_control_frames(opcode: Opcode) -> None:
    assert read(encode(opcode, b"hub")) == Frame(TheirOpcode(opcode), b"hub")


@given(st.binary(max_size=300))
def test_the_payload_is_left_alone(payload: bytes) -> None:
    assert bytes(read(encode(Opcode.BINARY, payload)).data) == payload


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3012, "no pong"), (4999, "é" * 61)])
def test_close(code: int, reason: str) -> None:
    frame = read(encode_close(code, reason))
    assert frame.opcode is TheirOpcode.CLOSE
    assert Close.parse(bytes(frame.data)) == Close(code, reason)
