"""A session that comes back by a reconnect token, driven by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import Raw
from support.sessions import LATER, NOW, UNIX_NOW, Peer, options, stream

from hub.broker.base import Resumption
from hub.core import effects as e
from hub.core.channel.subscription import Grant
from hub.core.hooks import ConnectEvent, ConnectReply, RPCReply, SubscribeReply
from hub.core.reconnect import ReconnectClaims, ReconnectTokens
from hub.core.session.resume import RESTORABLE_S
from hub.core.session.state import RENEW_SOON_S
from hub.core.tokens import ConnectionClaims, SubscriptionClaims, SubscriptionGrant
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Errors, Unsubscribes
from hub.protocol.messages import payload

TTL_S = 300
TOKENS = ReconnectTokens(["k" * 32], "hub", TTL_S)
CHANNELS = {
    "default": options(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True),
    "private": options(),
    "news": options(history=True, force_recovery=True),
    "chat": options(
        presence=True,
        join_leave=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
    ),
}
ANN = {"ann": ConnectionClaims("ann", info=payload({"name": "Ann"}))}


def peer(**more: Any) -> Peer:
    return Peer(CHANNELS, **{"reconnect": TOKENS, "tokens": ANN, **more})


def again(**more: Any) -> Peer:
    """The same client on another socket."""
    return peer(**{"ids": ("client-2", "session-2"), **more})


def token_of(result: m.ConnectResult) -> str:
    token: str = m.value(result.data)["reconnect_token"]
    return token


def pushed(one: Peer) -> list[str]:
    return [m.value(push.message.data)["reconnect_token"] for push in one.pushes if push.message]


def claims_of(token: str) -> ReconnectClaims:
    claims = TOKENS.verify(token, UNIX_NOW)
    assert isinstance(claims, ReconnectClaims)
    return claims


def reconnected(one: Peer) -> list[str]:
    return [effect.outcome for effect in one.effects if isinstance(effect, e.Reconnected)]


def operations(one: Peer, kind: type[Any]) -> list[Any]:
    return [operation for operation in one.operations if isinstance(operation, kind)]


def test_a_client_resumes_its_session_without_a_login() -> None:
    first = peer()
    token = token_of(first.connect("ann"))
    second = again(hooks={"connect": None})
    result = second.connect(token)
    assert (result.client, result.session) == ("client-1", "session-2")
    assert (second.session.user, second.session.info.conn_info) == ("ann", payload({"name": "Ann"}))
    assert second.session.info.client == "client-1"
    assert operations(second, e.CallHandler) == operations(second, e.Verify) == []
    assert operations(second, e.ResumeSession) == [
        e.ResumeSession("ann", "client-1", ("session-1",), "session-2")
    ]
    assert reconnected(second) == ["resumed"]
    assert claims_of(token_of(result)).chain.owners == ("session-2",)
    assert claims_of(token_of(result)).chain.granted_at == UNIX_NOW


def test_without_keys_there_are_no_reconnect_tokens() -> None:
    one = peer(reconnect=None)
    assert one.connect("ann").data == m.NO_PAYLOAD
    two = again(reconnect=None, anonymous=False)
    assert two.error(connect=m.ConnectRequest(token_of(peer().connect("ann")))) == 109
    assert reconnected(two) == ["invalid"]


@pytest.mark.parametrize(
    ("data", "holds"),
    [(None, {}), ({}, {}), ({"a": 1}, {"a": 1})],
)
def test_the_token_is_in_the_data_of_the_result(data: Any, holds: dict[str, Any]) -> None:
    one = peer(hooks={"connect": ConnectReply(user="ann", data=data)})
    found = m.value(one.connect().data)
    assert found.pop("reconnect_token")
    assert found.pop("message_bytes_max") == 65536
    assert found == holds


def test_the_limit_to_a_message_is_told_except_to_those_who_send_none() -> None:
    one = peer(message_bytes_max=100_000)
    assert m.value(one.connect("ann").data)["message_bytes_max"] == 100_000
    listener = peer(one_way=True)
    assert "message_bytes_max" not in m.value(listener.connect("ann").data)


def test_the_limit_to_a_message_does_not_replace_a_field_of_the_app() -> None:
    one = peer(hooks={"connect": ConnectReply(user="ann", data={"message_bytes_max": "mine"})})
    found = m.value(one.connect().data)
    assert found.pop("reconnect_token")
    assert found == {"message_bytes_max": "mine"}


@pytest.mark.parametrize("data", [[1], "text", b"binary", {"reconnect_token": "the app's own"}])
def test_the_token_is_pushed_if_the_data_is_not_an_object(data: Any) -> None:
    one = peer(hooks={"connect": ConnectReply(user="ann", data=data)})
    assert m.value(one.connect().data) == data
    assert len(pushed(one)) == 1


def test_a_new_token_is_pushed_in_time_and_with_a_ping() -> None:
    one = peer(pong_timeout_s=20.0)
    one.connect("ann")
    while not pushed(one):
        assert one.session.deadline <= NOW + TTL_S / 2
        one.tick(one.session.deadline)
        if one.sent[-1] == m.PING:
            one.receive(m.Command())
    assert one.sent[-2] == m.PING
    assert TTL_S / 2 - 25 <= one.now - NOW <= TTL_S / 2
    [token] = pushed(one)
    assert isinstance(TOKENS.verify(token, UNIX_NOW + one.now - NOW + TTL_S), ReconnectClaims)


def test_a_token_is_pushed_before_the_node_sends_the_client_away() -> None:
    one = peer()
    one.carry_out(one.session.renew(NOW))
    assert not pushed(one), "it is not connected yet"
    one.connect("ann")
    one.carry_out(one.session.renew(NOW))
    assert len(pushed(one)) == 1


def test_an_expired_connection_gets_no_token() -> None:
    one = peer(tokens={"ann": ConnectionClaims("ann", UNIX_NOW + 10)})
    one.connect("ann")
    one.now = NOW + 10
    one.carry_out(one.session.renew(one.now))
    assert not pushed(one)


# What comes back


def test_server_side_subscriptions_are_restored_and_recovered() -> None:
    grant = SubscriptionGrant(info=payload("i"), data=payload("d"))
    one = peer(tokens={"ann": ConnectionClaims("ann", subs={"news:a": grant}, channels=("private:b",))})
    token = token_of(one.connect("ann"))
    two = again(streams={"news:a": stream(4, 5)})
    result = two.connect(token, subs={"news:a": m.SubscribeRequest(recover=True, offset=3, epoch="epoch")})
    assert result.subs["news:a"].recovered
    assert [each.offset for each in result.subs["news:a"].publications] == [4, 5]
    assert result.subs["news:a"].data == payload("d")
    assert set(two.joined) == {"news:a", "private:b"}
    assert two.joined["news:a"].info.chan_info == payload("i")
    assert set(claims_of(token_of(result)).channels) == {"news:a", "private:b"}


def test_the_personal_channel_is_restored() -> None:
    one = peer(user_personal_channel="#{user}")
    token = token_of(one.connect("ann"))
    assert list(again(user_personal_channel="#{user}").connect(token).subs) == ["#ann"]


def test_the_app_is_not_asked_again_for_a_channel_that_it_granted() -> None:
    reply = SubscribeReply(info={"seat": 7}, data="d", presence=True)
    one = peer(hooks={"subscribe": reply})
    one.connect("ann")
    one.subscribe("private:x")
    one.tick(NOW + RENEW_SOON_S)
    [token] = pushed(one)
    two = again(hooks={"subscribe": Errors.PERMISSION_DENIED})
    two.connect(token)
    result = two.subscribe("private:x")
    assert result.data == payload("d")
    assert two.joined["private:x"].info.chan_info == payload({"seat": 7})
    assert two.joined["private:x"].presence
    assert operations(two, e.CallHandler) == []
    assert two.subscribe_error("private:y") == 103
    two.send(unsubscribe=m.UnsubscribeRequest("private:x"))
    assert two.subscribe_error("private:x") == 103, "who left asks again"


def test_the_app_is_not_asked_again_for_a_channel_that_it_left_to_the_rules() -> None:
    one = peer(hooks={"subscribe": None})
    one.connect("ann")
    one.subscribe("open")
    one.tick(NOW + RENEW_SOON_S)
    two = again(hooks={"subscribe": Errors.PERMISSION_DENIED})
    two.connect(pushed(one)[0])
    two.subscribe("open")


def test_a_restored_subscription_needs_no_valid_subscription_token() -> None:
    good = {"sub": SubscriptionClaims("ann", "private:x", UNIX_NOW + 100)}
    one = peer(tokens={**ANN, **good})
    one.connect("ann")
    one.subscribe("private:x", token="sub")
    one.tick(NOW + RENEW_SOON_S)
    two = again(tokens={})
    two.connect(pushed(one)[0])
    result = two.subscribe("private:x", token="sub")
    assert (result.expires, result.ttl) == (True, 100)


def test_the_token_contains_the_expiry_after_a_refresh() -> None:
    claims = {
        "ann": ConnectionClaims("ann", UNIX_NOW + 50),
        "later": ConnectionClaims("ann", UNIX_NOW + 90),
        "sub": SubscriptionClaims("ann", "private:x", UNIX_NOW + 50),
        "sub-later": SubscriptionClaims("ann", "private:x", UNIX_NOW + 90),
    }
    one = peer(tokens=claims)
    one.connect("ann")
    one.subscribe("private:x", token="sub")
    one.send(refresh=m.RefreshRequest("later"))
    one.send(sub_refresh=m.SubRefreshRequest("private:x", "sub-later"))
    one.tick(NOW + RENEW_SOON_S)
    found = claims_of(pushed(one)[-1])
    assert found.expires_at == found.channels["private:x"].grant.expires_at == UNIX_NOW + 90
    one.carry_out(one.session.refresh(UNIX_NOW + 70, one.now))
    one.tick(NOW + 2 * RENEW_SOON_S)
    assert claims_of(pushed(one)[-1]).expires_at == UNIX_NOW + 70
    result = again().connect(pushed(one)[-1])
    assert (result.expires, result.ttl) == (True, 70)


def test_a_restored_subscription_is_not_announced() -> None:
    one = peer()
    one.connect("ann")
    one.subscribe("chat:a")
    one.tick(NOW + RENEW_SOON_S)
    two = again()
    two.connect(pushed(one)[0])
    two.subscribe("chat:a")
    two.subscribe("chat:b")
    assert two.joined["chat:a"].is_back
    assert not two.joined["chat:b"].is_back


def test_several_changes_lead_to_one_token() -> None:
    one = peer()
    one.connect("ann")
    one.subscribe("open")
    assert one.session.renew_at == NOW + TTL_S / 2
    one.subscribe("chat:a")
    one.subscribe("chat:b")
    one.tick(NOW + RENEW_SOON_S)
    assert [set(claims_of(token).channels) for token in pushed(one)] == [{"chat:a", "chat:b"}]
    one.send(unsubscribe=m.UnsubscribeRequest("chat:a"))
    one.carry_out(one.session.subscribe("private:s", Grant(), None, one.now))
    one.tick(NOW + 2 * RENEW_SOON_S)
    assert set(claims_of(pushed(one)[-1]).channels) == {"chat:b", "private:s"}
    one.carry_out(one.session.unsubscribe("private:s", Unsubscribes.SERVER, one.now))
    one.tick(NOW + 3 * RENEW_SOON_S)
    assert set(claims_of(pushed(one)[-1]).channels) == {"chat:b"}


def test_restorable_subscriptions_are_in_the_next_token_until_their_time_is_over() -> None:
    one = peer(hooks={"subscribe": SubscribeReply()})
    one.connect("ann")
    for channel in ("private:x", "private:y", "private:z"):
        one.subscribe(channel)
    one.tick(NOW + RENEW_SOON_S)
    two = again()
    result = two.connect(pushed(one)[0])
    assert set(claims_of(token_of(result)).channels) == {"private:x", "private:y", "private:z"}
    two.carry_out(two.session.unsubscribe("private:y", Unsubscribes.SERVER, two.now))
    assert two.session.deadline <= NOW + RESTORABLE_S
    two.tick(NOW + RESTORABLE_S)
    assert two.subscribe_error("private:x") == 103
    assert two.session.restorable_until == math.inf


def test_a_grant_that_expired_is_not_restorable() -> None:
    one = peer(tokens={**ANN, "sub": SubscriptionClaims("ann", "private:x", UNIX_NOW + 10)})
    one.connect("ann")
    one.subscribe("private:x", token="sub")
    one.tick(NOW + RENEW_SOON_S)
    two = again()
    two.session.now = two.now = NOW + 10
    two.connect(pushed(one)[0])
    assert two.subscribe_error("private:x") == 103


def leaves(one: Peer) -> list[str]:
    return [effect.subscription.channel for effect in one.effects if isinstance(effect, e.AnnounceLeave)]


def returned(**more: Any) -> Peer:
    """A client that is back, and was in some channels."""
    one = peer(tokens={"ann": ConnectionClaims("ann", channels=("private:s",))})
    one.connect("ann")
    for channel in ("chat:a", "chat:b", "chat:c"):
        one.subscribe(channel)
    one.tick(NOW + RENEW_SOON_S)
    two = again(**more)
    two.connect(pushed(one)[0])
    return two


def test_a_leave_is_announced_where_a_client_does_not_restore_a_subscription() -> None:
    two = returned()
    assert two.joined["private:s"].is_back
    two.subscribe("chat:a")
    two.send(unsubscribe=m.UnsubscribeRequest("chat:b"))
    assert leaves(two) == ["chat:b"]
    two.tick(NOW + RESTORABLE_S)
    assert leaves(two) == ["chat:b", "chat:c"]


def test_a_join_is_announced_again_where_a_leave_was() -> None:
    two = returned(outcomes={e.ResumeSession: Resumption("resumed", lapsed=True)})
    two.subscribe("chat:a")
    assert not two.joined["chat:a"].is_back
    assert not two.joined["private:s"].is_back
    two.tick(NOW + RESTORABLE_S)
    assert leaves(two) == []


def test_a_join_that_is_newer_than_the_token_is_not_announced_a_second_time() -> None:
    announced = {"chat:new": True, "chat:gone": True}
    two = returned(outcomes={e.ResumeSession: Resumption("resumed", announced=announced)})
    two.subscribe("chat:new")
    assert two.joined["chat:new"].is_back
    two.tick(NOW + RESTORABLE_S)
    assert "chat:gone" in leaves(two)


def test_a_leave_that_is_newer_than_the_token_is_not_announced_a_second_time() -> None:
    announced = {"chat:a": False, "chat:b": False}
    two = returned(outcomes={e.ResumeSession: Resumption("resumed", announced=announced)})
    two.subscribe("chat:a")
    assert not two.joined["chat:a"].is_back
    two.tick(NOW + RESTORABLE_S)
    assert leaves(two) == ["chat:c"]


def test_an_announced_channel_that_the_token_lacks_grants_nothing() -> None:
    resumption = Resumption("resumed", announced={"private:x": True, "no name": True})
    two = returned(outcomes={e.ResumeSession: resumption})
    assert two.subscribe_error("private:x") == 103
    two.tick(NOW + RESTORABLE_S)
    assert "private:x" in leaves(two)


def test_tokens_are_dated_by_the_wall_clock_at_the_time() -> None:
    one = peer()
    one.connect("ann")
    one.unix_offset_s += 600
    one.carry_out(one.session.renew(NOW))
    [token] = pushed(one)
    two = again()
    two.unix_offset_s += 600
    assert two.connect(token).client == "client-1"


# What is refused


@pytest.mark.parametrize("verdict", ["reused", "revoked"])
def test_a_used_token_is_refused_with_109(verdict: Any) -> None:
    one = peer(tokens={"ann": ConnectionClaims("ann", channels=("private:b",))})
    token = token_of(one.connect("ann"))
    two = again(outcomes={e.ResumeSession: Resumption(verdict)})
    assert two.error(connect=m.ConnectRequest(token)) == 109
    assert reconnected(two) == [verdict]
    assert not two.opening
    assert (two.session.client, two.session.user) == ("client-2", "")
    assert two.connect("ann").client == "client-2"


def test_a_session_that_began_without_a_token_logs_in_at_once() -> None:
    token = token_of(peer(hooks={"connect": ConnectReply(user="ann")}).connect())
    two = again(hooks={"connect": ConnectReply(user="ben")}, outcomes={e.ResumeSession: Resumption("reused")})
    assert two.connect(token).client == "client-2"
    assert two.session.user == "ben"
    [asked] = operations(two, e.CallHandler)
    assert not asked.event.has_token


def test_an_expired_token_and_one_of_another_key_are_refused_alike() -> None:
    token = token_of(peer().connect("ann"))
    other = again(reconnect=ReconnectTokens(["o" * 32], "hub", TTL_S))
    assert other.error(connect=m.ConnectRequest(token)) == 109
    assert reconnected(other) == ["invalid"]
    late = again()
    late.now = NOW + TTL_S + 5
    assert late.error(connect=m.ConnectRequest(token)) == 109
    assert reconnected(late) == ["expired"]


def test_a_token_with_a_server_side_channel_that_is_no_longer_configured_is_refused() -> None:
    token = token_of(peer(tokens={"ann": ConnectionClaims("ann", channels=("private:b",))}).connect("ann"))
    two = Peer({"default": options()}, reconnect=TOKENS, ids=("client-2", "session-2"))
    assert two.error(connect=m.ConnectRequest(token)) == 109
    assert reconnected(two) == ["invalid"]


def test_a_channel_of_the_client_that_is_no_longer_configured_is_not_restorable() -> None:
    one = peer()
    one.connect("ann")
    one.subscribe("chat:a")
    one.tick(NOW + RENEW_SOON_S)
    two = Peer({"default": options()}, reconnect=TOKENS, ids=("client-2", "session-2"))
    two.connect(pushed(one)[0])
    assert not two.session.restorable


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_session_that_is_back_is_refreshed_with_the_channels_of_its_login(is_allowed: bool) -> None:
    same, other = (ConnectionClaims("ann", channels=channels) for channels in (("news:a",), ("news:b",)))
    one = peer(tokens={"ann": same})
    token = token_of(one.connect("ann"))
    for number in (2, 3):
        tokens = {"next": same if is_allowed else other}
        two = peer(ids=(f"client-{number}", f"session-{number}"), tokens=tokens)
        token = token_of(two.connect(token))
    two.send(refresh=m.RefreshRequest("next"))
    assert two.closed == (None if is_allowed else Disconnects.INSUFFICIENT_STATE)


def test_a_reconnect_token_refreshes_nothing() -> None:
    one = peer()
    token = token_of(one.connect("ann"))
    one.send(refresh=m.RefreshRequest(token))
    assert one.closed == Disconnects.INVALID_TOKEN


# The broker is away, and limits


def test_a_token_is_accepted_while_the_broker_is_away() -> None:
    token = token_of(peer().connect("ann"))
    for number in range(2, 12):
        two = peer(ids=(f"client-{number}", f"session-{number}"), outcomes={e.ResumeSession: Errors.INTERNAL})
        token = token_of(two.connect(token))
        assert reconnected(two) == ["unchecked"]
    assert claims_of(token).chain.owners == tuple(f"session-{number}" for number in range(11, 3, -1))
    last = again()
    assert claims_of(token_of(last.connect(token))).chain.owners == ("session-2",)


def test_a_node_that_refuses_clients_does_not_use_up_the_token() -> None:
    token = token_of(peer().connect("ann"))
    two = again(outcomes={e.Admit: Disconnects.SHUTDOWN})
    two.send(connect=m.ConnectRequest(token))
    assert two.closed == Disconnects.SHUTDOWN
    assert operations(two, e.ResumeSession) == []
    assert two.session.presented == ()


def test_a_client_refused_after_its_token_was_used_is_reported() -> None:
    token = token_of(peer().connect("ann"))
    two = again(outcomes={e.Admit: LATER})
    two.send(connect=m.ConnectRequest(token))
    two.finish(None)
    two.finish(Disconnects.CONNECTION_LIMIT)
    assert two.closed == Disconnects.CONNECTION_LIMIT
    assert two.session.presented == ("session-1",)


def test_reconnects_count_against_the_connect_rate_of_a_user() -> None:
    token = token_of(peer().connect("ann"))
    two = again(user_connects_per_s=0.1, burst_s=10)
    two.session.context.rates.user_connect.take("ann", NOW)
    assert two.error(connect=m.ConnectRequest(token)) == 111


def test_a_session_that_moved_ends_without_announcements() -> None:
    one = peer()
    one.connect("ann")
    one.subscribe("chat:a")
    one.carry_out(one.session.move())
    assert one.session.moved
    assert one.closed == Disconnects.STATE_INVALIDATED
    assert one.session.renew_at == NOW + RENEW_SOON_S, "its end hands out nothing"


# The connection's state


def counting(event: Any) -> RPCReply:
    """Count the calls of a connection in its state."""
    event.state["calls"] = event.state.get("calls", 0) + 1
    return RPCReply(event.state)


def test_handlers_share_a_state_that_a_reconnect_restores() -> None:
    def who(event: ConnectEvent) -> None:
        event.state["name"] = "Ann"

    seen: list[Any] = []
    hooks = {"connect": who, "subscribe": lambda event: seen.append(event.state), "rpc": counting}
    first = peer(hooks=hooks)
    token = token_of(first.connect("ann"))
    assert claims_of(token).state == b'{"name":"Ann"}'
    first.subscribe()
    assert first.call(rpc=m.RPCRequest()).rpc == m.RPCResult(payload({"name": "Ann", "calls": 1}))
    assert seen == [{"name": "Ann", "calls": 1}]  # the same dict
    first.tick(NOW + RENEW_SOON_S)
    [newer] = pushed(first)
    second = again(hooks=hooks)
    second.connect(newer)
    assert second.call(rpc=m.RPCRequest()).rpc == m.RPCResult(payload({"name": "Ann", "calls": 2}))


def test_a_state_that_did_not_change_needs_no_new_token() -> None:
    first = peer(hooks={"connect": ConnectReply("ann", state={"a": 1}), "rpc": RPCReply(), "message": None})
    first.connect()
    first.call(rpc=m.RPCRequest())
    first.receive(m.Command(send=m.SendRequest()))
    first.tick(NOW + RENEW_SOON_S)
    assert pushed(first) == []


def test_a_reply_sets_the_state() -> None:
    first = peer(
        hooks={"connect": ConnectReply("ann", state=[1, 2]), "rpc": lambda event: RPCReply(event.state)}
    )
    token = token_of(first.connect())
    assert claims_of(token).state == b"[1,2]"
    second = again(hooks=first.hooks, read_state=lambda text: tuple(m.value(Raw(text))))
    second.connect(token)
    assert second.session.app_state == (1, 2)


def test_a_state_that_lost_its_json_form_stays_as_it_was_in_the_token() -> None:
    def spoil(event: Any) -> RPCReply:
        event.state["a"] = object()
        return RPCReply()

    first = peer(hooks={"connect": ConnectReply("ann", state={"a": 1}), "rpc": spoil})
    first.connect()
    first.call(rpc=m.RPCRequest())
    first.tick(NOW + RENEW_SOON_S)
    assert pushed(first) == []
    first.carry_out(first.session.renew(NOW))
    assert claims_of(pushed(first)[-1]).state == b'{"a":1}'


def test_a_state_that_the_app_cannot_read_needs_a_login() -> None:
    def fail(text: bytes) -> Any:
        raise ValueError("items is missing")

    token = token_of(peer(hooks={"connect": ConnectReply("ann", state={"a": 1})}).connect("ann"))
    second = again(read_state=fail)
    assert second.error(connect=m.ConnectRequest(token=token)) == Errors.TOKEN_EXPIRED.code
    reason = "the app cannot read its state: items is missing"
    assert e.Reconnected("invalid", "client-1", reason) in second.effects
    assert second.session.app_state is None


def test_a_login_after_a_refused_token_has_a_state_of_its_own() -> None:
    token = token_of(peer(hooks={"connect": ConnectReply("ann", state={"a": 1})}).connect())
    second = again(
        hooks={"connect": lambda event: ConnectReply("ben", data=event.state)},
        outcomes={e.ResumeSession: Resumption("revoked")},
    )
    assert "a" not in m.value(second.connect(token).data)
    assert second.session.app_state == {}
