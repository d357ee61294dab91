"""The one-way encoding: what comes in is a connect request, what goes out are pushes."""

from __future__ import annotations

import pytest
from msgspec import Raw

from hub.protocol import messages as m
from hub.protocol.pushes import CONNECT_ID, PushCodec

codec = PushCodec()


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (b"", m.ConnectRequest()),
        (b"{}", m.ConnectRequest()),
        (b'{"token": "t", "name": "page"}', m.ConnectRequest(token="t", name="page")),
        (b'{\n "data":\r\n {"a": 1}\n}', m.ConnectRequest(data=Raw(b'{"a": 1}'))),
        (b'{"id": 7, "connect": {"token": "t"}}', m.ConnectRequest(token="t")),
        (
            b'{"connect": {"subs": {"a": {"recover": true}}}}',
            m.ConnectRequest(subs={"a": m.SubscribeRequest(recover=True)}),
        ),
        (b'{"unknown": 1}', m.ConnectRequest()),
    ],
)
def test_a_connect_request_comes_as_it_is_or_in_a_command(text: bytes, request_: m.ConnectRequest) -> None:
    assert codec.decode(text) == [m.Command(CONNECT_ID, connect=request_)]


def test_a_command_without_a_connect_request_is_none() -> None:
    assert codec.decode(b'{"connect": null, "publish": {"channel": "a"}}') == [m.Command(CONNECT_ID)]


@pytest.mark.parametrize(
    "text", [b"[]", b"1", b"nonsense", b'{"token": 1}', b'{"connect": 1}', b'{"a": 1, "a": 2}', b"\xff"]
)
def test_what_is_no_connect_request_is_a_fault(text: bytes) -> None:
    [fault] = codec.decode(text)
    assert isinstance(fault, m.Fault)
    assert fault.id == 0


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (m.PING, b"{}"),
        (m.Reply(1, connect=m.ConnectResult("c", ping=25)), b'{"connect":{"client":"c","ping":25}}'),
        (
            m.Reply(push=m.Push(channel="a", pub=m.Publication(Raw(b'"x"')))),
            b'{"channel":"a","pub":{"data":"x"}}',
        ),
    ],
)
def test_a_push_has_no_reply_around_it(reply: m.Reply, text: bytes) -> None:
    assert codec.encode(reply) == text


def test_pushes_are_joined_a_line_each() -> None:
    assert codec.join([b"{}", b'{"a":1}']) == b'{}\n{"a":1}'
