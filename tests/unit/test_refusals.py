"""Why a session refuses its client: the cause that is logged, and what of it the client is told."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from support.sessions import Peer, connected, options

from hub.core import effects as e
from hub.core.hooks import ConnectReply
from hub.core.tokens import ConnectionClaims, Expired, Invalid, SubscriptionClaims, UnknownKey
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors

ANN = ConnectReply(user="ann")
OPEN = options(allow_subscribe_for_client=True, allow_publish_for_subscriber=True)
DATA = Raw(b"1")


def ann(channels: dict[str, Any] | None = None, hooks: dict[str, Any] | None = None, **more: Any) -> Peer:
    """A client of the user ann."""
    return connected(channels or {"orders": OPEN}, hooks={"connect": ANN, **(hooks or {})}, **more)


def subscribe(channel: str = "orders:2", **fields: Any) -> dict[str, Any]:
    return {"subscribe": m.SubscribeRequest(channel, **fields)}


def publish(channel: str = "orders:2", data: Any = DATA) -> dict[str, Any]:
    return {"publish": m.PublishRequest(channel, data)}


def history(channel: str = "orders:2") -> dict[str, Any]:
    return {"history": m.HistoryRequest(channel)}


def presence(channel: str = "orders:2") -> dict[str, Any]:
    return {"presence": m.PresenceRequest(channel)}


NO = options()
ORDERS = "[channels.orders]"


@pytest.mark.parametrize(
    ("peer", "request_", "code", "reason", "text"),
    [
        (
            ann(),
            subscribe("oders:2"),
            102,
            "unknown_channel",
            "no [channels.oders] is configured for the channel oders:2: add the table, or correct the name",
        ),
        (ann(), subscribe("default:x"), 102, "unknown_channel", "without a namespace: write x"),
        (
            ann(),
            subscribe("a b"),
            107,
            "channel_name",
            "'a b' is not the name of a channel: a name is at most",
        ),
        (ann(), subscribe(""), 107, "channel_name", "the channel is missing"),
        (
            ann(hooks={"subscribe": Errors.PERMISSION_DENIED}),
            subscribe(),
            103,
            "handler",
            "ann may not subscribe to orders:2: on_subscribe said 103 (permission denied)",
        ),
        (
            ann(hooks={"publish": Error(1000, "")}),
            publish(),
            1000,
            "handler",
            "ann may not publish to orders:2: on_publish said 1000",
        ),
        (
            ann(hooks={"rpc": Errors.PERMISSION_DENIED}),
            {"rpc": m.RPCRequest(DATA, "pay")},
            103,
            "handler",
            "ann may not call 'pay': on_rpc said 103 (permission denied)",
        ),
        (
            ann({"orders": NO}),
            subscribe(),
            103,
            "not_allowed",
            f"ann may not subscribe to orders:2: {ORDERS} does not set allow_subscribe_for_client: set it, or"
            " give the client a subscription token",
        ),
        (
            connected({"orders": OPEN}),
            subscribe(),
            103,
            "not_allowed",
            "an anonymous client may not subscribe to orders:2: [channels.orders] does not set"
            " allow_subscribe_for_anonymous",
        ),
        (
            ann(),
            subscribe("orders:2#bob"),
            103,
            "not_allowed",
            "the channel's name limits it to other users",
        ),
        (
            ann({"orders": NO}),
            subscribe("orders:2#ann"),
            103,
            "not_allowed",
            "does not set allow_user_limited",
        ),
        (
            ann({"orders": NO}),
            publish(),
            103,
            "not_allowed",
            f"ann may not publish to orders:2: {ORDERS} sets neither allow_publish_for_subscriber nor"
            " allow_publish_for_client: set one",
        ),
        (ann(), publish(), 103, "not_allowed", "the client is not subscribed to it"),
        (
            connected({"orders": options(allow_publish_for_client=True)}),
            publish(),
            103,
            "not_allowed",
            "allow_publish_for_client is for clients with a user",
        ),
        (
            ann({"orders": options(allow_publish_for_client=True, allow_publish_for_subscriber=True)}),
            publish("orders:2#bob"),
            103,
            "not_allowed",
            "the channel's name limits it to other users, and the client is not subscribed to it",
        ),
        (ann(), publish(data=m.NO_PAYLOAD), 107, "bad_request", "publish.data is missing"),
        (
            ann({"orders": options(history=True)}),
            history(),
            103,
            "not_allowed",
            "ann may not read the history of orders:2",
        ),
        (
            ann({"orders": options(presence=True)}),
            presence(),
            103,
            "not_allowed",
            "ann may not read the presence of orders:2",
        ),
        (
            ann(),
            history(),
            108,
            "switched_off",
            f"the history of orders:2 is switched off: set history_size and history_ttl_s in {ORDERS}",
        ),
        (
            ann(),
            presence(),
            108,
            "switched_off",
            f"the presence of orders:2 is switched off: set presence in {ORDERS}",
        ),
        (
            ann(),
            subscribe(tf=m.FilterNode(key="a", cmp="ex")),
            108,
            "switched_off",
            "set allow_tags_filter",
        ),
        (
            ann({"orders": options(allow_subscribe_for_client=True, allow_tags_filter=True)}),
            subscribe(tf=m.FilterNode(key="a", cmp="odd")),
            107,
            "bad_request",
            "subscribe.tf is not a filter",
        ),
        (ann(), {"rpc": m.RPCRequest(DATA, "pay")}, 108, "switched_off", "the app has no on_rpc handler"),
        (
            ann(tokens={"t": Invalid("forged")}),
            subscribe(token="t"),
            103,
            "token",
            "the subscription token of ann for orders:2 is refused: forged",
        ),
        (
            ann(tokens={"t": SubscriptionClaims("ann", "orders:3")}),
            subscribe(token="t"),
            103,
            "token",
            "it is for the channel orders:3",
        ),
        (
            ann(tokens={"t": SubscriptionClaims("bob", "orders:2")}),
            subscribe(token="t"),
            103,
            "token",
            "it is for bob",
        ),
        (
            ann(tokens={"t": ConnectionClaims("ann")}),
            subscribe(token="t"),
            103,
            "token",
            "it is another kind of token",
        ),
        (
            ann(),
            {"sub_refresh": m.SubRefreshRequest("orders:2", "t")},
            103,
            "not_subscribed",
            "ann is not subscribed to orders:2",
        ),
    ],
)
def test_a_refusal_has_a_cause(peer: Peer, request_: Any, code: int, reason: str, text: str) -> None:
    assert peer.error(**request_) == code
    [refused] = peer.refused
    assert refused.code == code
    assert refused.cause.reason == reason
    assert text in refused.cause.text


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        ({}, f"set history_size, history_ttl_s and force_recovery in {ORDERS}"),
        (
            {"history_size": 9, "history_ttl_s": 60},
            f"set force_recovery or allow_history_for_subscriber in {ORDERS}",
        ),
    ],
)
def test_a_subscription_that_does_not_recover_has_a_cause(allowed: dict[str, Any], text: str) -> None:
    peer = ann({"orders": options(allow_subscribe_for_client=True, **allowed)})
    assert peer.subscribe("orders:2", recoverable=True) == m.SubscribeResult()
    [refused] = peer.refused
    assert (refused.code, refused.cause.reason) == (108, "switched_off")
    assert refused.cause.text == f"the recovery of orders:2 is switched off: {text}"


def test_an_expired_token_has_a_cause() -> None:
    peer = ann(tokens={"t": Expired()})
    assert peer.error(**subscribe(token="t")) == 109
    newcomer = Peer(tokens={"t": Expired()})
    newcomer.send(connect=m.ConnectRequest(token="t"))
    for each, kind in (
        (peer, "the subscription token of ann for orders:2"),
        (newcomer, "the connection token"),
    ):
        [refused] = each.refused
        assert (refused.code, refused.cause.reason) == (109, "token")
        assert refused.cause.text.startswith(f"{kind} has expired: let the client fetch another")


def test_too_many_channels() -> None:
    peer = ann(channels_max=1)
    peer.subscribe("orders:1")
    assert peer.subscribe_error("orders:2") == 106
    [refused] = peer.refused
    assert refused.cause.reason == "channels_max"
    assert refused.cause.text == "ann has 1 subscriptions, as many as client.channels_max allows"
    assert refused.cause.channel == "orders:2"


@pytest.mark.parametrize(
    ("peer", "code", "text"),
    [
        (Peer(anonymous=False), 101, "send a connection token, or set client.anonymous"),
        (
            Peer(tokens={"t": Invalid("forged")}),
            3500,
            "the connection token is refused: forged",
        ),
        (Peer(tokens={"t": UnknownKey("k1")}), 3500, "the key set has no key with the id (kid) 'k1'"),
        (
            Peer(hooks={"connect": Errors.PERMISSION_DENIED}),
            103,
            "an anonymous client may not connect: on_connect said 103",
        ),
        (
            Peer(tokens={"t": ConnectionClaims("ann")}, hooks={"connect": Disconnect(4500, "not today")}),
            4500,
            "ann may not connect: on_connect said 4500 (not today)",
        ),
        (
            Peer(tokens={"t": ConnectionClaims("ann", channels=("oders:1",))}),
            102,
            "no [channels.oders] is configured",
        ),
        (
            Peer(tokens={"t": ConnectionClaims("ann", channels=("a", "b"))}, channels_max=1),
            3505,
            "ann may not connect: client.channels_max is 1, and the client gets 2 channels",
        ),
    ],
)
def test_a_refused_connect_has_a_cause(peer: Peer, code: int, text: str) -> None:
    peer.send(connect=m.ConnectRequest(token="t" if peer.tokens else ""))
    [refused] = peer.refused
    assert refused.code == code
    assert text in refused.cause.text


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (Invalid("forged"), "the connection token is refused: forged"),
        (ConnectionClaims("bob"), "it is for bob, and the connection belongs to ann"),
    ],
)
def test_a_refused_refresh_has_a_cause(verdict: Any, text: str) -> None:
    peer = ann(tokens={"t": verdict})
    peer.send(refresh=m.RefreshRequest("t"))
    [refused] = peer.refused
    assert (refused.code, refused.cause.reason) == (3500, "token")
    assert text in refused.cause.text


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (m.Command(1, ping=m.PingRequest()), "the first command is not connect"),
        (m.Command(connect=m.ConnectRequest()), "a command has no id"),
        (m.Command(), "neither a command nor the answer to a ping"),
        (m.Fault(0, "odd"), "odd"),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_in_the_log(command: Any, text: str) -> None:
    peer = Peer()
    peer.receive(command)
    assert peer.closed == Disconnects.BAD_REQUEST
    [refused] = peer.refused
    assert refused.cause.reason == "bad_request"
    assert text in refused.cause.text


def test_what_an_app_answers_to_an_rpc_is_no_refusal() -> None:
    peer = ann(hooks={"rpc": Error(1000, "sold out")})
    assert peer.error(rpc=m.RPCRequest(DATA, "buy")) == 1000
    assert peer.refused == []


def test_a_handler_that_failed_is_no_refusal() -> None:
    peer = ann(hooks={"subscribe": Errors.INTERNAL})
    assert peer.subscribe_error("orders:2") == 100
    assert peer.refused == []


@pytest.mark.parametrize(
    ("hooks", "insecure", "message"),
    [
        ({}, False, "unknown channel"),
        (
            {},
            True,
            "unknown channel: no [channels.oders] is configured for the channel oders:2: add the table,"
            " or correct the name",
        ),
    ],
)
def test_a_client_is_told_the_cause_in_insecure_mode_alone(hooks: Any, insecure: bool, message: str) -> None:
    peer = ann(hooks=hooks, insecure=insecure)
    reply = peer.call(**subscribe("oders:2"))
    assert reply.error == m.ErrorMessage(102, message)


def test_the_words_of_the_app_stay_as_they_are() -> None:
    peer = ann(hooks={"subscribe": Error(1000, "not today")}, insecure=True)
    assert peer.call(**subscribe()).error == m.ErrorMessage(1000, "not today")
    left = Peer(hooks={"connect": Disconnect(4500, "not today")}, insecure=True)
    left.send(connect=m.ConnectRequest())
    assert left.closed == Disconnect(4500, "not today")


def test_a_one_way_client_gets_the_cause_as_a_disconnect() -> None:
    peer = Peer(anonymous=False, one_way=True)
    peer.send(connect=m.ConnectRequest())
    assert peer.closed == Disconnect(3507, "unauthorized")
    [refused] = peer.refused
    assert (refused.code, refused.cause.reason) == (3507, "no_login")


def test_the_refusal_comes_before_the_answer() -> None:
    peer = Peer()
    effects = peer.session.receive(m.Fault(3, "odd"), peer.now)
    assert [type(effect) for effect in effects] == [e.Refused, e.Send]


def test_an_error_without_a_cause_stays_as_it_is() -> None:
    assert Errors.INTERNAL.explained(insecure=True) is Errors.INTERNAL
