"""hub/core/session/session.py and state.py: which messages are commands, and the order of commands."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import Raw
from support.sessions import LATER, NOW, Peer, connected, options

from hub.core import effects as e
from hub.core.channel.subscription import Grant
from hub.core.hooks import ConnectReply, PublishReply
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


def test_a_socket_that_was_just_accepted() -> None:
    session = Peer().session
    assert session.user == ""
    assert session.info == m.ClientInfo(client="client-1")
    assert session.in_progress == 0
    assert session.subscriptions == {}


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
    assert error == m.ErrorMessage(107, "bad request: no number")
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
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER})
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


def test_commands_run_concurrently_after_the_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER, e.OpenChannel: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.send(subscribe=m.SubscribeRequest("a"))
    peer.send(subscribe=m.SubscribeRequest("b"))
    peer.finish()
    assert [run.operation for run in peer.held] == [e.OpenChannel("a"), e.OpenChannel("b")]


def test_commands_behind_a_refused_connect_are_dropped() -> None:
    """An SDK with an expired token sends its subscribes too; a disconnect that stops it would be wrong."""
    peer = Peer(hooks={"connect": Errors.TOKEN_EXPIRED}, outcomes={e.CallHandler: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.send(subscribe=m.SubscribeRequest("open"))
    peer.finish()
    [reply] = peer.sent
    assert reply.error == m.ErrorMessage(109, "token expired")
    assert peer.closed is None
    assert peer.session.in_progress == 0


def test_a_connect_behind_the_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER})
    peer.send(connect=m.ConnectRequest())
    peer.send(connect=m.ConnectRequest())
    peer.send(subscribe=m.SubscribeRequest("open"))
    peer.finish()
    assert peer.closed == Disconnects.BAD_REQUEST
    assert [reply.id for reply in peer.sent] == [1]


def test_an_unreadable_command_behind_the_connect() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER})
    peer.send(connect=m.ConnectRequest())
    assert peer.error() == Errors.METHOD_NOT_FOUND.code


# Order in one channel


def test_flows_of_one_channel_run_in_order() -> None:
    rules = {"default": options(allow_subscribe_for_client=True, allow_publish_for_subscriber=True)}
    peer = Peer(rules, hooks={"connect": ConnectReply("ann")}, outcomes={e.OpenChannel: LATER})
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
    peer = Peer(rules, hooks={"connect": ConnectReply("ann")}, outcomes={e.OpenChannel: LATER})
    peer.connect()
    peer.send(subscribe=m.SubscribeRequest("a"))
    history = peer.send(history=m.HistoryRequest("a"))
    presence = peer.send(presence=m.PresenceRequest("a"))
    peer.finish()
    assert peer.reply(history).history
    assert peer.reply(presence).presence


def test_channels_do_not_wait_for_each_other() -> None:
    peer = connected(outcomes={e.OpenChannel: LATER})
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
    peer = connected(hooks={"publish": PublishReply()}, outcomes={e.CallHandler: LATER})
    first = peer.send(publish=m.PublishRequest("a", Raw(b"1")))
    second = peer.send(publish=m.PublishRequest("a", Raw(b"2")))
    assert len(peer.held) == 1
    peer.finish()
    peer.finish()
    assert [reply.id for reply in peer.sent[1:]] == [first, second]


def test_a_long_queue_of_commands_is_processed() -> None:
    peer = connected(outcomes={e.OpenChannel: LATER})
    peer.send(subscribe=m.SubscribeRequest("a"))
    for _ in range(5_000):
        peer.send(unsubscribe=m.UnsubscribeRequest("a"))
    peer.finish()
    assert len(peer.sent) == 5_002


def test_an_empty_channel_name_is_refused() -> None:
    peer = Peer(hooks={"connect": ConnectReply()}, outcomes={e.CallHandler: LATER})
    peer.send(connect=m.ConnectRequest())
    nameless = [
        peer.send(subscribe=m.SubscribeRequest()),
        peer.send(publish=m.PublishRequest(data=Raw(b"1"))),
        peer.send(unsubscribe=m.UnsubscribeRequest()),
    ]
    peer.finish()
    for command_id in nameless:
        error = m.ErrorMessage(107, "bad request: the channel is missing")
        assert peer.reply(command_id).error == error
    assert peer.session.in_progress == 0
