"""hub/core/session/session.py: a client that only listens."""

from __future__ import annotations

import pytest
from support.sessions import LATER, NOW, Peer, connected, stream

from hub.core import effects as e
from hub.core.hooks import ConnectReply, SubscribeReply
from hub.core.tokens import Expired
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors


def test_a_one_way_client_owes_no_pong() -> None:
    peer = Peer(one_way=True, ping_interval_s=20, pong_timeout_s=5)
    result = peer.connect()
    assert (result.ping, result.pong, result.idempotency_ttl) == (20, False, 0)
    peer.tick(NOW + 20)
    peer.tick(NOW + 40)
    assert peer.sent[1:] == [m.PING, m.PING]
    peer.tick(NOW + 45)
    assert peer.closed is None


def test_a_one_way_client_gets_its_channels_and_missed_publications() -> None:
    channels = {"open": SubscribeReply()}
    peer = Peer(one_way=True, hooks={"connect": ConnectReply(channels=channels)}, streams={"open": stream(3)})
    result = peer.connect()
    assert list(result.subs) == ["open"]
    assert list(peer.joined) == ["open"]


def test_commands_after_the_connect_are_ignored() -> None:
    peer = Peer(one_way=True, outcomes={e.CallHandler: LATER}, hooks={"connect": ConnectReply()})
    peer.send(connect=m.ConnectRequest())
    peer.receive(m.Fault(0, "nonsense"))
    peer.finish(ConnectReply())
    for command in (m.Command(), m.Command(2, publish=m.PublishRequest("open")), m.Fault(3, "nonsense")):
        peer.receive(command)
    assert len(peer.sent) == 1
    assert peer.closed is None


@pytest.mark.parametrize("command", [m.Command(), m.Command(1), m.Fault(0, "nonsense")])
def test_a_one_way_client_that_never_connects_is_closed(command: m.Command | m.Fault) -> None:
    peer = Peer(one_way=True)
    peer.receive(command)
    assert peer.closed == Disconnects.BAD_REQUEST


@pytest.mark.parametrize(
    ("answer", "disconnect"),
    [
        (Errors.UNAUTHORIZED, Disconnect(3507, "unauthorized")),
        (Error(1000, "not today"), Disconnect(3507, "not today")),
        (Error(1001, "try again", temporary=True), Disconnects.INTERNAL_ERROR),
        (Disconnect(4500, "never"), Disconnect(4500, "never")),
    ],
)
def test_a_refusal_closes_a_one_way_client(answer: Error | Disconnect, disconnect: Disconnect) -> None:
    peer = Peer(one_way=True, hooks={"connect": answer})
    peer.send(connect=m.ConnectRequest())
    assert (peer.sent, peer.closed) == ([], disconnect)


def test_an_expired_token_lets_a_one_way_client_reconnect() -> None:
    peer = Peer(one_way=True, tokens={"old": Expired()})
    peer.send(connect=m.ConnectRequest(token="old"))
    assert peer.closed == Disconnects.EXPIRED


def test_a_two_way_client_gets_the_error() -> None:
    peer = connected()
    assert peer.subscribe_error("a b") == Errors.BAD_REQUEST.code
    assert peer.closed is None
