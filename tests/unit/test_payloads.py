"""hub/protocol/payloads.py: what an app's data is, and what it becomes in each encoding."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from hub.protocol import messages as m
from hub.protocol.payloads import NO_PAYLOAD, Packed, Payload, in_json, octets, payload, value

PACKED = Packed(msgspec.msgpack.encode({"a": [1, None], "b": b"\x00\xff"}))


def test_what_an_app_gives() -> None:
    assert octets(payload({"a": [1, None]})) == b'{"a":[1,null]}'
    for same in (Raw(b"{ }"), b"\x00", PACKED):
        assert payload(same) is same
    with pytest.raises(TypeError):
        payload(object())


def test_no_payload_is_told_by_identity() -> None:
    assert m.Publication().data is m.NO_PAYLOAD
    assert not m.NO_PAYLOAD


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Raw(b'{"a":[1,null]}'), {"a": [1, None]}),
        (Raw(b"null"), None),
        (b"\x00\xff", b"\x00\xff"),
        (PACKED, {"a": [1, None], "b": b"\x00\xff"}),
        (NO_PAYLOAD, None),
    ],
)
def test_the_value_of_one(data: Payload, expected: Any) -> None:
    assert value(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (Raw(b'{"a" : 1}'), b'{"a" : 1}'),
        (b"\x00\xff", b"\x00\xff"),
        (PACKED, b'{"a":[1,null],"b":"AP8="}'),
    ],
)
def test_the_bytes_of_one(data: Payload, expected: bytes) -> None:
    assert octets(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [(Raw(b"1.0"), b"1.0"), (b"\x00\xff", b'"AP8="'), (PACKED, b'{"a":[1,null],"b":"AP8="}')],
)
def test_one_in_json(data: Payload, expected: bytes) -> None:
    assert msgspec.json.encode(data, enc_hook=in_json) == expected


def test_what_is_no_payload() -> None:
    with pytest.raises(TypeError, match="got object"):
        octets(object())


def test_packed_ones_are_compared_by_their_bytes() -> None:
    assert Packed(b"\x01") == Packed(b"\x01")
    assert Packed(b"\x01") != Packed(b"\xcc\x01")
    assert len({Packed(b"\x01"), Packed(b"\x01")}) == 1
