"""hub/core/session/connect.py: authentication, server-side subscriptions, and expiry."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from support.sessions import LATER, NOW, UNIX_NOW, Peer, options, stream

from hub.core import effects as e
from hub.core.hooks import ConnectEvent, ConnectReply, SubscribeReply
from hub.core.tokens import ChannelOverrides, ConnectionClaims, Expired, Invalid, SubscriptionGrant
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors, Unsubscribes

ANN = ConnectionClaims("ann", info=Raw(b'{"name":"Ann"}'))


def connect_error(peer: Peer, token: str = "") -> int:
    return peer.error(connect=m.ConnectRequest(token=token))


# Who a client is


def test_the_ping_that_a_client_is_told_is_in_whole_seconds() -> None:
    assert Peer(ping_interval_s=0.4, pong_timeout_s=0.1).connect().ping == 1
    assert Peer(ping_interval_s=2.6, pong_timeout_s=1).connect().ping == 3


def test_an_anonymous_client() -> None:
    peer = Peer(anonymous=True)
    result = peer.connect()
    assert result == m.ConnectResult(
        client="client-1",
        version="1.2.3",
        ping=25,
        pong=True,
        session="session-1",
        node="node-1",
        time=UNIX_NOW * 1000,
        idempotency_ttl=300,
    )
    assert peer.session.info == m.ClientInfo("", "client-1")
    assert peer.effects[1] == e.Authenticated("")


def test_clients_are_refused_by_default() -> None:
    peer = Peer(anonymous=False)
    assert connect_error(peer) == Errors.UNAUTHORIZED.code
    assert peer.closed is None
    assert peer.effects == [e.Send(peer.reply(1))]
    peer.tokens["token"] = ANN
    peer.connect("token")
    assert not peer.session.connecting


def test_a_client_refused_by_the_admission_queue_is_not_authenticated() -> None:
    peer = Peer(tokens={"token": ANN}, outcomes={e.WaitForTurn: Disconnects.TOO_MANY_REQUESTS})
    peer.send(connect=m.ConnectRequest(token="token"))
    assert peer.closed == Disconnects.TOO_MANY_REQUESTS
    assert peer.operations == []


def test_every_client_may_connect_in_insecure_mode() -> None:
    peer = Peer(anonymous=False, insecure=True)
    peer.connect()
    assert peer.session.user == ""


def test_a_token_authenticates_the_client() -> None:
    peer = Peer(anonymous=False, tokens={"token": ANN})
    result = peer.connect("token")
    assert (result.expires, result.ttl) == (False, 0)
    assert peer.operations == [e.Verify("token", "connection")]
    assert peer.effects[2:4] == [e.Authenticated("ann"), e.Send(peer.reply(1))]
    assert peer.session.info == m.ClientInfo("ann", "client-1", Raw(b'{"name":"Ann"}'))


def test_a_token_that_expires() -> None:
    peer = Peer(tokens={"token": ConnectionClaims("ann", expires_at=UNIX_NOW + 60)})
    result = peer.connect("token")
    assert (result.expires, result.ttl) == (True, 60)


@pytest.mark.parametrize("insecure", [True, False])
def test_an_expired_token(insecure: bool) -> None:
    peer = Peer(insecure=insecure, tokens={"old": Expired(), "new": ANN})
    assert connect_error(peer, "old") == Errors.TOKEN_EXPIRED.code
    assert peer.closed is None
    peer.connect("new")


@pytest.mark.parametrize("insecure", [True, False])
def test_an_invalid_token(insecure: bool) -> None:
    peer = Peer(insecure=insecure, tokens={"token": Invalid("forged")})
    peer.send(connect=m.ConnectRequest(token="token"))
    assert peer.closed == Disconnects.INVALID_TOKEN
    assert peer.sent == []


def test_a_token_that_cannot_be_verified_now() -> None:
    peer = Peer(tokens={"token": Errors.INTERNAL})
    reply = peer.call(connect=m.ConnectRequest(token="token"))
    assert reply.error == m.ErrorMessage(100, "internal server error", temporary=True)


def test_claims_of_a_refused_token_are_not_kept() -> None:
    peer = Peer(tokens={"token": ConnectionClaims("ann", channels=("unknown:channel",))})
    assert connect_error(peer, "token") == Errors.UNKNOWN_CHANNEL.code
    peer.connect()
    assert peer.session.user == ""
    assert peer.effects[-2] == e.Authenticated("")


# The app


def test_the_app_is_asked() -> None:
    peer = Peer(anonymous=False, tokens={"token": ANN}, hooks={"connect": None})
    peer.connect("token", data=Raw(b'{"a": 1}'), name="js", version="7")
    event = ConnectEvent(
        "client-1", "ann", {"a": 1}, "js", "7", headers={"user-agent": "test"}, has_token=True
    )
    assert peer.operations[1:] == [e.CallHandler(event)]
    assert peer.session.user == "ann"


def test_the_app_leaves_it_to_the_settings() -> None:
    peer = Peer(anonymous=False, hooks={"connect": None})
    assert connect_error(peer) == Errors.UNAUTHORIZED.code
    [operation] = peer.operations
    assert operation == e.CallHandler(ConnectEvent("client-1", "", headers={"user-agent": "test"}))


def test_the_app_authenticates_the_client() -> None:
    reply = ConnectReply("bob", info={"name": "Bob"}, data={"motd": "hi"}, ttl_s=30)
    peer = Peer(anonymous=False, hooks={"connect": reply})
    result = peer.connect()
    assert result.data == Raw(b'{"motd":"hi"}')
    assert (result.expires, result.ttl) == (True, 30)
    assert peer.session.info == m.ClientInfo("bob", "client-1", Raw(b'{"name":"Bob"}'))


def test_the_app_replaces_claims_of_the_token() -> None:
    claims = ConnectionClaims("ann", expires_at=UNIX_NOW + 60, info=Raw(b"1"))
    peer = Peer(tokens={"token": claims}, hooks={"connect": ConnectReply(user="ann@work", info=2, ttl_s=5)})
    result = peer.connect("token")
    assert result.ttl == 5
    assert peer.session.info == m.ClientInfo("ann@work", "client-1", Raw(b"2"))


def test_claims_that_the_app_does_not_replace_stay() -> None:
    claims = ConnectionClaims("ann", expires_at=UNIX_NOW + 60, info=Raw(b"1"))
    peer = Peer(tokens={"token": claims}, hooks={"connect": ConnectReply()})
    result = peer.connect("token")
    assert result.ttl == 60
    assert peer.session.info == m.ClientInfo("ann", "client-1", Raw(b"1"))


def test_the_app_refuses_with_an_error() -> None:
    peer = Peer(hooks={"connect": Error(1000, "not today")})
    reply = peer.call(connect=m.ConnectRequest())
    assert reply.error == m.ErrorMessage(1000, "not today")
    assert peer.closed is None


def test_the_app_refuses_with_a_disconnect() -> None:
    peer = Peer(hooks={"connect": Disconnect(4501, "banned")})
    peer.send(connect=m.ConnectRequest())
    assert peer.closed == Disconnect(4501, "banned")
    assert peer.sent == []


# Server-side subscriptions


def test_a_personal_channel() -> None:
    peer = Peer(tokens={"token": ANN}, user_personal_channel="#{user}")
    result = peer.connect("token")
    assert result.subs == {"#ann": m.SubscribeResult()}
    assert peer.joined["#ann"].server_side


def test_a_personal_channel_is_one_users_whatever_the_id() -> None:
    token = ConnectionClaims("ann, bob#é@x.y")
    result = Peer(tokens={"token": token}, user_personal_channel="#{user}").connect("token")
    assert list(result.subs) == ["#ann%2C%20bob%23%C3%A9@x.y"]


@pytest.mark.parametrize("user", ["ann lee", "ann%20lee", "ann%2520lee", "google:123", "a,b", "%"])
def test_a_personal_channel_lets_only_its_user_in(user: str) -> None:
    rules = options(history=True, allow_user_limited=True, allow_history_for_subscriber=True)
    users = {"ann lee", "ann%20lee", "ann%2520lee", "google:123", "a,b", "a", "b", "%", "google"}
    tokens = {each: ConnectionClaims(each) for each in users}
    peer = Peer({"default": rules}, tokens=tokens, user_personal_channel="#{user}")
    [channel] = peer.connect(user).subs
    for other in users:
        peer = Peer({"default": rules}, tokens=tokens)
        peer.connect(other)
        reply = peer.call(subscribe=m.SubscribeRequest(channel))
        assert bool(reply.subscribe) == (other == user), other


def test_an_anonymous_client_has_no_personal_channel() -> None:
    assert Peer(user_personal_channel="#{user}").connect().subs == {}


def test_subscriptions_of_the_token() -> None:
    grant = SubscriptionGrant(info=Raw(b'"host"'), data=Raw(b"1"), override=ChannelOverrides(presence=True))
    claims = ConnectionClaims("ann", channels=("a", "b"), subs={"b": grant})
    peer = Peer(tokens={"token": claims})
    result = peer.connect("token")
    assert result.subs == {"a": m.SubscribeResult(), "b": m.SubscribeResult(data=Raw(b"1"))}
    assert not peer.joined["a"].presence
    assert peer.joined["b"].presence
    assert peer.joined["b"].info == m.ClientInfo("ann", "client-1", chan_info=Raw(b'"host"'))


def test_subscriptions_of_the_app() -> None:
    channels = {"a": SubscribeReply(info="here", data=1, ttl_s=9, presence=True), "b": SubscribeReply()}
    peer = Peer(hooks={"connect": ConnectReply("ann", channels=channels)})
    result = peer.connect()
    assert result.subs == {
        "a": m.SubscribeResult(expires=True, ttl=9, data=Raw(b"1")),
        "b": m.SubscribeResult(),
    }
    assert peer.joined["a"].presence
    assert peer.joined["a"].info.chan_info == Raw(b'"here"')
    assert peer.joined["a"].deadline == NOW + 9


def test_server_side_subscriptions_are_opened_together() -> None:
    claims = ConnectionClaims("ann", channels=("a", "b"))
    peer = Peer(tokens={"token": claims}, outcomes={e.OpenChannels: LATER})
    command_id = peer.send(connect=m.ConnectRequest(token="token"))
    [run] = peer.held
    assert run.operation == e.OpenChannels((e.OpenChannel("a"), e.OpenChannel("b")))
    peer.finish()
    assert peer.reply(command_id).connect
    kinds = [type(effect) for effect in peer.effects[2:]]
    assert kinds == [e.Run, e.Authenticated, e.Send, e.SubscriptionStarted, e.SubscriptionStarted]


def test_a_connection_beyond_the_limit_is_refused_before_it_counts() -> None:
    claims = ConnectionClaims("ann", channels=("a", "b"))
    peer = Peer(tokens={"token": claims}, outcomes={e.Admit: Disconnects.CONNECTION_LIMIT})
    peer.send(connect=m.ConnectRequest(token="token"))
    assert peer.closed is Disconnects.CONNECTION_LIMIT
    assert peer.sent == []
    assert not any(isinstance(effect, e.Authenticated | e.SubscriptionStarted) for effect in peer.effects)
    assert e.Run(e.Admit("ann"), 3) in peer.effects


def test_server_side_subscriptions_recover() -> None:
    rules = {"default": options(history=True, force_recovery=True)}
    claims = ConnectionClaims("ann", channels=("a", "b", "c"))
    streams = {"a": stream(3, 4), "b": stream(9, top=9), "c": stream(top=2)}
    peer = Peer(rules, tokens={"token": claims}, streams=streams)
    returned = m.SubscribeRequest(recover=True, epoch="epoch", offset=2)
    elsewhere = m.SubscribeRequest(recover=True, epoch="epoch", offset=2)
    result = peer.connect("token", subs={"a": returned, "b": elsewhere, "x": m.SubscribeRequest()})
    assert result.subs["a"].recovered
    assert [publication.offset for publication in result.subs["a"].publications] == [3, 4]
    assert result.subs["a"].was_recovering
    assert not result.subs["b"].recovered
    assert result.subs["b"].was_recovering
    assert result.subs["b"].offset == 9
    assert not result.subs["c"].was_recovering
    assert result.subs["c"].offset == 2
    assert "x" not in result.subs


def test_a_client_cannot_ask_for_the_history_of_a_channel_that_it_was_put_into() -> None:
    """By its `subs` it only says where it was; what it may read is decided as for any other subscription."""
    peer = Peer(
        {"default": options(history=True)},
        tokens={"token": ConnectionClaims("ann", channels=("a",))},
        streams={"a": stream(1, 2)},
    )
    asked = m.SubscribeRequest(recover=True, recoverable=True, positioned=True)
    result = peer.connect("token", subs={"a": asked})
    assert result.subs["a"] == m.SubscribeResult(was_recovering=True)


@pytest.mark.parametrize(
    ("channel", "code"),
    [("unknown:channel", Errors.UNKNOWN_CHANNEL.code), ("no name", Errors.BAD_REQUEST.code)],
)
def test_a_token_with_an_invalid_channel(channel: str, code: int) -> None:
    peer = Peer(tokens={"token": ConnectionClaims("ann", channels=("a", channel))})
    assert connect_error(peer, "token") == code
    assert peer.joined == {}


def test_more_server_side_subscriptions_than_channels_max() -> None:
    peer = Peer(tokens={"token": ConnectionClaims("ann", channels=("a", "b", "c"))}, channels_max=2)
    peer.send(connect=m.ConnectRequest(token="token"))
    assert peer.closed == Disconnects.CHANNEL_LIMIT


def test_as_many_server_side_subscriptions_as_channels_max() -> None:
    peer = Peer(tokens={"token": ConnectionClaims("ann", channels=("a", "b"))}, channels_max=2)
    assert set(peer.connect("token").subs) == {"a", "b"}
    assert peer.subscribe_error("open") == Errors.LIMIT_EXCEEDED.code


@pytest.mark.parametrize("outcome", [Errors.INTERNAL, [stream(), Errors.INTERNAL]], ids=["all", "one"])
def test_the_broker_fails_to_open_server_side_subscriptions(outcome: Any) -> None:
    peer = Peer(
        tokens={"token": ConnectionClaims("ann", channels=("a", "b"))}, outcomes={e.OpenChannels: outcome}
    )
    peer.send(connect=m.ConnectRequest(token="token"))
    assert peer.closed == Disconnects.INTERNAL_ERROR
    assert peer.sent == []


# Refresh


def refreshing(verdict: Any, **claims: Any) -> Peer:
    peer = Peer(
        tokens={"token": ConnectionClaims("ann", expires_at=UNIX_NOW + 60, **claims), "next": verdict},
        ping_interval_s=1_000,
    )
    peer.connect("token")
    return peer


def test_refresh() -> None:
    peer = refreshing(ConnectionClaims("ann", expires_at=UNIX_NOW + 90))
    reply = peer.call(refresh=m.RefreshRequest("next"))
    assert reply.refresh == m.RefreshResult("client-1", "1.2.3", True, 90)
    assert peer.session.deadline == NOW + 90 + 25


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"channels": ("a", "b")}, {"channels": ("b", "a")}),
        ({"channels": ("a", "b")}, {"channels": ("a",), "subs": {"b": SubscriptionGrant(data=Raw(b"1"))}}),
        ({"subs": {"a": SubscriptionGrant(info=Raw(b"1"))}}, {"subs": {"a": SubscriptionGrant()}}),
        ({"info": Raw(b"1")}, {"info": Raw(b"2"), "meta": Raw(b"3")}),
    ],
)
def test_refresh_with_the_same_channels(before: dict[str, Any], after: dict[str, Any]) -> None:
    peer = refreshing(ConnectionClaims("ann", **after), **before)
    assert peer.call(refresh=m.RefreshRequest("next")).refresh
    peer.carry_out(peer.session.unsubscribe("a", Unsubscribes.SERVER, peer.now))
    assert peer.call(refresh=m.RefreshRequest("next")).refresh


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"channels": ("a",)}),
        ({"channels": ("a",)}, {}),
        ({"channels": ("a",)}, {"channels": ("b",)}),
        ({"channels": ("a",)}, {"channels": ("a", "b")}),
        ({"subs": {"a": SubscriptionGrant()}}, {"subs": {"b": SubscriptionGrant()}}),
        (
            {"subs": {"a": SubscriptionGrant()}},
            {"subs": {"a": SubscriptionGrant(override=ChannelOverrides(presence=True))}},
        ),
    ],
)
def test_refresh_with_other_channels_makes_the_client_reconnect(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    peer = refreshing(ConnectionClaims("ann", **after), **before)
    peer.send(refresh=m.RefreshRequest("next"))
    assert peer.closed == Disconnects.INSUFFICIENT_STATE


def test_refresh_with_channels_of_a_client_that_the_app_let_in_without_a_token() -> None:
    tokens = {"same": ANN, "more": ConnectionClaims("ann", channels=("a",))}
    peer = Peer(hooks={"connect": ConnectReply("ann", channels={"b": SubscribeReply()})}, tokens=tokens)
    peer.connect()
    assert peer.call(refresh=m.RefreshRequest("same")).refresh
    peer.send(refresh=m.RefreshRequest("more"))
    assert peer.closed == Disconnects.INSUFFICIENT_STATE


def test_refresh_with_a_token_that_never_expires() -> None:
    peer = refreshing(ConnectionClaims("ann"))
    reply = peer.call(refresh=m.RefreshRequest("next"))
    assert reply.refresh == m.RefreshResult("client-1", "1.2.3")
    peer.tick(NOW + 200)
    assert peer.closed is None


@pytest.mark.parametrize(
    ("verdict", "disconnect"),
    [
        pytest.param(Invalid("forged"), Disconnects.INVALID_TOKEN, id="invalid"),
        pytest.param(ConnectionClaims("bob"), Disconnects.INVALID_TOKEN, id="another user's"),
        pytest.param(Expired(), Disconnects.EXPIRED, id="expired"),
    ],
)
def test_refresh_with_a_bad_token(verdict: Any, disconnect: Disconnect) -> None:
    peer = refreshing(verdict)
    peer.send(refresh=m.RefreshRequest("next"))
    assert peer.closed == disconnect


def test_refresh_with_a_token_that_cannot_be_verified_now() -> None:
    peer = refreshing(Errors.INTERNAL)
    assert peer.error(refresh=m.RefreshRequest("next")) == Errors.INTERNAL.code
    assert peer.closed is None
