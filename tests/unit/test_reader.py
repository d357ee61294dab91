"""Frames of a client into messages: every fault, every cut, and the bounds."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rawws import frame

from hub.protocol.frames import FLUSHED, Opcode
from hub.protocol.reader import PINGS_MAX, TOO_MANY_PINGS, Binary, FrameReader

TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
PING, PONG, CLOSE = Opcode.PING, Opcode.PONG, Opcode.CLOSE


def reader(size: int = 100_000, fragments: int = 4, *, inflates: bool = False) -> FrameReader:
    return FrameReader(size, fragments, inflates=inflates)


def fault(sent: bytes, *, inflates: bool = False, size: int = 100_000) -> int:
    """The code that the reader closes with, once it was sent this."""
    read = reader(size, inflates=inflates)
    read.receive(sent)
    return read.fault.code if read.fault else 0


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(FLUSHED)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 99_999])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_any_length_is_read(size: int, opcode: int) -> None:
    assert reader().receive(frame(opcode, b"x" * size)) == [b"x" * size]


def test_binary_is_told_from_text() -> None:
    sent = frame(TEXT, b"1") + frame(BINARY, b"2") + frame(TEXT, b"3", fin=False) + frame(CONT, b"4")
    read = reader().receive(sent + frame(BINARY, b"5", fin=False) + frame(CONT, b"6"))
    assert [(bytes(message), isinstance(message, Binary)) for message in read] == [
        (b"1", False),
        (b"2", True),
        (b"34", False),
        (b"56", True),
    ]


def test_messages_that_come_together_are_read_together() -> None:
    assert reader().receive(frame(TEXT, b"one") + frame(TEXT, "zwölf".encode())) == [b"one", "zwölf".encode()]


@given(
    st.lists(
        st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=300).map(lambda b: b.hex().encode()))
    ),
    st.lists(st.integers(0, 5000)),
)
def test_it_does_not_matter_how_the_bytes_are_cut(messages: list[tuple[int, bytes]], cuts: list[int]) -> None:
    sent = b"".join(frame(opcode, data) for opcode, data in messages)
    at = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    read = reader()
    got = [message for start, end in pairwise(at) for message in read.receive(sent[start:end])]
    assert got == [data for _, data in messages]
    assert not read.is_over


def test_a_frame_that_comes_byte_by_byte_is_read_at_its_last() -> None:
    for sent in (frame(TEXT, b"x" * 5), frame(TEXT, b"x" * 126), frame(TEXT, b"x" * 65_536)):
        read = reader()
        assert not any(read.receive(sent[at : at + 1]) for at in range(len(sent) - 1))
        assert len(read.receive(sent[-1:])) == 1


def test_what_follows_a_frame_that_was_cut_is_read_with_it() -> None:
    read = reader()
    sent = frame(TEXT, b"first") + frame(TEXT, b"second") + frame(PING, b"?")
    assert read.receive(sent[:3]) == []
    assert read.receive(sent[3:-1]) == [b"first", b"second"]
    assert read.receive(sent[-1:]) == []
    assert read.pings == [b"?"]


def test_fragments_are_joined_and_control_frames_go_between() -> None:
    read = reader()
    assert read.receive(frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(PONG, b"2")) == []
    assert read.pings == [b"1"]
    assert read.receive(frame(CONT, b"b", fin=False)) == []
    assert read.pings == []
    assert read.receive(frame(CONT, b"c") + frame(TEXT, b"d")) == [b"abc", b"d"]


def test_a_close_ends_the_reading() -> None:
    for payload in (b"", (1000).to_bytes(2, "big"), (4999).to_bytes(2, "big") + "où".encode()):
        read = reader()
        assert read.receive(frame(TEXT, b"a") + frame(CLOSE, payload) + frame(TEXT, b"b")) == [b"a"]
        assert read.close == payload
        assert read.is_over
        assert read.receive(frame(TEXT, b"c")) == []


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_a_close_code_that_none_may_send_is_a_fault(code: int) -> None:
    assert fault(frame(CLOSE, code.to_bytes(2, "big"))) == 1002


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x01a", 1002),  # not masked
        (frame(TEXT, b"", rsv1=True), 1002),
        (b"\xa1\x80\0\0\0\0", 1002),
        (b"\x91\x80\0\0\0\0", 1002),
        (frame(3, b""), 1002),
        (frame(11, b""), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CONT, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"x"), 1007),
        (frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 4, 1009),
    ],
)
def test_faults(sent: bytes, code: int) -> None:
    assert fault(sent) == code
    read = reader()
    assert read.receive(frame(TEXT, b"before") + sent + frame(TEXT, b"behind")) == [b"before"]


def test_a_message_too_big_is_known_by_its_header() -> None:
    assert fault(b"\x81\xff" + (1 << 62).to_bytes(8, "big")) == 1009
    assert fault(b"\x81\xff" + (101).to_bytes(8, "big"), size=100) == 1009
    assert fault(frame(TEXT, b"x" * 101), size=100) == 1009
    assert fault(frame(TEXT, b"x" * 60, fin=False) + b"\x80\xa9", size=100) == 1009
    assert fault(frame(TEXT, b"x" * 60, fin=False) + frame(CONT, b"x" * 40), size=100) == 0


def test_pings_are_kept_up_to_a_bound() -> None:
    read = reader()
    read.receive(frame(PING, b"x") * PINGS_MAX)
    assert (len(read.pings), read.fault) == (PINGS_MAX, None)
    read.receive(frame(PING, b"x") * (PINGS_MAX + 1000))
    assert read.fault is TOO_MANY_PINGS
    assert len(read.pings) == PINGS_MAX + 1


def test_a_compressed_message_is_inflated() -> None:
    read = reader(inflates=True)
    packed = deflated(b"hello " * 1000)
    assert read.receive(frame(TEXT, packed, rsv1=True)) == [b"hello " * 1000]
    first = frame(TEXT, packed[:5], fin=False, rsv1=True)
    assert read.receive(first + frame(CONT, packed[5:])) == [b"hello " * 1000]
    assert read.receive(frame(TEXT, b"plain")) == [b"plain"]


def test_compressed_faults() -> None:
    def code(payload: bytes, opcode: int = TEXT) -> int:
        return fault(frame(opcode, payload, rsv1=True), inflates=True)

    assert code(b"\xff\xff\xff\xff") == 1002
    assert code(deflated(b"\xff" * 50)) == 1007
    assert code(deflated(b"\xff" * 50), BINARY) == 0
    assert code(deflated(bytes(100_000))) == 0
    assert code(deflated(bytes(100_001))) == 1009
    assert code(b"", PING) == 1002
    first = frame(TEXT, b"a", fin=False)
    assert fault(first + frame(CONT, b"b", rsv1=True), inflates=True) == 1002


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_make_it_raise(sent: bytes, inflates: bool) -> None:
    read = reader(inflates=inflates)
    for start in range(0, len(sent), 37):
        read.receive(sent[start : start + 37])
