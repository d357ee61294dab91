"""Bytes that are no command of the encoding that they are sent in, and what would be too much of one."""

from __future__ import annotations

from typing import Final

import msgpack  # type: ignore[import-untyped]
from hypothesis import strategies as st
from support.dialects import delimited


def mangled(valid: bytes) -> st.SearchStrategy[bytes]:
    """What is left of bytes of which a few were changed, and the end is cut off."""

    def mangle(changes: list[tuple[int, int]], end: int) -> bytes:
        data = bytearray(valid)
        for at, byte in changes:
            data[at] = byte
        return bytes(data[:end])

    places = st.integers(0, len(valid) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)
    return st.builds(mangle, changes, places | st.just(len(valid)))


def _nested(times: int) -> bytes:
    """A subscribe command in Protobuf whose filter is so many nodes deep."""
    nodes = b""
    for _ in range(times):
        nodes = b"\x32" + delimited(nodes)
    return _subscribe(b"\x6a", nodes)


def _subscribe(field: bytes, content: bytes) -> bytes:
    """A subscribe command in Protobuf with one field that holds bytes."""
    return delimited(b"\x08\x04\x2a" + delimited(field + delimited(content)))


def _publish(data: bytes) -> bytes:
    """A publish command in MessagePack with these bytes as its data, and the id first."""
    return b"\x82\xa2id\x07\xa7publish\x82\xa7channel\xa1c\xa4data" + data


BOMBS: Final[dict[str, tuple[str, bytes, list[int]]]] = {
    "json nothing": ("json", b"", [0]),
    "json 60,000 arrays": ("json", b"[" * 60_000, [0]),
    "json 60,000 arrays in a command": ("json", b'{"id":7,"send":{"data":' + b"[" * 60_000, [7]),
    "json NaN": ("json", b'{"id":7,"send":{"data":NaN}}', [7]),
    "json an id that is none": ("json", b'{"id":-1,"ping":{}}', [0]),
    "protobuf nothing": ("protobuf", b"", [0]),
    "protobuf a length beyond the message": ("protobuf", b"\x05\x08\x01", [0]),
    "protobuf a length of 2^35": ("protobuf", b"\xff\xff\xff\xff\x7f" + b"x" * 99, [0]),
    "protobuf a length without an end": ("protobuf", b"\xff" * 60_000, [0]),
    "protobuf a length cut short": ("protobuf", b"\x80", [0]),
    "protobuf text": ("protobuf", b'{"id":1,"ping":{}}', [0]),
    "protobuf a field cut short": ("protobuf", b"\x04\x08\x07\x3a\x09", [0]),
    "protobuf a group without an end": ("protobuf", b"\x03\x08\x07\x1b", [0]),
    "protobuf a channel that is no UTF-8": ("protobuf", b"\x07\x08\x07\x3a\x03\x0a\x01\xff", [7]),
    "protobuf a field of another kind": ("protobuf", b"\x05\x08\x07\x38\x96\x01", []),
    "protobuf a flag below zero": ("protobuf", b"\x0f\x08\x07\x2a\x0b\x70" + b"\xff" * 9 + b"\x01", [7]),
    "protobuf a filter 6,000 deep": ("protobuf", _nested(6000), [4]),
    "protobuf 30,000 nodes of a filter": ("protobuf", _subscribe(b"\x6a", b"\x32\x00" * 30_000), [4]),
    "protobuf 12,000 headers": (
        "protobuf",
        delimited(b"\x08\x04\x22" + delimited(b"".join(b"\x32\x03\x0a\x01%c" % n for n in range(128)) * 94)),
        [],
    ),
    "protobuf 4,097 subscriptions of a connect": (
        "protobuf",
        delimited(b"\x08\x04\x22" + delimited(b"".join(b"\x1a\x06\x0a\x04%04x" % n for n in range(4097)))),
        [4],
    ),
    "msgpack nothing": ("msgpack", b"", [0]),
    "msgpack a number": ("msgpack", b"\x01", [0]),
    "msgpack an array": ("msgpack", b"\x91\x01", [0]),
    "msgpack an array of 2^32 - 1": ("msgpack", _publish(b"\xdd\xff\xff\xff\xff"), [0]),
    "msgpack a map of 2^32 - 1": ("msgpack", _publish(b"\xdf\xff\xff\xff\xff" + b"\xa0\x01" * 99), [0]),
    "msgpack text of 2^32 - 1 bytes": ("msgpack", _publish(b"\xdb\xff\xff\xff\xff"), [0]),
    "msgpack bytes beyond the message": ("msgpack", _publish(b"\xc5\xff\xff" + b"x" * 99), [0]),
    "msgpack an extension beyond the message": ("msgpack", _publish(b"\xc9\xff\xff\xff\xff\x01"), [0]),
    "msgpack counts that add up": ("msgpack", _publish((b"\xdc\xe0\x00" + b"\x90" * 3) * 10_000), [0]),
    "msgpack 60,000 arrays": ("msgpack", _publish(b"\x91" * 60_000), [0]),
    "msgpack 60,000 arrays that end": ("msgpack", _publish(b"\x91" * 60_000 + b"\x90"), [7]),
    "msgpack 20,000 arrays of two": ("msgpack", _publish(b"\x92" * 20_000 + b"\x90" * 20_001), [7]),
    "msgpack 33 deep": ("msgpack", _publish(b"\x91" * 30 + b"\x90"), [7]),
    "msgpack 60,000 empty lists": ("msgpack", _publish(b"\xdc\xea\x60" + b"\x90" * 60_000), [7]),
    "msgpack 60,000 empty maps": ("msgpack", _publish(b"\xdc\xea\x60" + b"\x80" * 60_000), [7]),
    "msgpack 4,097 values": ("msgpack", _publish(b"\xdc\x0f\xfe" + b"\xc0" * 4094), [7]),
    "msgpack a command after a bomb": (
        "msgpack",
        _publish(b"\xdc\xea\x60" + b"\x90" * 60_000) + b"\x82\xa2id\x08\xa4ping\x80",
        [7],
    ),
    "msgpack a timestamp": ("msgpack", _publish(b"\xd6\xff\x00\x00\x00\x01"), [7]),
    "msgpack a timestamp of 64 bits": ("msgpack", _publish(b"\xd7\xff" + bytes(8)), [7]),
    "msgpack a timestamp of 96 bits": ("msgpack", _publish(b"\xc7\x0c\xff" + bytes(12)), [7]),
    "msgpack an extension of no bytes": ("msgpack", _publish(b"\xc7\x00\x05"), [7]),
    "msgpack an extension as the id": ("msgpack", b"\x82\xa2id\xd4\x01\x01\xa4ping\x80", [0]),
    "msgpack a key that is a number": ("msgpack", _publish(b"\x81\x01\x01"), [7]),
    "msgpack a key that is bytes": ("msgpack", _publish(b"\x81\xc4\x01a\x01"), [7]),
    "msgpack a key that is a list": ("msgpack", _publish(b"\x81\x91\x01\x01"), [7]),
    "msgpack a key that is nil": ("msgpack", _publish(b"\x82\xa1a\x01\xc0\x01"), [7]),
    "msgpack duplicate keys": ("msgpack", _publish(b"\x82\xa1a\x01\xa1a\x02"), [7]),
    "msgpack duplicate keys that differ in writing": (
        "msgpack",
        _publish(b"\x82\xa1a\x01\xd9\x01a\x02"),
        [7],
    ),
    "msgpack a lone surrogate": ("msgpack", _publish(b"\xa3\xed\xa0\x80"), [7]),
    "msgpack NaN": ("msgpack", _publish(b"\xcb\x7f\xf8" + bytes(6)), [7]),
    "msgpack infinity": ("msgpack", _publish(b"\xcb\xff\xf0" + bytes(6)), [7]),
    "msgpack NaN of 32 bits": ("msgpack", _publish(b"\xca\x7f\xc0\x00\x00"), [7]),
    "msgpack infinity of 32 bits": ("msgpack", _publish(b"\xca\xff\x80\x00\x00"), [7]),
    "msgpack a float cut short": ("msgpack", _publish(b"\xcb\x7f"), [0]),
    "msgpack a byte that is none": ("msgpack", _publish(b"\xc1"), [0]),
    "msgpack text for a number": ("msgpack", msgpack.packb({"id": 7, "history": {"limit": "x"}}), [7]),
    "msgpack the id last": ("msgpack", msgpack.packb({"history": {"limit": "x"}, "id": 7}), [7]),
    "msgpack an id of text": ("msgpack", b"\x82\xa2id\xa17\xa3rpc\x81\xa4data\xd4\x01\x01", [0]),
    "msgpack an id of 32 bits": (
        "msgpack",
        b"\x82\xa2id\xce\xff\xff\xff\xff\xa3rpc\x81\xa4data\xd4\x01\x01",
        [2**32 - 1],
    ),
    "msgpack an id beyond 32 bits": (
        "msgpack",
        b"\x82\xa2id\xcf" + b"\xff" * 8 + b"\xa3rpc\x81\xa4data\xd4\x01\x01",
        [0],
    ),
    "msgpack no id": ("msgpack", b"\x81\xa3rpc\x81\xa4data\xd4\x01\x01", [0]),
}
"""Bytes by what they are, the codec that they are for, and the ids of the faults that come of them."""
