"""hub/core/session/subscribe.py: permissions, results, and recovery."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from support.sessions import LATER, NOW, UNIX_NOW, Peer, options, stream

from hub.core import effects as e
from hub.core.channel.stream import Opened, Recovery
from hub.core.channel.subscription import OPEN
from hub.core.hooks import ConnectReply, SubscribeEvent, SubscribeReply
from hub.core.session.state import GRACE_S, REPLY_ROOM_BYTES
from hub.core.tokens import ChannelOverrides, ConnectionClaims, Expired, Invalid, SubscriptionClaims
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors, Unsubscribes
from hub.protocol.payloads import Quoted
from hub.settings import ChannelOptions

PRIVATE = options()
PUBLIC = options(allow_subscribe_for_client=True)
READABLE = options(history=True, allow_subscribe_for_client=True, allow_history_for_subscriber=True)
FRUIT = options(
    history=True,
    allow_subscribe_for_client=True,
    allow_history_for_subscriber=True,
    allow_tags_filter=True,
    allowed_delta_types=("fossil",),
)
RECOVERED = {"recover": True, "recoverable": True, "epoch": "epoch"}


def ann(default: ChannelOptions = PRIVATE, **kwargs: Any) -> Peer:
    """A client whose user is ann."""
    hooks = {"connect": ConnectReply("ann"), **kwargs.pop("hooks", {})}
    peer = Peer({"default": default, "ns": PUBLIC}, hooks=hooks, **kwargs)
    peer.connect()
    return peer


def fruits(fruit: str) -> m.FilterNode:
    return m.FilterNode(key="fruit", cmp="eq", val=fruit)


APPLES = fruits("apple")


def claims(channel: str = "open", user: str = "ann", **fields: Any) -> SubscriptionClaims:
    return SubscriptionClaims(user, channel, **fields)


# Names


@pytest.mark.parametrize("name", ["", "no name", "ümlaut", "a\n", "a{b}", "a*", "x" * 51, "a\x00"])
def test_a_bad_name(name: str) -> None:
    peer = ann(insecure=True)
    assert peer.subscribe_error(name) == Errors.BAD_REQUEST.code
    assert peer.error(unsubscribe=m.UnsubscribeRequest(name)) == Errors.BAD_REQUEST.code
    assert peer.error(sub_refresh=m.SubRefreshRequest(name, "token")) == Errors.BAD_REQUEST.code


@pytest.mark.parametrize("name", ["unknown:channel", "default:channel", ":channel"])
def test_a_namespace_that_is_not_configured(name: str) -> None:
    assert ann(insecure=True).subscribe_error(name) == Errors.UNKNOWN_CHANNEL.code


# By the channel's rules


def test_nobody_may_subscribe_by_default() -> None:
    peer = ann(PRIVATE)
    assert peer.subscribe_error("open") == Errors.PERMISSION_DENIED.code
    assert peer.joined == {}


def test_a_channel_that_is_open_to_clients() -> None:
    peer = ann(PUBLIC)
    assert peer.subscribe("open") == m.SubscribeResult()
    assert peer.session.subscriptions == peer.joined
    assert isinstance(peer.effects[-2], e.Send)
    assert isinstance(peer.effects[-1], e.SubscriptionStarted)


def test_every_channel_is_open_in_insecure_mode() -> None:
    ann(PRIVATE, insecure=True).subscribe("open")


def test_a_channel_that_is_limited_to_users() -> None:
    peer = ann(options(allow_user_limited=True))
    peer.subscribe("room#ann,bob")
    assert peer.subscribe_error("room#bob") == Errors.PERMISSION_DENIED.code
    assert peer.subscribe_error("room") == Errors.PERMISSION_DENIED.code


def test_already_subscribed() -> None:
    peer = ann(PUBLIC)
    peer.subscribe("open")
    assert peer.subscribe_error("open") == Errors.ALREADY_SUBSCRIBED.code
    assert list(peer.joined) == ["open"]


# Filters and deltas


def test_a_filter_in_a_channel_without_filters() -> None:
    peer = ann(PUBLIC)
    assert peer.subscribe_error("open", tf=APPLES) == Errors.NOT_AVAILABLE.code
    assert peer.subscribe_error("open", tf=m.FilterNode()) == Errors.NOT_AVAILABLE.code


def test_a_malformed_filter() -> None:
    assert ann(FRUIT).subscribe_error("open", tf=m.FilterNode()) == Errors.BAD_REQUEST.code


def test_a_filter_goes_with_the_subscription() -> None:
    peer = ann(FRUIT)
    peer.subscribe("open", tf=APPLES)
    peer.subscribe("all")
    wanted = peer.joined["open"].filter
    assert wanted
    assert wanted.passes(m.Publication(tags={"fruit": "apple"}))
    assert not wanted.passes(m.Publication(tags={"fruit": "pear"}))
    assert peer.joined["all"].filter is None


@pytest.mark.parametrize(
    ("fruit", "kept", "offset"),
    [("apple", [3, 4], 2), ("pear", [5], 2), ("plum", [], 5)],
)
def test_recovered_publications_pass_the_filter(fruit: str, kept: list[int], offset: int) -> None:
    came = stream(3, 4, 5)
    for publication, tag in zip(came.publications, ("apple", "apple", "pear"), strict=True):
        publication.tags = {"fruit": tag}
    peer = ann(FRUIT, streams={"open": came})
    result = peer.subscribe("open", **RECOVERED, offset=2, tf=fruits(fruit))
    assert result.recovered
    assert [publication.offset for publication in result.publications] == kept
    # Without a publication that moves it, the position is beyond all that was not for this client.
    assert result.offset == offset
    assert peer.joined["open"].offset == 5


def test_lost_publications_are_reported_regardless_of_the_filter() -> None:
    peer = ann(FRUIT, streams={"open": stream(4, 5)})
    result = peer.subscribe("open", **RECOVERED, offset=2, tf=APPLES)
    assert (result.recovered, len(result.publications), result.offset) == (False, 0, 5)


@pytest.mark.parametrize(("asked", "given"), [("fossil", True), ("", False), ("vcdiff", False)])
def test_a_delta_is_given_where_it_is_allowed(asked: str, given: bool) -> None:
    peer = ann(options(allow_subscribe_for_client=True, allowed_delta_types=("fossil",)))
    assert peer.subscribe("open", delta=asked).delta is given
    assert peer.joined["open"].delta is given
    assert not ann(PUBLIC).subscribe("open", delta=asked).delta


def test_recovered_publications_are_sent_as_deltas() -> None:
    payloads = [b'"%064d%d"' % (0, number) for number in range(3)]
    came = stream(3, 4, 5)
    came.publications[:] = [m.DeltaPublication(Raw(payload)) for payload in payloads]
    for offset, publication in enumerate(came.publications, 3):
        publication.offset = offset
    peer = ann(FRUIT, streams={"open": came})
    result = peer.subscribe("open", **RECOVERED, offset=2, delta="fossil")
    assert [publication.delta for publication in result.publications] == [False, True, True]
    assert result.publications[0].data == Quoted(payloads[0].decode())
    assert [publication.data for publication in came.publications] == [Raw(data) for data in payloads]


def test_server_side_subscriptions_have_no_filter_and_no_deltas() -> None:
    hooks = {"connect": ConnectReply("ann", channels={"open": SubscribeReply()})}
    peer = Peer({"default": FRUIT}, hooks=hooks)
    result = peer.connect(subs={"open": m.SubscribeRequest(tf=APPLES, delta="fossil")})
    assert not result.subs["open"].delta
    assert not peer.joined["open"].delta
    assert peer.joined["open"].filter is None


# The limit


def test_channels_max() -> None:
    peer = ann(PUBLIC, channels_max=2)
    peer.subscribe("a")
    peer.subscribe("b")
    assert peer.subscribe_error("c") == Errors.LIMIT_EXCEEDED.code
    peer.call(unsubscribe=m.UnsubscribeRequest("a"))
    peer.subscribe("c")


def test_channels_max_counts_subscriptions_in_progress() -> None:
    peer = ann(PUBLIC, channels_max=2, outcomes={e.OpenChannel: LATER})
    first = peer.send(subscribe=m.SubscribeRequest("a"))
    peer.send(subscribe=m.SubscribeRequest("b"))
    assert peer.subscribe_error("c") == Errors.LIMIT_EXCEEDED.code
    peer.finish(Errors.INTERNAL)
    peer.finish()
    assert peer.reply(first).error
    later = peer.send(subscribe=m.SubscribeRequest("d"))
    peer.finish()
    assert peer.reply(later).subscribe
    assert set(peer.joined) == {"b", "d"}


# By a token


def test_a_token_opens_a_channel() -> None:
    token = claims(expires_at=UNIX_NOW + 60, info=Raw(b'"host"'), override=ChannelOverrides(presence=True))
    peer = ann(tokens={"token": token})
    result = peer.subscribe("open", token="token")
    assert (result.expires, result.ttl) == (True, 60)
    assert peer.operations[-2] == e.Verify("token", "subscription")
    assert peer.joined["open"].info == m.ClientInfo("ann", "client-1", m.NO_PAYLOAD, Raw(b'"host"'))
    assert peer.joined["open"].presence
    assert peer.joined["open"].deadline == NOW + 60


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        pytest.param(Invalid("forged"), Errors.PERMISSION_DENIED, id="invalid"),
        pytest.param(claims("other"), Errors.PERMISSION_DENIED, id="another channel's"),
        pytest.param(claims(user="bob"), Errors.PERMISSION_DENIED, id="another user's"),
        pytest.param(Expired(), Errors.TOKEN_EXPIRED, id="expired"),
        pytest.param(Errors.INTERNAL, Errors.INTERNAL, id="not to be verified now"),
    ],
)
@pytest.mark.parametrize("insecure", [True, False])
def test_a_bad_token(verdict: Any, error: Error, insecure: bool) -> None:
    peer = ann(PUBLIC, tokens={"token": verdict}, insecure=insecure)
    assert peer.subscribe_error("open", token="token") == error.code
    assert peer.closed is None


# By the app


def test_the_app_is_asked() -> None:
    peer = ann(hooks={"subscribe": None}, tokens={"token": claims()})
    peer.subscribe("open", token="token", data=Raw(b"[1]"))
    assert peer.operations[-2] == e.CallHandler(
        SubscribeEvent("client-1", "ann", "open", [1], has_token=True)
    )
    assert peer.subscribe_error("other") == Errors.PERMISSION_DENIED.code
    assert peer.operations[-1] == e.CallHandler(
        SubscribeEvent("client-1", "ann", "other", None, has_token=False)
    )


def test_the_app_permits_a_subscription() -> None:
    reply = SubscribeReply(info="here", data={"a": 1}, ttl_s=30, join_leave=True, force_push_join_leave=True)
    peer = ann(hooks={"subscribe": reply})
    assert peer.subscribe("open") == m.SubscribeResult(expires=True, ttl=30, data=Raw(b'{"a":1}'))
    subscription = peer.joined["open"]
    assert subscription.info.chan_info == Raw(b'"here"')
    assert subscription.announces
    assert subscription.hears_joins


def test_the_app_refuses_with_an_error() -> None:
    peer = ann(PUBLIC, hooks={"subscribe": Error(1000, "full")})
    assert peer.subscribe_error("open") == 1000


def test_the_app_refuses_with_a_disconnect() -> None:
    peer = ann(PUBLIC, hooks={"subscribe": Disconnect(4000, "full")})
    peer.send(subscribe=m.SubscribeRequest("open"))
    assert peer.closed == Disconnect(4000, "full")


# Positions and recovery


def test_clients_that_may_read_the_history_get_positions() -> None:
    peer = ann(READABLE, streams={"open": stream(top=7)})
    result = peer.subscribe("open", positioned=True, recoverable=True)
    assert result == m.SubscribeResult(recoverable=True, positioned=True, epoch="epoch", offset=7)
    assert peer.operations[-1] == e.OpenChannel("open", stream=True)
    assert peer.joined["open"].offset == 7


@pytest.mark.parametrize(
    "rules", [options(history=True, allow_subscribe_for_client=True), PUBLIC], ids=["history", "none"]
)
def test_other_clients_get_no_positions(rules: ChannelOptions) -> None:
    peer = ann(rules, streams={"open": stream(top=7)})
    assert peer.subscribe("open", positioned=True, recoverable=True) == m.SubscribeResult()
    assert peer.operations[-1] == e.OpenChannel("open", stream=False)
    assert peer.joined["open"].offset == 0


def test_a_client_that_missed_something() -> None:
    peer = ann(READABLE, streams={"open": stream(5, 6, 7)})
    result = peer.subscribe("open", offset=4, **RECOVERED)
    assert peer.operations[-1] == e.OpenChannel("open", stream=True, since=m.StreamPosition(4, "epoch"))
    assert result.was_recovering
    assert result.recovered
    assert [publication.offset for publication in result.publications] == [5, 6, 7]
    assert (result.offset, result.epoch) == (4, "epoch")
    assert peer.joined["open"].offset == 7
    assert not peer.joined["open"].is_backlogged


def test_a_client_that_missed_nothing() -> None:
    peer = ann(READABLE, streams={"open": stream(top=7)})
    result = peer.subscribe("open", offset=7, **RECOVERED)
    assert result.recovered
    assert result.publications == []
    assert result.offset == 7


def test_missed_publications_that_do_not_fit_the_reply_follow_it() -> None:
    missed = m.Publications([m.Publication(offset=offset) for offset in (5, 6)], REPLY_ROOM_BYTES - 1)
    since, top = m.StreamPosition(4, "epoch"), m.StreamPosition(9, "epoch")
    found = Opened(top, Recovery(True, missed, since))
    peer = ann(READABLE, streams={"a": found, "b": found, "c": found})

    def come_back(channel: str) -> tuple[list[int], int, bool]:
        result = peer.subscribe(channel, offset=4, **RECOVERED)
        assert (result.recovered, result.offset, result.epoch) == (True, 4, "epoch")
        joined = peer.joined[channel]
        return [each.offset for each in result.publications], joined.offset, joined.is_backlogged

    assert come_back("a") == ([5, 6], 6, True), "the first page of more"
    assert come_back("b") == ([], 4, True), "the first reply may still be on its way"
    peer.session.reply_room = REPLY_ROOM_BYTES
    assert come_back("c") == ([5, 6], 6, True)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(stream(6, 7), id="the oldest is gone"),
        pytest.param(stream(5, 6, 7, epoch="another"), id="another epoch"),
        pytest.param(stream(top=3), id="the position is beyond the stream"),
    ],
)
def test_a_client_that_missed_too_much(found: Any) -> None:
    peer = ann(READABLE, streams={"open": found})
    result = peer.subscribe("open", offset=4, **RECOVERED)
    assert result.was_recovering
    assert not result.recovered
    assert result.publications == []
    assert (result.offset, result.epoch) == (found.top.offset, found.top.epoch)
    assert peer.joined["open"].offset == found.top.offset
    assert not peer.joined["open"].is_backlogged


def test_a_client_returns_to_a_channel_without_recovery() -> None:
    result = ann(PUBLIC).subscribe("open", offset=4, **RECOVERED)
    assert result == m.SubscribeResult(was_recovering=True)


def test_forced_recovery() -> None:
    rules = options(history=True, force_recovery=True, allow_subscribe_for_client=True)
    peer = ann(rules, streams={"open": stream(5)})
    assert peer.subscribe("open", recover=True, offset=4, epoch="epoch").recovered


@pytest.mark.parametrize("rules", [READABLE, PUBLIC], ids=["history", "none"])
def test_a_client_that_rejects_a_failed_recovery(rules: ChannelOptions) -> None:
    peer = ann(rules, streams={"open": stream(6, 7)})
    asked: dict[str, Any] = {**RECOVERED, "offset": 4}
    assert not peer.subscribe("open", flag=1, **asked).recovered
    peer.call(unsubscribe=m.UnsubscribeRequest("open"))
    asked["flag"] = 2
    assert peer.subscribe_error("open", **asked) == Errors.UNRECOVERABLE_POSITION.code
    assert peer.joined == {}
    assert peer.opening == {}
    assert e.CancelSubscribe("open") in peer.effects


def test_a_client_that_rejects_failed_recoveries_is_recovered() -> None:
    peer = ann(READABLE, streams={"open": stream(6, 7)})
    assert peer.subscribe("open", offset=5, flag=3, **RECOVERED).recovered
    assert peer.subscribe("other", flag=2) == m.SubscribeResult()


def test_the_broker_fails() -> None:
    peer = ann(PUBLIC, streams={"open": Errors.INTERNAL})
    assert peer.subscribe_error("open") == Errors.INTERNAL.code
    assert peer.effects[-2] == e.CancelSubscribe("open")
    assert peer.opening == {}
    peer.streams.clear()
    peer.subscribe("open")


# Unsubscribe


def test_unsubscribe() -> None:
    peer = ann(PUBLIC)
    peer.subscribe("open")
    assert peer.call(unsubscribe=m.UnsubscribeRequest("open")).unsubscribe == m.UnsubscribeResult()
    assert peer.joined == {}
    assert peer.pushes == []


@pytest.mark.parametrize("channel", ["open", "unknown:channel"])
def test_unsubscribe_from_a_channel_that_the_client_is_not_in(channel: str) -> None:
    assert ann(PUBLIC).call(unsubscribe=m.UnsubscribeRequest(channel)).unsubscribe == m.UnsubscribeResult()


# Channels of other types


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"type": 1}, Errors.BAD_REQUEST),
        ({"type": 1, "phase": 2}, Errors.BAD_REQUEST),
        ({"type": 2}, Errors.BAD_REQUEST),
        ({"type": 3}, Errors.BAD_REQUEST),
        ({"type": 4}, Errors.NOT_AVAILABLE),
        ({"type": 5}, Errors.BAD_REQUEST),
        ({"type": -1}, Errors.BAD_REQUEST),
        ({"phase": 1}, Errors.BAD_REQUEST),
        ({"phase": 2}, Errors.BAD_REQUEST),
    ],
)
def test_a_subscribe_to_a_channel_of_another_type_is_refused(fields: dict[str, int], error: Error) -> None:
    peer = ann(PUBLIC)
    before = list(peer.operations)
    assert peer.subscribe_error("open", **fields) == error.code
    assert peer.subscribe_error("unknown:a", **fields) == Errors.UNKNOWN_CHANNEL.code
    assert peer.operations == before
    peer.subscribe("open")


# Sub refresh


def refreshing(**tokens: Any) -> Peer:
    peer = ann(tokens={"token": claims(expires_at=UNIX_NOW + 60), **tokens}, ping_interval_s=1_000)
    peer.subscribe("open", token="token")
    return peer


def test_sub_refresh() -> None:
    peer = refreshing(next=claims(expires_at=UNIX_NOW + 90))
    reply = peer.call(sub_refresh=m.SubRefreshRequest("open", "next"))
    assert reply.sub_refresh == m.SubRefreshResult(True, 90)
    assert peer.session.deadline == NOW + 90 + GRACE_S


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        pytest.param(Invalid("forged"), Errors.PERMISSION_DENIED, id="invalid"),
        pytest.param(claims("other"), Errors.PERMISSION_DENIED, id="another channel's"),
        pytest.param(claims(user="bob"), Errors.PERMISSION_DENIED, id="another user's"),
        pytest.param(Errors.INTERNAL, Errors.INTERNAL, id="not to be verified now"),
    ],
)
def test_sub_refresh_with_a_bad_token(verdict: Any, error: Error) -> None:
    peer = refreshing(next=verdict)
    assert peer.error(sub_refresh=m.SubRefreshRequest("open", "next")) == error.code
    assert peer.session.deadline == NOW + 60 + GRACE_S


def test_sub_refresh_with_an_expired_token_makes_the_client_subscribe_again() -> None:
    peer = refreshing(next=Expired())
    command_id = peer.send(sub_refresh=m.SubRefreshRequest("open", "next"))
    expected = m.UnsubscribePush(Unsubscribes.EXPIRED.code, Unsubscribes.EXPIRED.reason)
    assert peer.sent[-2].push == m.Push(channel="open", unsubscribe=expected), "before the reply"
    assert peer.sent[-1] == peer.reply(command_id)
    assert peer.sent[-1].error == m.ErrorMessage(110, "expired")
    assert peer.joined == {}
    assert peer.closed is None
    assert peer.subscribe_error("open", token="next") == Errors.TOKEN_EXPIRED.code


def test_sub_refresh_with_an_expired_token_of_a_subscription_that_the_server_made() -> None:
    tokens = {"token": ConnectionClaims("ann", channels=("open",)), "next": Expired()}
    peer = Peer(tokens=tokens)
    peer.connect("token")
    peer.send(sub_refresh=m.SubRefreshRequest("open", "next"))
    assert peer.closed == Disconnects.SUBSCRIPTION_EXPIRED


@pytest.mark.parametrize("verdict", [Expired(), Invalid("forged"), claims()])
def test_sub_refresh_whose_subscription_ended_while_its_token_was_verified(verdict: Any) -> None:
    peer = refreshing(next=verdict)
    peer.outcomes[e.Verify] = LATER
    command_id = peer.send(sub_refresh=m.SubRefreshRequest("open", "next"))
    peer.tick(NOW + 60 + GRACE_S)
    peer.finish()
    assert peer.reply(command_id).error == m.ErrorMessage(110, "expired")


def test_sub_refresh_of_a_subscription_that_the_rules_permit() -> None:
    peer = ann(PUBLIC, tokens={"next": claims(expires_at=UNIX_NOW + 90)})
    peer.subscribe("open")
    reply = peer.call(sub_refresh=m.SubRefreshRequest("open", "next"))
    assert reply.sub_refresh == m.SubRefreshResult(True, 90)
    assert peer.joined["open"].grant is OPEN


def test_sub_refresh_where_the_client_is_not_subscribed() -> None:
    peer = refreshing()
    assert peer.error(sub_refresh=m.SubRefreshRequest("other", "token")) == Errors.PERMISSION_DENIED.code
    assert peer.error(sub_refresh=m.SubRefreshRequest("no:channel", "token")) == Errors.UNKNOWN_CHANNEL.code


def test_an_unsubscribe_waits_for_the_refresh_before_it() -> None:
    peer = refreshing(next=claims())
    peer.outcomes[e.Verify] = LATER
    refresh = peer.send(sub_refresh=m.SubRefreshRequest("open", "next"))
    unsubscribe = peer.send(unsubscribe=m.UnsubscribeRequest("open"))
    assert "open" in peer.joined
    peer.finish()
    assert peer.reply(refresh).sub_refresh
    assert peer.reply(unsubscribe).unsubscribe
    assert peer.joined == {}


def test_a_subscription_that_expires_while_its_new_token_is_verified() -> None:
    peer = refreshing(next=claims())
    peer.outcomes[e.Verify] = LATER
    command_id = peer.send(sub_refresh=m.SubRefreshRequest("open", "next"))
    peer.tick(NOW + 60 + GRACE_S)
    assert peer.joined == {}
    peer.finish()
    assert peer.reply(command_id).error == m.ErrorMessage(110, "expired")
