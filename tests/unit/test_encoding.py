"""hub/protocol/encoding.py: messages that leave together become few frames, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.protocol.encoding import FRAME_BYTES_MAX, JSON, Encoding
from hub.protocol.frames import Opcode, encode, encode_compressed


def lengths(packed: bytes) -> list[int]:
    """The payload sizes of unmasked text frames."""
    found = []
    while packed:
        assert packed[0] == 0x81
        size, start = packed[1], 2
        if size == 126:
            size, start = int.from_bytes(packed[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(packed[2:10], "big"), 10
        found.append(size)
        packed = packed[start + size :]
    return found


def test_one_message_is_one_frame() -> None:
    assert JSON.frames.pack([b'{"id":1}']) == encode(Opcode.TEXT, b'{"id":1}')
    assert JSON.compressed.pack([b"x" * 999]) == encode_compressed(Opcode.TEXT, b"x" * 999)


def test_small_messages_share_a_frame() -> None:
    assert JSON.frames.pack([b"{}", b'{"id":1}', b"{}"]) == encode(Opcode.TEXT, b'{}\n{"id":1}\n{}')


def test_frames_stay_under_the_limit() -> None:
    assert lengths(JSON.frames.pack([b"x" * 40_000] * 3)) == [40_000] * 3
    assert lengths(JSON.frames.pack([b"x" * 32_767] * 4)) == [65_535] * 2
    assert lengths(JSON.frames.pack([b"x" * 32_768] * 4)) == [32_768] * 4


def test_a_message_over_the_limit_goes_alone() -> None:
    sizes = lengths(JSON.frames.pack([b"{}", b"x" * (FRAME_BYTES_MAX + 5), b"{}"]))
    assert sizes == [2, FRAME_BYTES_MAX + 5, 2]


def test_where_the_server_frames_messages_are_joined() -> None:
    assert JSON.messages.pack([b"{}"]) == b"{}"
    assert JSON.messages.pack([b"{}", b"x" * FRAME_BYTES_MAX]) == b"{}\n" + b"x" * FRAME_BYTES_MAX


def test_encodings_are_told_apart_by_identity() -> None:
    assert Encoding(JSON.frames.codec, JSON.frames.frame) != JSON.frames
    assert len({JSON.frames, JSON.messages}) == 2


@given(st.lists(st.integers(1, FRAME_BYTES_MAX + 10), min_size=1, max_size=8))
def test_nothing_is_lost_and_frames_are_bounded(sizes: list[int]) -> None:
    sent = [bytes([65 + index]) * size for index, size in enumerate(sizes)]
    packed = JSON.frames.pack(sent)
    payload, rest = b"", packed
    frames = lengths(packed)
    for size in frames:
        start = 2 if size < 126 else 4 if size < 65_536 else 10
        payload += rest[start : start + size] + b"\n"
        rest = rest[start + size :]
    assert payload == b"\n".join(sent) + b"\n"
    assert all(size <= FRAME_BYTES_MAX or size in sizes for size in frames)
