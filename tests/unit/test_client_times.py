"""The client's waits, timers and addresses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hub.client.address import endpoint
from hub.client.backoff import RETRY_AFTER_MAX_S, backoff_s, retry_after_s
from hub.client.codec import CODECS, Codec
from hub.client.timers import Timers
from hub.protocol import messages as m
from hub.protocol.msgpack import MessagePackCodec
from hub.protocol.protobuf import ProtobufCodec


@given(st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_its_bounds_and_never_the_bound_alone(attempt: int, chance: float) -> None:
    wait_s = backoff_s(attempt, 0.5, 20.0, chance)
    assert 0.5 <= wait_s <= 20.0
    if attempt > 6:
        assert wait_s == pytest.approx(0.5 + 19.5 * chance)  # chance decides, however often it was tried


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("-7", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("Tue, 14 Nov 2023 22:13:25 GMT", 5),
        ("Tue, 14 Nov 2023 22:13:25", 5),
        ("Tue, 14 Nov 2023 22:13:15 GMT", 0),
        ("Tue, 14 Nov 2123 22:13:25 GMT", RETRY_AFTER_MAX_S),
        ("Tue, 99 Nov 2023 22:13:25 GMT", 0),
    ],
)
def test_a_retry_after(header: str | None, wait_s: float) -> None:
    assert retry_after_s(header, 1_700_000_000) == wait_s


def test_timers_run_in_their_order() -> None:
    timers = Timers()
    ran: list[str] = []

    def add() -> None:
        timers.at(1, lambda: ran.append("d"))

    assert timers.deadline == math.inf
    timers.at(2, lambda: ran.append("b"))
    first = timers.at(1, lambda: ran.append("a"))
    timers.at(2, lambda: ran.append("c"))
    timers.at(2, add)
    timers.at(9, lambda: ran.append("later"))
    first.cancel()
    assert timers.deadline == 2
    timers.run(1.9)
    assert ran == []
    timers.run(2)
    assert ran == ["b", "c", "d"]
    assert timers.deadline == 9


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/connection/websocket"),
        ("https://hub.example/", "wss://hub.example/connection/websocket"),
        ("https://hub.example/live/", "wss://hub.example/live/connection/websocket"),
        ("ws://hub.example", "ws://hub.example/connection/websocket"),
        ("wss://hub.example/own/path", "wss://hub.example/own/path"),
        ("http://hub.example/connection/websocket?a=1#b", "ws://hub.example/connection/websocket?a=1"),
    ],
)
def test_an_address(url: str, address: str) -> None:
    assert endpoint(url) == address


@pytest.mark.parametrize("url", ["", "hub.example", "ftp://hub.example", "http://", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"no address of a hub|Invalid IPv6"):
        endpoint(url)


@pytest.mark.parametrize("codec", CODECS.values())
def test_payloads_that_have_no_form_are_told_at_once(codec: Codec) -> None:
    with pytest.raises(TypeError):
        codec.payload(object())
    assert codec.value(codec.payload({"a": [1, None]})) == {"a": [1, None]}
    assert codec.value(m.NO_PAYLOAD) is None
    if codec is not CODECS["protobuf"]:  # which takes for binary what is no JSON
        with pytest.raises(ValueError, match="truncated"):
            codec.value(Raw(b"{" if codec is CODECS["json"] else b"\x81"))
    with pytest.raises(ValueError, match=r"truncated|beyond"):
        codec.decode(b"{" if codec is CODECS["json"] else b"\x80\x81\xa2")


def test_messagepack_holds_several_messages_and_bytes() -> None:
    codec, server = CODECS["msgpack"], MessagePackCodec()
    publish = m.PublishRequest("news", codec.payload({"blob": b"\x00\xff"}))
    sent = codec.join([codec.encode(m.Command(1, publish=publish)), codec.encode(m.Command())])
    first, pong = server.decode(sent)
    assert isinstance(first, m.Command)
    assert first.publish
    assert m.value(first.publish.data) == {"blob": b"\x00\xff"}
    assert pong == m.Command()
    pub = m.Publication(first.publish.data, offset=1)
    replies = [m.Reply(1, publish=m.PublishResult()), m.Reply(push=m.Push(channel="news", pub=pub)), m.PING]
    heard = codec.decode(server.join([server.encode(reply) for reply in replies]))
    assert heard[0] == replies[0]
    assert heard[1].push
    assert heard[1].push.pub
    assert codec.value(heard[1].push.pub.data) == {"blob": b"\x00\xff"}
    assert heard[2] == m.PING
    with pytest.raises(ValueError, match="Expected"):
        codec.decode(b"\x01")


def test_protobuf_holds_every_kind_of_field() -> None:
    codec, server = CODECS["protobuf"], ProtobufCodec()
    subs = {"news": m.SubscribeRequest(recover=True, offset=7)}
    connect = m.Command(1, connect=m.ConnectRequest("token", codec.payload({"a": 1}), subs))
    publish = m.Command(2, publish=m.PublishRequest("news", codec.payload(b"\x00\xff")))
    commands = list(server.decode(codec.join([*map(codec.encode, (connect, publish)), codec.encode(m.PONG)])))
    assert commands == [connect, m.Command(2, publish=m.PublishRequest("news", b"\x00\xff")), m.PONG]
    pub = m.Publication(b'{"a":1}', m.ClientInfo("ann", conn_info=b"\xff"), 3, {"tag": "x"}, time=9)
    result = m.SubscribeResult(epoch="e", publications=[pub, pub])
    replies = [
        m.Reply(1, connect=m.ConnectResult("id", data=b"1", subs={"news": result}, ping=25, pong=True)),
        m.Reply(2, m.ErrorMessage(100, "internal", True)),
        m.Reply(3, presence=m.PresenceResult({"id": m.ClientInfo("ann")})),
        m.Reply(4, history=m.HistoryResult([pub], "e", 3)),
        m.Reply(push=m.Push(channel="news", pub=pub)),
        m.Reply(push=m.Push(connect=m.ConnectResult("id"))),
        m.PING,
    ]
    assert codec.decode(server.join([server.encode(reply) for reply in replies])) == replies
    assert codec.value(pub.data) == {"a": 1}
    assert codec.value(b"\xff{") == b"\xff{"
    for broken in (b"\xff\xff\xff\xff\xff\xff", b"\x02\x01", b"\x01\x0f"):
        with pytest.raises(ValueError, match=r"length is broken|Error parsing"):
            codec.decode(broken)
