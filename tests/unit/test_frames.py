"""hub/protocol/frames.py, read back by an independent implementation of RFC 6455."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.streams import StreamReader

from hub.protocol.frames import COMPRESSED_BYTES_MIN, Opcode, encode, encode_close, encode_compressed


def read(data: bytes, *extensions: Extension) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
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


@given(st.text(min_size=1, max_size=400), st.integers(1, 40))
def test_compressed_frames_are_read_back_each_by_itself(text: str, times: int) -> None:
    payload = (text * times).encode()
    for _ in range(2):
        inflate = PerMessageDeflate(
            remote_no_context_takeover=True,
            local_no_context_takeover=True,
            remote_max_window_bits=15,
            local_max_window_bits=15,
        )
        assert read(encode_compressed(Opcode.TEXT, payload), inflate).data == payload


def test_what_compression_does_not_make_smaller_is_sent_as_it_is() -> None:
    short, noise = b"x" * (COMPRESSED_BYTES_MIN - 1), os.urandom(4096)
    assert encode_compressed(Opcode.TEXT, short) == encode(Opcode.TEXT, short)
    assert encode_compressed(Opcode.BINARY, noise) == encode(Opcode.BINARY, noise)
    assert len(encode_compressed(Opcode.TEXT, short + b"x")) < 30


def test_a_reason_that_fits_no_close_frame_is_refused() -> None:
    encode_close(4000, "é" * 61)
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, got 124"):
        encode_close(4000, "é" * 62)
