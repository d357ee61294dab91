"""The client's machine: connecting, coming back, tokens, calls, and what a hub may send."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.pilot import Pilot

from hub.client import values
from hub.client.calls import QUEUE_MAX
from hub.client.codec import CODECS
from hub.client.errors import (
    ClientDisconnectedError,
    MessageTooLargeError,
    OperationTimeoutError,
    QueueFullError,
    ReplyError,
    SubscriptionUnsubscribedError,
    TransportClosedError,
    UnauthorizedError,
)
from hub.client.state import FRAME_BYTES_MAX, STABLE_S, ClientState
from hub.errors import RequestError
from hub.protocol import messages as m

PUBLISH = m.PublishRequest("news", m.payload(1))


def test_connecting() -> None:
    pilot = Pilot(token="login", data={"a": 1}, name="test", version="1.0")
    assert pilot.machine.deadline == math.inf
    asked = pilot.connect(data=m.payload({"hi": 1}), node="node-1", version="hub 1")
    assert (asked.token, m.value(asked.data), asked.name, asked.version) == ("login", {"a": 1}, "test", "1.0")
    assert pilot.events == [
        values.Connecting(0, "connect called", 0, 0.0),
        values.Connected("client-1", {"hi": 1}, "node-1", "hub 1"),
    ]
    pilot.do(pilot.machine.connect(pilot.now))
    assert len(pilot.events) == 2
    pilot.do(pilot.machine.disconnect(pilot.now))
    pilot.do(pilot.machine.disconnect(pilot.now))
    assert pilot.events[2:] == [values.Disconnected(0, "disconnect called")]
    assert not pilot.link
    assert pilot.machine.deadline == math.inf
    pilot.connect()


def test_each_ping_is_answered_where_the_hub_wants_it() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.hear(m.PING)
    assert pilot.frames[-1] == b"{}"
    quiet = Pilot()
    quiet.connect(pong=False, ping=0)
    quiet.hear(m.PING)
    assert len(quiet.frames) == 1
    assert quiet.machine.deadline == math.inf  # who is not told of pings waits for none


def test_silence_ends_a_link() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.pass_time(34.9)
    pilot.hear(m.PING)
    pilot.pass_time(34.9)
    assert pilot.machine.connected
    pilot.pass_time(0.2)
    assert pilot.events[-1] == values.Connecting(2, "no ping", 1, 0.75)


def test_a_client_may_be_hurried_back() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.do(pilot.machine.hurry(pilot.now))
    assert pilot.machine.connected
    pilot.do(pilot.machine.lost(pilot.link, 1006, "", pilot.now))
    assert not pilot.link
    pilot.do(pilot.machine.hurry(pilot.now))
    link = pilot.link
    assert link, "the delay of the next try is over"
    pilot.do(pilot.machine.hurry(pilot.now))
    assert pilot.link == link
    pilot.do(pilot.machine.disconnect(pilot.now))
    pilot.do(pilot.machine.hurry(pilot.now))
    assert not pilot.link


def test_the_wait_grows_with_each_try_and_is_never_the_same_for_all() -> None:
    for chance, waits in ((0.0, [0.5] * 8), (1.0, [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0])):
        pilot = Pilot(chance=chance)
        pilot.do(pilot.machine.connect(pilot.now))
        for wait_s in waits:
            pilot.do(pilot.machine.refused(pilot.link, OSError("refused"), 0, pilot.now))
            assert pilot.wait() == pytest.approx(wait_s)
        assert [event.attempt for event in pilot.of(values.Connecting)] == list(range(9))
        assert [event.code for event in pilot.of(values.Error)] == [2] * 8


def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.do(pilot.machine.refused(pilot.link, OSError("503"), 30.0, pilot.now))
    assert pilot.wait() == 30.75


def test_only_a_link_that_lasted_makes_the_wait_short_again() -> None:
    pilot = Pilot(chance=1.0)
    pilot.connect()
    pilot.lose()
    assert pilot.wait() == 1.0
    pilot.enter()
    pilot.lose(3001, "shutdown")
    assert pilot.wait() == 1.5
    pilot.enter()
    pilot.pass_time(STABLE_S)
    pilot.lose()
    assert pilot.wait() == 1.0


def test_a_try_has_its_time() -> None:
    pilot = Pilot(timeout_s=3.0)
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.pass_time(2.9)
    assert pilot.link
    pilot.open()
    pilot.pass_time(2.9)
    assert pilot.link
    pilot.pass_time(0.2)
    assert not pilot.link
    error = pilot.of(values.Error)[0]
    assert isinstance(error.error, OperationTimeoutError)
    assert pilot.events[-1] == values.Connecting(1, "connect timeout", 1, 0.75)


@pytest.mark.parametrize(
    ("code", "stops", "told"),
    [
        (1000, False, 1),
        (1006, False, 1),
        (1009, True, 3),
        (3000, False, 3000),
        (3499, False, 3499),
        (3500, True, 3500),
        (3999, True, 3999),
        (4000, False, 4000),
        (4500, True, 4500),
    ],
)
def test_the_code_of_a_close_decides(code: int, stops: bool, told: int) -> None:
    for pushed in (False, True):
        pilot = Pilot()
        pilot.connect()
        if pushed:
            pilot.push(disconnect=m.DisconnectPush(code, "why"))
        else:
            pilot.lose(code, "why")
        event: Any = pilot.events[-1]
        assert type(event) is (values.Disconnected if stops else values.Connecting)
        assert event.code == told
        assert pilot.machine.state is (ClientState.DISCONNECTED if stops else ClientState.CONNECTING)
        if stops:
            assert pilot.machine.deadline == math.inf
        else:
            pilot.come_back()


@pytest.mark.parametrize(
    "message",
    [
        b"nonsense",
        b'{"id":1,"connect":{"ping":"often"}}',
        b'{"id":1}',
        b'{"id":1,"publish":{}}',
        b'{"push":{"message":{"data":"\\ud800"}}}',
        b"[" * 5_000,
    ],
)
def test_a_peer_that_is_no_hub_is_left(message: bytes) -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.open()
    pilot.hear_bytes(message)
    assert pilot.events[-1] == values.Disconnected(2, "bad protocol")


def test_what_is_not_known_is_passed_over() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.hear_bytes(
        b'{"push":{"channel":"other","pub":{"data":1}}}\n\n{"push":{}}\n{"id":99,"publish":{},"new":1}'
    )
    pilot.push("other", unsubscribe=m.UnsubscribePush(2000, "why"))
    assert len(pilot.events) == 2
    assert pilot.machine.connected


def test_nothing_of_an_earlier_link_is_heard() -> None:
    pilot = Pilot()
    pilot.connect()
    old = pilot.link
    pilot.lose()
    pilot.come_back()
    count = len(pilot.events)
    for effects in (
        pilot.machine.opened(old, pilot.now),
        pilot.machine.received(old, b"nonsense", pilot.now),
        pilot.machine.lost(old, 3500, "why", pilot.now),
        pilot.machine.refused(old, OSError(), 0, pilot.now),
        pilot.machine.token_fetched(99, "late", pilot.now),
    ):
        assert effects == []
    assert len(pilot.events) == count
    # Nor what stands behind a disconnect in the same message.
    pilot.hear_bytes(b'{"push":{"disconnect":{"code":3001}}}\n{"push":{"message":{"data":1}}}')
    assert not pilot.of(values.Message)


# Tokens


def test_a_token_is_fetched_where_there_is_none() -> None:
    pilot = Pilot(renewable=True)
    pilot.do(pilot.machine.connect(pilot.now))
    assert not pilot.link
    pilot.token(OSError("down"))
    assert pilot.of(values.Error)[0].code == 5
    pilot.pass_time(0.75)
    assert pilot.token("first") == ""
    assert pilot.enter().token == "first"


@pytest.mark.parametrize("refusal", ["", UnauthorizedError("no")])
def test_a_refused_token_stops_the_client(refusal: str | Exception) -> None:
    pilot = Pilot(renewable=True)
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.token(refusal)
    assert pilot.events[-1] == values.Disconnected(1, "unauthorized")


def test_a_token_that_comes_too_late_is_not_used() -> None:
    pilot = Pilot(renewable=True)
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.do(pilot.machine.disconnect(pilot.now))
    pilot.token("late")
    assert not pilot.link
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.token("right")
    assert pilot.enter().token == "right"


def test_an_expired_token_is_replaced_where_that_can_be() -> None:
    pilot = Pilot(token="old", renewable=True)
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.open()
    pilot.refuse(109)
    assert pilot.of(values.Error)[0].code == 13
    pilot.pass_time(1)
    pilot.token("new")
    assert pilot.enter().token == "new"
    poor = Pilot(token="old")
    poor.do(poor.machine.connect(poor.now))
    poor.open()
    poor.refuse(109)
    assert poor.events[-1] == values.Disconnected(109, "no")


def test_a_refused_connect_stops_and_a_temporary_error_does_not() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.open()
    pilot.refuse(111, temporary=True)
    pilot.wait()
    pilot.open()
    pilot.refuse(101)
    assert pilot.events[-1] == values.Disconnected(101, "no")


def test_a_token_is_renewed_before_its_end() -> None:
    pilot = Pilot(token="first", renewable=True)
    pilot.connect(expires=True, ttl=100, ping=0)
    pilot.pass_time(89)
    assert not pilot.asked
    pilot.pass_time(1)
    pilot.token(OSError("down"))
    assert pilot.of(values.Error)[0].code == 6
    pilot.pass_time(7.5)
    pilot.token("second")
    command = pilot.answer(refresh=m.RefreshResult(expires=True, ttl=10**30))
    assert command.refresh == m.RefreshRequest("second")
    assert pilot.machine.deadline < pilot.now + 4e7
    pilot.push(refresh=m.RefreshPush(expires=True, ttl=0))
    pilot.pass_time(1)
    pilot.token("third")
    pilot.refuse(100, temporary=True)
    pilot.pass_time(7.5)
    pilot.token("fourth")
    pilot.refuse(103)
    assert pilot.events[-1] == values.Disconnected(103, "no")


def test_a_token_that_cannot_be_renewed_is_left_to_end() -> None:
    pilot = Pilot(token="only")
    pilot.connect(expires=True, ttl=100, ping=0)
    assert pilot.machine.deadline == math.inf


def test_the_reconnect_token_stands_for_the_login() -> None:
    pilot = Pilot(token="login", renewable=True)
    pilot.connect(data=m.payload({"reconnect_token": "back-1", "own": 1}))
    pilot.lose()
    assert pilot.come_back().token == "back-1"
    pilot.push(message=m.MessagePush(m.payload({"reconnect_token": "back-2"})))
    pilot.push(message=m.MessagePush(m.payload({"reconnect_token": "no", "more": 1})))
    pilot.push(message=m.MessagePush(m.payload({"reconnect_token": 1})))
    pilot.push(message=m.MessagePush(m.payload("plain")))
    assert [event.data for event in pilot.of(values.Message)] == [
        {"reconnect_token": "no", "more": 1},
        {"reconnect_token": 1},
        "plain",
    ]
    pilot.lose(3001, "shutdown")
    assert pilot.come_back().token == "back-2"
    pilot.machine.set_token("another user's")
    pilot.lose()
    assert pilot.come_back(data=m.payload([1])).token == "another user's"


def test_a_renewed_token_is_newer_than_the_reconnect_token() -> None:
    """The hub closes with 3010 where a renewed token has other channels, which the reconnect token lacks."""
    pilot = Pilot(token="first", renewable=True)
    pilot.connect(expires=True, ttl=100, ping=0, data=m.payload({"reconnect_token": "back"}))
    pilot.pass_time(100)
    pilot.token("second")
    assert pilot.command().refresh == m.RefreshRequest("second")
    pilot.lose(3010, "insufficient state")
    assert not pilot.of(values.Error)
    pilot.pass_time(60)
    assert not pilot.asked, "nothing is renewed without a connection"
    assert pilot.enter().token == "second"


LIMIT = {"message_bytes_max": 100, "reconnect_token": "back", "own": 1}


@pytest.mark.parametrize(
    "request_", [m.PublishRequest("c", m.payload("x" * 100)), m.SendRequest(m.payload("x" * 100))]
)
def test_a_command_over_the_hubs_limit_is_not_sent(request_: m.Request) -> None:
    pilot = Pilot()
    pilot.connect(data=m.payload(LIMIT))
    assert pilot.of(values.Connected)[0].data == {"reconnect_token": "back", "own": 1}
    pilot.call("large", request_)
    error = pilot.outcomes["large"]
    assert isinstance(error, MessageTooLargeError)
    assert (error.code, error.temporary) == (21, False)
    assert "100 (client.message_bytes_max)" in str(error)
    assert not pilot.commands
    pilot.call("small", m.PublishRequest("c", m.payload("x" * 10)))
    pilot.answer(publish=m.PublishResult())
    assert pilot.outcomes["small"] == m.PublishResult()


def test_a_command_of_just_the_hubs_limit_is_sent() -> None:
    pilot = Pilot()
    pilot.connect(data=m.payload(LIMIT))
    rest = len('{"id":2,"publish":{"channel":"c","data":""}}')
    for extra in (0, 1):
        pilot.call(extra, m.PublishRequest("c", m.payload("x" * (100 - rest + extra))))
    assert len(pilot.frames[-1]) == 100
    assert list(pilot.outcomes) == [1]


def test_commands_that_leave_together_make_no_message_over_the_limit() -> None:
    pilot = Pilot()
    waiting = [m.PublishRequest("c", m.payload(f"{number:20}")) for number in range(20)]
    pilot.do(pilot.machine.connect(pilot.now))
    for number, request in enumerate(waiting):
        pilot.call(number, request)
    pilot.enter(data=m.payload({"message_bytes_max": 200}))
    assert len(pilot.commands) == len(waiting)
    assert max(map(len, pilot.frames)) <= 200


def test_the_limit_is_that_of_the_last_hub() -> None:
    pilot = Pilot()
    pilot.connect(data=m.payload(LIMIT))
    pilot.lose()
    pilot.come_back(data=m.payload({"message_bytes_max": "of the app", "own": 1}))
    assert pilot.of(values.Connected)[1].data == {"message_bytes_max": "of the app", "own": 1}
    pilot.call("large", m.PublishRequest("c", m.payload("x" * 100)))
    pilot.answer(publish=m.PublishResult())
    assert pilot.outcomes["large"] == m.PublishResult()


@pytest.mark.parametrize("refused_by", ["error", "close"])
def test_a_reconnect_token_that_is_not_taken_falls_back_to_the_login(refused_by: str) -> None:
    for renewable in (True, False):
        pilot = Pilot(token="login", renewable=renewable)
        pilot.connect(data=m.payload({"reconnect_token": "back"}))
        pilot.lose()
        pilot.wait()
        pilot.open()
        if refused_by == "error":
            pilot.refuse(109)
        else:
            pilot.lose(3500, "invalid token")
        if renewable:
            pilot.pass_time(1.5)
            pilot.token("anew")
        pilot.wait()
        pilot.open()
        connect = pilot.commands[-1].connect
        assert connect
        assert connect.token == ("anew" if renewable else "login")
        pilot.lose(3500, "invalid token")
        assert pilot.events[-1] == values.Disconnected(3500, "invalid token")


def test_a_state_that_is_no_longer_valid_is_forgotten() -> None:
    pilot = Pilot(token="login", renewable=True)
    pilot.connect(
        data=m.payload({"reconnect_token": "back"}),
        subs={"mine": m.SubscribeResult(recoverable=True, epoch="e", offset=5)},
    )
    subscription = pilot.subscribe(
        "news", {"recoverable": True, "epoch": "e", "offset": 3}, token="t", renewable=True
    )
    pilot.lose(3014, "state invalidated")
    assert subscription.position is None
    pilot.pass_time(1)
    pilot.token("anew")
    asked = pilot.enter()
    assert (asked.token, asked.subs) == ("anew", {})
    assert pilot.token("anew too") == "news"
    request = pilot.command().subscribe
    assert request
    assert (request.token, request.recover) == ("anew too", False)


# Calls


def test_a_call_has_one_outcome() -> None:
    pilot = Pilot()
    pilot.call("early", PUBLISH)
    assert isinstance(pilot.outcomes["early"], ClientDisconnectedError)
    pilot.connect()
    pilot.call("done", PUBLISH)
    assert pilot.answer(publish=m.PublishResult()).publish == PUBLISH
    assert pilot.outcomes["done"] == m.PublishResult()
    pilot.call("refused", m.RPCRequest(method="sum"))
    pilot.refuse(104)
    refusal = pilot.outcomes["refused"]
    assert isinstance(refusal, ReplyError)
    assert (refusal.code, refusal.message, refusal.temporary) == (104, "no", False)
    pilot.call("sent", m.SendRequest(m.payload(1)))
    assert pilot.command() == m.Command(send=m.SendRequest(m.payload(1)))
    assert pilot.outcomes["sent"] is None
    pilot.call("late", PUBLISH)
    command = pilot.command()
    pilot.pass_time(5)
    assert isinstance(pilot.outcomes["late"], OperationTimeoutError)
    pilot.hear(m.Reply(command.id, publish=m.PublishResult()))
    pilot.call("lost", PUBLISH)
    pilot.lose()
    assert isinstance(pilot.outcomes["lost"], TransportClosedError)
    assert str(pilot.outcomes["lost"]) == "transport closed (code 2)"


def test_an_error_says_why_the_client_is_not_connected() -> None:
    pilot = Pilot(timeout_s=1.0)
    pilot.call("early", PUBLISH)
    assert str(pilot.outcomes["early"]) == "client disconnected: connect was not called (code 3)"
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.call("waits", PUBLISH)
    pilot.do(pilot.machine.refused(pilot.link, OSError("no route"), 0.0, pilot.now))
    pilot.pass_time(1)
    assert str(pilot.outcomes["waits"]) == "timeout: no route (code 1)"
    pilot.wait()
    pilot.enter()
    pilot.call("late", PUBLISH)
    pilot.pass_time(1)
    assert str(pilot.outcomes["late"]) == "timeout (code 1)"
    pilot.lose(3001, "shutdown")
    assert pilot.machine.why == "shutdown"
    pilot.wait()
    pilot.open()
    pilot.commands.clear()
    pilot.lose(3500, "invalid token")
    pilot.call("refused", PUBLISH)
    said = "client disconnected: invalid token: the log of the hub says why (code 3)"
    assert str(pilot.outcomes["refused"]) == said


def test_a_token_that_cannot_be_fetched_is_why_the_client_is_not_connected() -> None:
    pilot = Pilot(renewable=True)
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.token(RuntimeError("the login is away"))
    assert pilot.machine.why == "the login is away"


def test_calls_wait_for_the_connection_in_a_bounded_number() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    for number in range(QUEUE_MAX + 1):
        pilot.call(number, m.PublishRequest("news", m.payload(number)))
    assert isinstance(pilot.outcomes.pop(QUEUE_MAX), QueueFullError)
    pilot.enter()
    sent = [command.publish for command in pilot.commands]
    assert [m.value(request.data) for request in sent if request] == list(range(QUEUE_MAX))
    assert not pilot.outcomes
    assert len({command.id for command in pilot.commands}) == QUEUE_MAX


def test_a_call_waits_on_for_its_subscription() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.register()
    pilot.call("waits", PUBLISH, "news")
    pilot.call("does not", PUBLISH)
    pilot.enter()
    pilot.answer(subscribe=m.SubscribeResult())
    assert [pilot.answer(publish=m.PublishResult()).id for _ in range(2)] == [3, 4]
    assert list(pilot.outcomes) == ["does not", "waits"]


def test_results_hold_values() -> None:
    codec = CODECS["json"]
    info = m.ClientInfo("ann", "client-1", m.payload({"a": 1}), m.payload(2))
    shown = values.ClientInfo("ann", "client-1", {"a": 1}, 2)
    pub = m.Publication(m.payload([1]), info, 3, {"t": "v"}, time=4)
    assert values.history(codec, m.HistoryResult([pub], "e", 3)) == values.HistoryResult(
        [values.Publication([1], 3, shown, {"t": "v"}, 4)], 3, "e"
    )
    assert values.presence(codec, m.PresenceResult({"client-1": info})).clients == {"client-1": shown}
    assert values.presence_stats(m.PresenceStatsResult(2, 1)) == values.PresenceStatsResult(2, 1)


def test_calls_that_wait_have_their_time_and_end_with_the_client() -> None:
    pilot = Pilot(timeout_s=4.0)
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.call("first", PUBLISH)
    pilot.pass_time(3)
    pilot.call("second", PUBLISH)
    pilot.pass_time(1)
    assert isinstance(pilot.outcomes["first"], OperationTimeoutError)
    pilot.do(pilot.machine.disconnect(pilot.now))
    assert isinstance(pilot.outcomes["second"], ClientDisconnectedError)


def test_what_leaves_together_is_joined_and_a_message_has_a_bound() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    ballast = "x" * (FRAME_BYTES_MAX // 4)
    for number in range(8):
        pilot.call(number, m.PublishRequest("news", m.payload(ballast)))
    pilot.enter()
    assert [frame.count(b"\n") + 1 for frame in pilot.frames] == [1, 3, 3, 2]
    assert all(len(frame) <= FRAME_BYTES_MAX for frame in pilot.frames)


def test_a_goodbye_takes_along_what_was_sent() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe()
    pilot.call("last", m.SendRequest(m.payload("bye")))
    pilot.do(pilot.machine.disconnect(pilot.now))
    assert pilot.frames[-1] == b'{"send":{"data":"bye"}}'


def test_a_call_of_a_subscription_waits_for_it() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.call("nowhere", PUBLISH, "news")
    assert isinstance(pilot.outcomes["nowhere"], SubscriptionUnsubscribedError)
    pilot.register()
    pilot.call("waits", PUBLISH, "news")
    pilot.call("does not", PUBLISH)
    assert [bool(command.publish) for command in pilot.commands] == [False, True]
    pilot.answer(subscribe=m.SubscribeResult())
    assert [bool(command.publish) for command in pilot.commands] == [True, True]
    pilot.do(pilot.machine.unsubscribe("news", pilot.now))
    pilot.call("over", PUBLISH, "news")
    assert isinstance(pilot.outcomes["over"], SubscriptionUnsubscribedError)
    pilot.do(pilot.machine.subscribe("news", pilot.now))
    pilot.call("ends with it", PUBLISH, "news")
    pilot.call("stays", PUBLISH)
    pilot.lose()
    pilot.call("waits for the connection", PUBLISH)
    pilot.call("waits for both", PUBLISH, "news")
    pilot.do(pilot.machine.remove_subscription("news", pilot.now))
    assert isinstance(pilot.outcomes["ends with it"], SubscriptionUnsubscribedError)
    assert isinstance(pilot.outcomes["waits for both"], SubscriptionUnsubscribedError)
    assert "waits for the connection" not in pilot.outcomes


def test_a_refused_handshake_says_what_came_back() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.do(pilot.machine.refused(pilot.link, OSError("no route"), 0, pilot.now))
    assert pilot.of(values.Error)[-1].answer == "no route"
    pilot.pass_time(2)
    pilot.do(pilot.machine.refused(pilot.link, OSError("HTTP 403"), 0, pilot.now, "HTTP 403: not here"))
    assert pilot.of(values.Error)[-1].answer == "HTTP 403: not here"


def test_a_refused_connect_is_an_error_before_the_end() -> None:
    pilot = Pilot()
    pilot.do(pilot.machine.connect(pilot.now))
    pilot.do(pilot.machine.opened(pilot.link, pilot.now))
    pilot.refuse(101)
    error, end = pilot.events[-2:]
    assert isinstance(error, values.Error)
    assert (error.code, error.answer) == (13, "error 101: no")
    assert isinstance(error.error, RequestError)
    assert (error.error.code, error.error.message) == (101, "no")
    assert end == values.Disconnected(101, "no")


@pytest.mark.parametrize(
    ("code", "reason", "answer"),
    [(3500, "invalid token", "close code 3500: invalid token"), (1009, "", "close code 1009")],
)
def test_a_close_that_stops_is_an_error_before_the_end(code: int, reason: str, answer: str) -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.lose(code, reason)
    [error] = pilot.of(values.Error)
    assert (error.code, error.answer) == (2, answer)
    assert isinstance(error.error, RequestError)
    assert error.error.code == code
    assert isinstance(pilot.events[-1], values.Disconnected)


def test_a_close_that_does_not_stop_is_no_error() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.lose(3001, "shutdown")
    assert pilot.of(values.Error) == []
