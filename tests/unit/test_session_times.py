"""hub/core/session/session.py: time limits, and what happens when they pass."""

from __future__ import annotations

import pytest
from support.sessions import LATER, NOW, UNIX_NOW, Peer, connected, options

from hub.core import effects as e
from hub.core.hooks import ConnectReply, SubscribeReply
from hub.core.session.state import GRACE_S
from hub.core.tokens import ConnectionClaims, SubscriptionClaims
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Errors

PONG = m.Command()


def test_a_client_must_connect_in_time() -> None:
    peer = Peer(connect_timeout_s=4)
    assert peer.session.deadline == NOW + 4
    peer.tick(NOW + 3.9)
    assert peer.closed is None
    peer.tick(NOW + 4)
    assert peer.closed == Disconnects.STALE


def test_a_refused_connect_may_be_repeated_within_the_time() -> None:
    peer = Peer(connect_timeout_s=4, hooks={"connect": Errors.INTERNAL})
    peer.error(connect=m.ConnectRequest())
    assert peer.error(connect=m.ConnectRequest()) == Errors.INTERNAL.code
    peer.tick(NOW + 4)
    assert peer.closed == Disconnects.STALE


def test_a_connect_that_the_hub_is_slow_with_may_be_repeated() -> None:
    """`stale` would stop a client that did all that it had to."""
    peer = Peer(connect_timeout_s=4, hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.tick(NOW + 4)
    assert peer.closed == Disconnects.INTERNAL_ERROR
    assert peer.closed.reconnect


def test_ping_and_pong() -> None:
    peer = connected(jitter=1.0, ping_interval_s=20, pong_timeout_s=5)
    assert peer.session.deadline == NOW + 20
    peer.tick(NOW + 20)
    assert peer.sent[-1] == m.PING
    assert peer.session.deadline == NOW + 25
    peer.now += 4.9
    peer.receive(m.PONG)
    assert peer.session.deadline == NOW + 40
    peer.tick(NOW + 40)
    assert peer.sent[1:] == [m.PING, m.PING]
    assert peer.closed is None


def test_no_pong() -> None:
    peer = connected(jitter=1.0, ping_interval_s=20, pong_timeout_s=5)
    peer.tick(NOW + 20)
    peer.tick(NOW + 24.9)
    assert peer.closed is None
    peer.tick(NOW + 25)
    assert peer.closed == Disconnects.NO_PONG


def test_no_pong_is_due_while_the_hub_holds_commands_back() -> None:
    peer = connected(ping_interval_s=25, pong_timeout_s=8)
    peer.tick(peer.session.next_ping)
    peer.session.is_held = True
    peer.tick(peer.session.pong_due)
    assert peer.closed is None
    assert peer.session.deadline > peer.now
    peer.session.is_held = False
    peer.tick(peer.session.pong_due)
    assert peer.closed == Disconnects.NO_PONG


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_a_slow_pong_is_missed_though_pings_come_as_fast(jitter: float) -> None:
    peer = connected(jitter=jitter, ping_interval_s=20, pong_timeout_s=19.9)
    for _ in range(20):
        peer.tick(peer.session.deadline)
    assert peer.closed == Disconnects.NO_PONG
    assert peer.sent.count(m.PING) == 1


def test_each_ping_that_was_sent_while_commands_were_held_is_answered() -> None:
    peer = connected(jitter=1.0, ping_interval_s=5, pong_timeout_s=4)
    peer.session.is_held = True
    for seconds in (5, 10, 15):
        peer.tick(NOW + seconds)
    assert peer.sent[1:] == [m.PING] * 3
    peer.session.is_held = False
    for _ in range(3):
        peer.receive(m.PONG)
    peer.tick(NOW + 16)
    assert peer.closed is None
    peer.receive(m.PONG)
    assert peer.closed == Disconnects.BAD_REQUEST


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_pings_are_spread_and_never_further_apart_than_was_said(jitter: float) -> None:
    peer = Peer(jitter=jitter, ping_interval_s=20, pong_timeout_s=5)
    result = peer.connect()
    assert (result.ping, result.pong) == (20, True)
    last = NOW
    for _ in range(3):
        peer.tick(peer.session.deadline)
        peer.receive(PONG)
        assert 10 <= peer.now - last <= 20
        last = peer.now
    assert peer.sent.count(m.PING) == 3


def test_an_unexpected_pong_closes_the_connection() -> None:
    peer = connected()
    peer.receive(PONG)
    assert peer.closed == Disconnects.BAD_REQUEST


def test_one_ping_is_answered_once() -> None:
    peer = connected()
    peer.tick(peer.session.deadline)
    peer.receive(PONG)
    peer.receive(PONG)
    assert peer.closed == Disconnects.BAD_REQUEST


def test_a_client_that_connects_late_is_pinged_at_once() -> None:
    peer = Peer(connect_timeout_s=100)
    peer.now = NOW + 90
    peer.connect()
    peer.tick(peer.now)
    assert peer.sent[-1] == m.PING


def test_a_connection_outlives_its_ttl_by_the_grace() -> None:
    peer = Peer(tokens={"token": ConnectionClaims("ann", expires_at=UNIX_NOW + 3)}, ping_interval_s=1_000)
    peer.connect("token")
    assert peer.session.deadline == NOW + 3 + GRACE_S
    peer.tick(NOW + 3 + GRACE_S - 0.1)
    assert peer.closed is None
    peer.tick(NOW + 3 + GRACE_S)
    assert peer.closed == Disconnects.EXPIRED


def subscribed_for(seconds: float) -> Peer:
    peer = Peer(
        hooks={"connect": ConnectReply("ann")},
        tokens={"token": SubscriptionClaims("ann", "open", expires_at=int(UNIX_NOW + seconds))},
        ping_interval_s=1_000,
    )
    peer.connect()
    result = peer.subscribe(token="token")
    assert (result.expires, result.ttl) == (True, seconds)
    return peer


def test_a_subscription_outlives_its_ttl_by_the_grace() -> None:
    peer = subscribed_for(3)
    assert peer.session.deadline == NOW + 3 + GRACE_S
    peer.tick(NOW + 3 + GRACE_S - 0.1)
    assert "open" in peer.joined
    peer.tick(NOW + 3 + GRACE_S)
    assert peer.joined == {}
    assert peer.pushes == [
        m.Push(channel="open", unsubscribe=m.UnsubscribePush(2501, "subscription expired"))
    ]
    assert peer.closed is None
    assert peer.session.deadline > peer.now


def test_a_server_side_subscription_that_expires_ends_the_connection() -> None:
    """A client makes no server-side subscription, so it could not make it again after 2501."""
    peer = Peer(
        hooks={"connect": ConnectReply("ann", channels={"open": SubscribeReply(ttl_s=3)})},
        ping_interval_s=1_000,
    )
    peer.connect()
    peer.tick(NOW + 3 + GRACE_S)
    assert peer.closed == Disconnects.SUBSCRIPTION_EXPIRED
    assert peer.closed.reconnect


@pytest.mark.parametrize(
    ("expires_at", "ttl"),
    [
        pytest.param(0, (False, 0), id="never"),
        pytest.param(UNIX_NOW + 10, (True, 10), id="later"),
        pytest.param(UNIX_NOW + 9.2, (True, 10), id="rounded up"),
        pytest.param(UNIX_NOW - 3, (True, 1), id="within the leeway of tokens"),
    ],
)
def test_ttl(expires_at: float, ttl: tuple[bool, int]) -> None:
    assert Peer().session.ttl(expires_at) == ttl


def test_times_are_computed_from_the_time_of_the_last_call() -> None:
    peer = Peer(
        {"default": options(allow_subscribe_for_client=True)},
        hooks={"subscribe": SubscribeReply(ttl_s=60), "connect": ConnectReply(ttl_s=60)},
        outcomes={e.OpenChannel: LATER},
    )
    peer.now = NOW + 5
    assert peer.connect().time == (UNIX_NOW + 5) * 1000
    subscribe = peer.send(subscribe=m.SubscribeRequest("a"))
    peer.now = NOW + 15
    peer.finish()
    result = peer.reply(subscribe).subscribe
    assert result
    assert result.ttl == 50
    peer.now = NOW + 20
    peer.carry_out(peer.session.refresh(UNIX_NOW + 60, peer.now))
    assert peer.pushes == [m.Push(refresh=m.RefreshPush(True, 40))]
