"""The client's codecs, and what the client makes of bytes that no hub sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from support.bombs import mangled

from hub.client.codec import CODECS, ClientCodec
from hub.client.machine import ClientMachine
from hub.client.state import ClientOptions
from hub.client.subscription import SubscriptionOptions
from hub.protocol import messages as m
from hub.protocol.encoding import Codec
from hub.protocol.json import JSONCodec
from hub.protocol.msgpack import MessagePackCodec
from hub.protocol.protobuf import ProtobufCodec


@pytest.mark.parametrize("codec", CODECS.values())
def test_payloads_that_have_no_form_are_told_at_once(codec: ClientCodec) -> None:
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


PUB = m.Publication(m.payload({"a": [1, "é"]}), m.ClientInfo("ann", "c", m.payload(1)), 7, {"k": "v"})
MISSED = m.Publications([PUB], 1)
REPLIES = (
    m.Reply(push=m.Push(channel="news", pub=PUB)),
    m.Reply(2, subscribe=m.SubscribeResult(recoverable=True, publications=MISSED, delta=True)),
    m.Reply(push=m.Push(channel="news", disconnect=m.DisconnectPush(3000, "no", True))),
    m.Reply(push=m.Push(channel="a", subscribe=m.SubscribePush(offset=3, recoverable=True))),
    m.Reply(2, error=m.ErrorMessage(109, "expired")),
)
SERVER_CODECS: dict[str, Codec] = {
    "json": JSONCodec(),
    "msgpack": MessagePackCodec(),
    "protobuf": ProtobufCodec(),
}


@pytest.mark.parametrize("name", CODECS)
@given(message=st.data())
def test_no_bytes_make_a_client_raise(name: str, message: st.DataObject) -> None:
    codec, server = CODECS[name], SERVER_CODECS[name]
    machine = ClientMachine(codec, ClientOptions(), chance=lambda: 0.5)
    machine.new_subscription("news", SubscriptionOptions(delta="fossil"))
    machine.connect(1.0)
    machine.opened(machine.link, 1.0)
    machine.received(machine.link, server.encode(m.Reply(1, connect=m.ConnectResult("c", ping=25))), 1.0)
    assert machine.connected
    machine.subscribe("news", 1.0)
    replies = st.sampled_from(REPLIES).map(server.encode)
    for _ in range(3):
        sent = message.draw(replies | replies.flatmap(mangled) | st.binary(max_size=40))
        machine.received(machine.link, sent, 2.0)
        machine.tick(2.0)


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("json", b"[" * 100_000),
        ("json", b'{"push":{"x":' + b"[" * 100_000),
        ("json", b'{"push":{"channel":"a","pub":{"data":' + b"[" * 60_000 + b"]" * 60_000 + b"}}}"),
        ("msgpack", b"\x81\xa4push" + b"\x91" * 60_000),
        ("msgpack", b"\x81\xa4push\xdf\xff\xff\xff\xff"),
        ("msgpack", b"\x81\xa1x" + b"\x91" * 60_000 + b"\x90"),
    ],
)
def test_what_no_hub_sends_is_an_error(name: str, bomb: bytes) -> None:
    codec = CODECS[name]
    with pytest.raises(ValueError, match=r"."):
        [codec.value(reply.push.pub.data) for reply in codec.decode(bomb) if reply.push and reply.push.pub]
