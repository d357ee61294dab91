"""hub/core/session/session.py: what the server does to a client, at any moment."""

from __future__ import annotations

import pytest
from msgspec import Raw
from support.sessions import LATER, NOW, UNIX_NOW, Peer, connected, options, stream

from hub.core import effects as e
from hub.core.channel.subscription import Grant
from hub.core.hooks import ConnectReply, RPCReply
from hub.core.session.state import GRACE_S
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Errors, Unsubscribes


def test_the_server_changes_when_a_connection_expires() -> None:
    peer = connected(ping_interval_s=1_000)
    peer.carry_out(peer.session.refresh(UNIX_NOW + 60, NOW))
    assert peer.pushes == [m.Push(refresh=m.RefreshPush(True, 60))]
    assert peer.session.deadline == NOW + 60 + GRACE_S
    peer.carry_out(peer.session.refresh(0, NOW))
    assert peer.pushes[-1] == m.Push(refresh=m.RefreshPush())
    peer.tick(NOW + 60 + GRACE_S)
    assert peer.closed is None


def test_the_server_subscribes_a_client() -> None:
    peer = connected({"default": options(history=True, force_recovery=True)}, streams={"news": stream(top=4)})
    grant = Grant(data=Raw(b'"hello"'), info=Raw(b'"here"'))
    peer.carry_out(peer.session.subscribe("news", grant, None, NOW))
    subscribe = m.SubscribePush(recoverable=True, epoch="epoch", offset=4, data=Raw(b'"hello"'))
    assert peer.pushes == [m.Push(channel="news", subscribe=subscribe)]
    subscription = peer.joined["news"]
    assert subscription.server_side
    assert subscription.info.chan_info == Raw(b'"here"')


def test_the_server_subscribes_a_client_that_is_subscribed() -> None:
    peer = connected()
    peer.subscribe("open")
    peer.carry_out(peer.session.subscribe("open", Grant(), None, NOW))
    assert peer.pushes == []


def test_the_server_subscribes_a_client_with_what_it_missed() -> None:
    peer = connected({"default": options(history=True, force_recovery=True)}, streams={"news": stream(3, 4)})
    peer.carry_out(peer.session.subscribe("news", Grant(), m.StreamPosition(2, "epoch"), NOW))
    [subscribe, *publications] = peer.pushes
    assert subscribe.subscribe
    assert subscribe.subscribe.offset == 2
    assert [push.pub.offset for push in publications if push.pub] == [3, 4]
    assert peer.joined["news"].offset == 4
    assert isinstance(peer.effects[-1], e.SubscriptionStarted)


@pytest.mark.parametrize("channel", ["unknown:channel", "no name", ""])
def test_the_server_names_an_invalid_channel(channel: str) -> None:
    peer = connected()
    peer.carry_out(peer.session.subscribe(channel, Grant(), None, NOW))
    assert peer.pushes == []
    assert peer.joined == {}
    assert len(peer.refused) == 1


def test_the_server_cannot_open_a_channel() -> None:
    peer = connected(streams={"open": Errors.INTERNAL})
    peer.carry_out(peer.session.subscribe("open", Grant(), None, NOW))
    assert peer.pushes == []
    assert peer.effects[-1] == e.CancelSubscribe("open")
    [refused] = peer.refused
    assert refused.code == Errors.INTERNAL.code
    assert refused.cause.reason == "broker"
    assert refused.cause.channel == "open"
    assert "was not subscribed to open, as a backend asked: the broker failed" in refused.cause.text


def test_the_limit_of_channels_holds_for_the_server() -> None:
    peer = connected(channels_max=2, outcomes={e.OpenChannel: LATER})
    for channel in ("a", "b", "c"):
        peer.carry_out(peer.session.subscribe(channel, Grant(), None, NOW))
    assert len(peer.held) == 2
    peer.finish()
    peer.finish()
    assert set(peer.joined) == {"a", "b"}
    [refused] = peer.refused
    assert refused.cause.reason == "channels_max"
    assert "as a backend asked" in refused.cause.text


def test_the_server_unsubscribes_a_client() -> None:
    peer = connected()
    peer.subscribe("open")
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    assert peer.joined == {}
    assert peer.pushes == [m.Push(channel="open", unsubscribe=m.UnsubscribePush(2000, "server unsubscribe"))]


def test_a_server_side_subscription_that_loses_its_position_ends_the_connection() -> None:
    peer = connected()
    peer.carry_out(peer.session.subscribe("a", Grant(), None, NOW))
    peer.carry_out(peer.session.unsubscribe("a", Unsubscribes.INSUFFICIENT_STATE, NOW))
    assert peer.closed == Disconnects.INSUFFICIENT_STATE


def test_a_subscription_of_the_client_that_loses_its_position_ends_alone() -> None:
    peer = connected()
    peer.subscribe("open")
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.INSUFFICIENT_STATE, NOW))
    assert peer.closed is None
    assert peer.pushes[-1].unsubscribe == m.UnsubscribePush(2500, "insufficient state")


def test_the_server_unsubscribes_a_client_that_is_not_subscribed() -> None:
    peer = connected()
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    assert peer.pushes == []


def test_the_server_unsubscribes_a_client_that_is_about_to_subscribe() -> None:
    peer = connected(outcomes={e.OpenChannel: LATER})
    subscribe = peer.send(subscribe=m.SubscribeRequest("open"))
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    assert peer.pushes == []
    peer.finish()
    assert peer.reply(subscribe).subscribe
    assert [push.unsubscribe is not None for push in peer.pushes] == [True]
    assert peer.joined == {}


def test_the_server_waits_for_the_client_to_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.carry_out(peer.session.subscribe("open", Grant(), None, NOW))
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    peer.carry_out(peer.session.refresh(0, NOW))
    peer.finish()
    assert peer.pushes == []
    assert peer.joined == {}


def test_the_server_disconnects_a_client() -> None:
    peer = connected(hooks={"rpc": RPCReply()}, outcomes={e.CallHandler: LATER})
    peer.subscribe("a")
    peer.subscribe("b")
    rpc = peer.send(rpc=m.RPCRequest())
    peer.carry_out(peer.session.disconnect(Disconnects.FORCE_NO_RECONNECT))
    assert [type(effect) for effect in peer.effects[-3:]] == [
        e.SubscriptionEnded,
        e.SubscriptionEnded,
        e.Close,
    ]
    assert peer.session.subscriptions == {}
    assert peer.session.in_progress == 0
    peer.finish()
    assert peer.replies(rpc) == []


def test_a_closed_session_has_no_commands_in_progress() -> None:
    peer = connected(outcomes={e.OpenChannel: LATER})
    peer.send(subscribe=m.SubscribeRequest("a"))
    peer.send(unsubscribe=m.UnsubscribeRequest("a"))
    peer.carry_out(peer.session.disconnect(Disconnects.CONNECTION_CLOSED))
    assert peer.session.in_progress == 0
