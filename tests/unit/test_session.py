"""hub/core/session.py and state.py: commands in their order, times, and what the server does to a client."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import Raw
from support.sessions import LATER, NOW, UNIX_NOW, Peer, options, stream

from hub.core import effects as e
from hub.core.hooks import ConnectReply, PublishReply, RPCReply, SubscribeReply
from hub.core.state import GRACE_S
from hub.core.subscription import Grant
from hub.core.tokens import ConnectionClaims, SubscriptionClaims
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Errors, Unsubscribes

PONG = m.Command()

EVERY_REQUEST: list[dict[str, Any]] = [
    {"connect": m.ConnectRequest()},
    {"subscribe": m.SubscribeRequest("open")},
    {"unsubscribe": m.UnsubscribeRequest("open")},
    {"publish": m.PublishRequest("open", Raw(b"1"))},
    {"presence": m.PresenceRequest("open")},
    {"presence_stats": m.PresenceStatsRequest("open")},
    {"history": m.HistoryRequest("open")},
    {"ping": m.PingRequest()},
    {"send": m.SendRequest(Raw(b"1"))},
    {"rpc": m.RPCRequest(Raw(b"1"), "method")},
    {"refresh": m.RefreshRequest("token")},
    {"sub_refresh": m.SubRefreshRequest("open", "token")},
]


def connected(*args: Any, **kwargs: Any) -> Peer:
    peer = Peer(*args, **kwargs)
    peer.connect()
    return peer


# What is no command


@pytest.mark.parametrize("request_", EVERY_REQUEST[1:], ids=lambda request: next(iter(request)))
def test_the_first_command_is_connect(request_: dict[str, Any]) -> None:
    peer = Peer()
    peer.send(**request_)
    assert peer.closed == Disconnects.BAD_REQUEST
    assert peer.sent == []


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(m.Command(id=1), id="no method"),
        pytest.param(m.Command(id=1, ping=m.PingRequest(), rpc=m.RPCRequest()), id="two methods"),
        pytest.param(PONG, id="a pong"),
        pytest.param(m.Command(connect=m.ConnectRequest()), id="a connect without an id"),
    ],
)
def test_nothing_else_may_come_first(command: m.Command) -> None:
    peer = Peer()
    peer.receive(command)
    assert peer.closed == Disconnects.BAD_REQUEST


@pytest.mark.parametrize("request_", EVERY_REQUEST, ids=lambda request: next(iter(request)))
def test_only_send_may_have_no_id(request_: dict[str, Any]) -> None:
    peer = connected()
    peer.receive(m.Command(**request_))
    assert peer.closed == (None if "send" in request_ else Disconnects.BAD_REQUEST)


def test_two_methods_in_a_command() -> None:
    peer = connected()
    assert peer.error(ping=m.PingRequest(), rpc=m.RPCRequest()) == Errors.BAD_REQUEST.code
    assert peer.closed is None


def test_two_methods_and_no_id() -> None:
    peer = connected()
    peer.receive(m.Command(ping=m.PingRequest(), send=m.SendRequest()))
    assert peer.closed == Disconnects.BAD_REQUEST


def test_no_method_that_is_known() -> None:
    peer = connected()
    assert peer.error() == Errors.METHOD_NOT_FOUND.code
    assert peer.closed is None


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_fault_with_an_id_is_answered(is_connected: bool) -> None:
    peer = connected() if is_connected else Peer()
    peer.receive(m.Fault(7, "no number"))
    error = peer.reply(7).error
    assert error == m.ErrorMessage(107, "bad request")
    assert peer.closed is None


def test_a_fault_without_an_id_ends_the_connection() -> None:
    peer = connected()
    peer.receive(m.Fault(0, "no JSON"))
    assert peer.closed == Disconnects.BAD_REQUEST


def test_ping_is_answered() -> None:
    assert connected().call(ping=m.PingRequest()).ping == m.PingResult()


def test_a_second_connect() -> None:
    peer = connected()
    peer.send(connect=m.ConnectRequest())
    assert peer.closed == Disconnects.BAD_REQUEST


def test_a_closed_session_does_nothing() -> None:
    peer = connected(
        outcomes={e.ReadPresence: LATER}, channels={"default": options(presence=True)}, insecure=True
    )
    peer.send(presence=m.PresenceRequest("open"))
    [run] = peer.held
    session = peer.session
    assert session.disconnect(Disconnects.CONNECTION_CLOSED) == [e.Close(Disconnects.CONNECTION_CLOSED)]
    assert session.in_progress == 0
    assert session.disconnect(Disconnects.SHUTDOWN) == []
    assert session.receive(PONG, NOW) == []
    assert session.resume(run.ticket, {}, NOW) == []
    assert session.tick(math.inf) == []
    assert session.refresh(0, NOW) == []
    assert session.subscribe("open", Grant(), None, NOW) == []
    assert session.unsubscribe("open", Unsubscribes.SERVER, NOW) == []


# Behind the connect, in the same frame


def test_commands_wait_for_the_connect_before_them() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER})
    first = peer.send(connect=m.ConnectRequest())
    second = peer.send(subscribe=m.SubscribeRequest("open"))
    third = peer.send(ping=m.PingRequest())
    assert peer.sent == []
    assert peer.session.in_progress == 3
    peer.finish()
    assert peer.sent[0].id == first
    assert peer.reply(second).subscribe
    assert peer.reply(third).ping
    assert peer.session.in_progress == 0


def test_they_run_beside_each_other_after_it() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER, e.Open: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.send(subscribe=m.SubscribeRequest("a"))
    peer.send(subscribe=m.SubscribeRequest("b"))
    peer.finish()
    assert [run.operation for run in peer.held] == [e.Open("a"), e.Open("b")]


def test_a_refused_connect_takes_those_behind_it_along() -> None:
    """An SDK with an expired token sends its subscribes too; a disconnect that stops it would be wrong."""
    peer = Peer(hooks={"connect": Errors.TOKEN_EXPIRED}, outcomes={e.Ask: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.send(subscribe=m.SubscribeRequest("open"))
    peer.finish()
    [reply] = peer.sent
    assert reply.error == m.ErrorMessage(109, "token expired")
    assert peer.closed is None
    assert peer.session.in_progress == 0


def test_a_connect_behind_the_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.send(connect=m.ConnectRequest())
    peer.send(subscribe=m.SubscribeRequest("open"))
    peer.finish()
    assert peer.closed == Disconnects.BAD_REQUEST
    assert [reply.id for reply in peer.sent] == [1]


def test_an_unreadable_command_behind_the_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER})
    peer.send(connect=m.ConnectRequest())
    assert peer.error() == Errors.METHOD_NOT_FOUND.code


# Order in one channel


def test_a_channel_is_worked_on_in_order() -> None:
    rules = {"default": options(allow_subscribe_for_client=True, allow_publish_for_subscriber=True)}
    peer = Peer(rules, hooks={"connect": ConnectReply("ann")}, outcomes={e.Open: LATER})
    peer.connect()
    subscribe = peer.send(subscribe=m.SubscribeRequest("a"))
    publish = peer.send(publish=m.PublishRequest("a", Raw(b"1")))
    unsubscribe = peer.send(unsubscribe=m.UnsubscribeRequest("a"))
    late = peer.send(publish=m.PublishRequest("a", Raw(b"2")))
    assert peer.session.in_progress == 4
    peer.finish()
    assert peer.reply(subscribe).subscribe
    assert peer.reply(publish).publish
    assert peer.reply(unsubscribe).unsubscribe
    assert peer.reply(late).error == m.ErrorMessage(103, "permission denied")
    assert [reply.id for reply in peer.sent[1:]] == [subscribe, publish, unsubscribe, late]
    assert peer.session.in_progress == 0


def test_reads_of_a_busy_channel_wait_too() -> None:
    rules = {
        "default": options(
            history=True,
            presence=True,
            allow_subscribe_for_client=True,
            allow_history_for_subscriber=True,
            allow_presence_for_subscriber=True,
        )
    }
    peer = Peer(rules, hooks={"connect": ConnectReply("ann")}, outcomes={e.Open: LATER})
    peer.connect()
    peer.send(subscribe=m.SubscribeRequest("a"))
    history = peer.send(history=m.HistoryRequest("a"))
    presence = peer.send(presence=m.PresenceRequest("a"))
    peer.finish()
    assert peer.reply(history).history
    assert peer.reply(presence).presence


def test_channels_do_not_wait_for_each_other() -> None:
    peer = connected(outcomes={e.Open: LATER})
    slow = peer.send(subscribe=m.SubscribeRequest("slow"))
    fast = peer.send(subscribe=m.SubscribeRequest("fast"))
    peer.finish(index=1)
    assert peer.reply(fast).subscribe
    assert peer.replies(slow) == []


def test_publishes_do_not_wait_for_each_other() -> None:
    peer = connected(outcomes={e.Publish: LATER}, insecure=True)
    peer.send(publish=m.PublishRequest("a", Raw(b"1")))
    peer.send(publish=m.PublishRequest("a", Raw(b"2")))
    assert [run.operation for run in peer.held] == [
        e.Publish("a", Raw(data), peer.session.info) for data in (b"1", b"2")
    ]


def test_reads_do_not_wait_for_each_other() -> None:
    rules = {"default": options(history=True, presence=True)}
    peer = connected(rules, outcomes=dict.fromkeys((e.ReadHistory, e.ReadPresence), LATER), insecure=True)
    peer.send(history=m.HistoryRequest("a"))
    peer.send(history=m.HistoryRequest("a"))
    peer.send(presence=m.PresenceRequest("a"))
    assert len(peer.held) == 3


def test_publishes_that_the_app_is_asked_about_keep_their_order() -> None:
    peer = connected(hooks={"publish": PublishReply()}, outcomes={e.Ask: LATER})
    first = peer.send(publish=m.PublishRequest("a", Raw(b"1")))
    second = peer.send(publish=m.PublishRequest("a", Raw(b"2")))
    assert len(peer.held) == 1
    peer.finish()
    peer.finish()
    assert [reply.id for reply in peer.sent[1:]] == [first, second]


def test_a_long_queue_is_worked_off() -> None:
    peer = connected(outcomes={e.Open: LATER})
    peer.send(subscribe=m.SubscribeRequest("a"))
    for _ in range(5_000):
        peer.send(unsubscribe=m.UnsubscribeRequest("a"))
    peer.finish()
    assert len(peer.sent) == 5_002


def test_no_channel_is_named() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER})
    peer.send(connect=m.ConnectRequest())
    nameless = [
        peer.send(subscribe=m.SubscribeRequest()),
        peer.send(publish=m.PublishRequest(data=Raw(b"1"))),
        peer.send(unsubscribe=m.UnsubscribeRequest()),
    ]
    peer.finish()
    for command_id in nameless:
        assert peer.reply(command_id).error == m.ErrorMessage(107, "bad request")
    assert peer.session.in_progress == 0


# Times


def test_nobody_may_wait_to_connect() -> None:
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
    peer = Peer(connect_timeout_s=4, hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER})
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
    peer.receive(PONG)
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


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_a_slow_pong_is_missed_though_pings_come_as_fast(jitter: float) -> None:
    peer = connected(jitter=jitter, ping_interval_s=20, pong_timeout_s=19.9)
    for _ in range(20):
        peer.tick(peer.session.deadline)
    assert peer.closed == Disconnects.NO_PONG
    assert peer.sent.count(m.PING) == 1


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


def test_a_pong_that_nobody_asked_for() -> None:
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


def test_a_subscription_that_the_server_made_ends_the_connection() -> None:
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


def test_time_is_that_of_the_last_call() -> None:
    peer = Peer(
        {"default": options(allow_subscribe_for_client=True)},
        hooks={"subscribe": SubscribeReply(ttl_s=60), "connect": ConnectReply(ttl_s=60)},
        outcomes={e.Open: LATER},
    )
    peer.now = NOW + 5
    assert peer.connect().time == (UNIX_NOW + 5) * 1000
    subscribe = peer.send(subscribe=m.SubscribeRequest("a"))
    peer.now = NOW + 15
    peer.finish()
    result = peer.reply(subscribe).subscribe
    assert result
    assert result.ttl == 50
    peer.carry_out(peer.session.refresh(UNIX_NOW + 60, NOW + 20))
    assert peer.pushes == [m.Push(refresh=m.RefreshPush(True, 40))]


# What the server does to a client


def test_the_server_moves_the_end_of_a_connection() -> None:
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


def test_the_server_subscribes_a_client_that_is_there_already() -> None:
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
    assert isinstance(peer.effects[-1], e.Joined)


@pytest.mark.parametrize("channel", ["unknown:channel", "no name", ""])
def test_the_server_names_a_channel_that_cannot_be(channel: str) -> None:
    peer = connected()
    peer.carry_out(peer.session.subscribe(channel, Grant(), None, NOW))
    assert peer.pushes == []
    assert peer.joined == {}


def test_the_server_cannot_open_a_channel() -> None:
    peer = connected(streams={"open": Errors.INTERNAL})
    peer.carry_out(peer.session.subscribe("open", Grant(), None, NOW))
    assert peer.pushes == []
    assert peer.effects[-1] == e.Abandon("open")


def test_the_server_keeps_to_the_limit() -> None:
    peer = connected(channels_max=2, outcomes={e.Open: LATER})
    for channel in ("a", "b", "c"):
        peer.carry_out(peer.session.subscribe(channel, Grant(), None, NOW))
    assert len(peer.held) == 2
    peer.finish()
    peer.finish()
    assert set(peer.joined) == {"a", "b"}


def test_the_server_unsubscribes_a_client() -> None:
    peer = connected()
    peer.subscribe("open")
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    assert peer.joined == {}
    assert peer.pushes == [m.Push(channel="open", unsubscribe=m.UnsubscribePush(2000, "server unsubscribe"))]


def test_the_server_unsubscribes_a_client_that_is_not_there() -> None:
    peer = connected()
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    assert peer.pushes == []


def test_the_server_unsubscribes_a_client_that_is_about_to_subscribe() -> None:
    peer = connected(outcomes={e.Open: LATER})
    subscribe = peer.send(subscribe=m.SubscribeRequest("open"))
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    assert peer.pushes == []
    peer.finish()
    assert peer.reply(subscribe).subscribe
    assert [push.unsubscribe is not None for push in peer.pushes] == [True]
    assert peer.joined == {}


def test_the_server_waits_for_the_client_to_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.Ask: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.carry_out(peer.session.subscribe("open", Grant(), None, NOW))
    peer.carry_out(peer.session.unsubscribe("open", Unsubscribes.SERVER, NOW))
    peer.carry_out(peer.session.refresh(0, NOW))
    peer.finish()
    assert peer.pushes == []
    assert peer.joined == {}


def test_the_server_disconnects_a_client() -> None:
    peer = connected(hooks={"rpc": RPCReply()}, outcomes={e.Ask: LATER})
    peer.subscribe("a")
    peer.subscribe("b")
    rpc = peer.send(rpc=m.RPCRequest())
    peer.carry_out(peer.session.disconnect(Disconnects.FORCE_NO_RECONNECT))
    assert [type(effect) for effect in peer.effects[-3:]] == [e.Left, e.Left, e.Close]
    assert peer.session.subscriptions == {}
    assert peer.session.in_progress == 0
    peer.finish()
    assert peer.replies(rpc) == []
