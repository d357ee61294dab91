"""What is posted to `/emulation`."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bombs import mangled

from hub.protocol import client_pb2
from hub.protocol.emulation import from_json, from_protobuf
from hub.protocol.json import MalformedError
from hub.protocol.messages import EmulationRequest


def test_commands_are_text_in_json() -> None:
    body = b'{"session": "s", "node": "n", "data": "{\\"id\\":1}\\n{\\u00e9}", "more": 1}'
    assert from_json(body) == EmulationRequest("n", "s", '{"id":1}\n{é}'.encode())


def test_commands_are_bytes_in_protobuf() -> None:
    body = client_pb2.EmulationRequest(node="n", session="s", data=b"\x00\xff").SerializeToString()
    assert from_protobuf(body) == EmulationRequest("n", "s", b"\x00\xff")
    assert from_protobuf(b"") == EmulationRequest("", "", b"")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b'{"session":"","node":"","data":1}', b"\xff", b'{"session":"a"'),
        b'{"session":"","node":"","data":"\\ud800"}',
        *(
            b'{"session":"","node":"","data":"","more":"\xff"}',
            b'{"session":"","node":"","data":"","\xff":1}',
        ),
        b'{"session":"","node":"","data":"","more":"\xed\xa0\x80"}',
        b"[" * 100_000,
        b'{"session":' + b"[" * 100_000,
        b'{"more":' + b"[" * 100_000,
        b'{"more":' + b'{"a":' * 20_000,
    ],
)
def test_what_is_no_request_in_json(body: bytes) -> None:
    with pytest.raises(MalformedError):
        from_json(body)


@pytest.mark.parametrize(
    "body", [b"\xff", b"\x0a\x05n", b"\x0a\x01\xff", b"\x33" * 60_000, b"\x22" + b"\xff" * 60_000]
)
def test_what_is_no_request_in_protobuf(body: bytes) -> None:
    with pytest.raises(MalformedError):
        from_protobuf(body)


JSON_BODY = b'{"session":"s","node":"n","data":"{}"}'
PROTOBUF_BODY = client_pb2.EmulationRequest(node="n", session="s", data=b"{}").SerializeToString()


@given(st.binary() | st.sampled_from([JSON_BODY, PROTOBUF_BODY]).flatmap(mangled))
def test_nothing_else_is_raised(body: bytes) -> None:
    for read in (from_json, from_protobuf):
        with contextlib.suppress(MalformedError):
            read(body)
