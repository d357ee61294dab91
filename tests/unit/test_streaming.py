"""Replies in the body of a response: lines, events, and the chunks around them."""

from __future__ import annotations

import json
import re

import pytest

from hub.protocol import streaming
from hub.protocol.codes import Disconnects
from hub.protocol.encoding import FRAME_BYTES_MAX
from hub.protocol.streaming import Streaming

ALL = [
    *(streaming.JSON_LINES, streaming.JSON_EVENTS, streaming.PUSH_LINES, streaming.PUSH_EVENTS),
    streaming.PROTOBUF_MESSAGES,
]


def unchunked(data: bytes) -> bytes:
    """The body that is in chunks, as RFC 9112 says to read it."""
    body = b""
    while data:
        size, data = data.split(b"\r\n", 1)
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n"
        body, data = body + data[:length], data[length + 2 :]
    return body


def test_a_chunk_has_its_size_before_it_and_an_end_behind() -> None:
    assert streaming.chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


@pytest.mark.parametrize("way", ALL)
def test_both_encodings_of_a_way_carry_the_same_body(way: Streaming) -> None:
    messages = [b'{"a":%d}' % number for number in range(3)]
    assert unchunked(way.chunks.pack(messages)) == way.body.pack(messages)
    assert unchunked(way.chunks.pack(messages[:1])) == way.body.pack(messages[:1])


def test_a_line_has_its_end() -> None:
    assert streaming.JSON_LINES.body.pack([b"{}", b'{"a":1}']) == b'{}\n{"a":1}\n'
    assert streaming.PUSH_LINES.body.pack([b"{}"]) == b"{}\n"


def test_protobuf_has_nothing_between_its_messages() -> None:
    assert streaming.PROTOBUF_MESSAGES.body.pack([b"\x00", b"\x02\x08\x01"]) == b"\x00\x02\x08\x01"


def test_each_reply_is_an_event() -> None:
    assert streaming.JSON_EVENTS.body.pack([b"{}", b'{"a":1}']) == b'data: {}\n\ndata: {"a":1}\n\n'
    assert streaming.PUSH_EVENTS.body.pack([b"{}"]) == b"data: {}\n\n"


def test_a_carriage_return_in_a_payload_ends_no_line_of_an_event() -> None:
    packed = streaming.JSON_EVENTS.body.pack([b'{"a":\r1}'])
    [line] = [line for line in re.split(rb"\r\n|\r|\n", packed) if line]
    assert json.loads(line.removeprefix(b"data: ")) == {"a": 1}


def test_much_is_split_between_messages() -> None:
    messages = [b'{"a":"%s"}' % (b"x" * 1000)] * 200
    packed = streaming.JSON_EVENTS.chunks.pack(messages)
    sizes = []
    rest = packed
    while rest:
        size, rest = rest.split(b"\r\n", 1)
        sizes.append(int(size, 16))
        rest = rest[sizes[-1] + 2 :]
    assert len(sizes) > 1
    assert max(sizes) < FRAME_BYTES_MAX * 1.1
    assert unchunked(packed) == b"".join(b"data: " + message + b"\n\n" for message in messages)


def test_the_last_message_says_why_it_ends() -> None:
    body = streaming.farewell(streaming.JSON_LINES.body, Disconnects.SHUTDOWN)
    assert body == b'{"push":{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}}\n'
    body = streaming.farewell(streaming.PUSH_EVENTS.body, Disconnects.FORCE_NO_RECONNECT)
    assert body == b'data: {"disconnect":{"code":3503,"reason":"force no reconnect"}}\n\n'
