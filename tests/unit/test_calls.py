"""hub/core/session/calls.py: publish, history, presence, rpc and send, and their permissions."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from support.sessions import LATER, Peer, options, stream

from hub.broker.base import Stream
from hub.core import effects as e
from hub.core.channel.subscription import OPEN
from hub.core.hooks import (
    ConnectReply,
    MessageEvent,
    PublishEvent,
    PublishReply,
    RPCEvent,
    RPCReply,
    SubscribeReply,
)
from hub.core.session.calls import HISTORY_REPLY_BYTES_MAX
from hub.core.tokens import ConnectionClaims
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Error, Errors
from hub.settings import ChannelOptions

DATA = Raw(b'{"text": "hi"}')
OFF = options(history=True, presence=True, allow_subscribe_for_client=True)
FULL = options(
    history=True,
    presence=True,
    allow_subscribe_for_client=True,
    allow_publish_for_client=True,
    allow_history_for_client=True,
    allow_presence_for_client=True,
)
EVERY_CALL: list[dict[str, Any]] = [
    {"publish": m.PublishRequest("open", DATA)},
    {"history": m.HistoryRequest("open")},
    {"presence": m.PresenceRequest("open")},
    {"presence_stats": m.PresenceStatsRequest("open")},
]
each_call = pytest.mark.parametrize("call", EVERY_CALL, ids=lambda call: next(iter(call)))


def client(default: ChannelOptions = FULL, user: str = "ann", **kwargs: Any) -> Peer:
    """A client that is connected as this user."""
    peer = Peer({"default": default}, tokens={"token": ConnectionClaims(user)}, **kwargs)
    peer.connect("token")
    return peer


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"type": 1, "key": "k"}, Errors.BAD_REQUEST),
        ({"type": 1, "key": "k", "removed": True}, Errors.BAD_REQUEST),
        ({"type": 2}, Errors.BAD_REQUEST),
        ({"type": 4}, Errors.NOT_AVAILABLE),
        ({"key": "k"}, Errors.BAD_REQUEST),
        ({"removed": True}, Errors.BAD_REQUEST),
    ],
)
def test_a_publish_to_a_channel_of_another_type_is_refused(fields: dict[str, Any], error: Error) -> None:
    for hooks in ({}, {"publish": None}):
        peer = client(hooks=hooks)
        assert peer.error(publish=m.PublishRequest("open", DATA, **fields)) == error.code
        assert peer.error(publish=m.PublishRequest("unknown:a", DATA, **fields)) == 102
        assert peer.operations == [e.Verify("token", "connection")]


# What goes for each


@each_call
def test_a_call_that_is_allowed(call: dict[str, Any]) -> None:
    [method] = call
    assert getattr(client().call(**call), method) is not None


@each_call
def test_calls_are_refused_by_default(call: dict[str, Any]) -> None:
    peer = client(OFF)
    peer.subscribe("open")
    assert peer.error(**call) == Errors.PERMISSION_DENIED.code


@each_call
def test_client_options_need_a_user(call: dict[str, Any]) -> None:
    assert client(user="").error(**call) == Errors.PERMISSION_DENIED.code


@each_call
def test_subscriber_options_need_a_subscription(call: dict[str, Any]) -> None:
    rules = options(
        history=True,
        presence=True,
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allow_publish_for_subscriber=True,
        allow_history_for_subscriber=True,
        allow_presence_for_subscriber=True,
    )
    peer = client(rules, user="")
    assert peer.error(**call) == Errors.PERMISSION_DENIED.code
    peer.subscribe("open")
    assert peer.call(**call).error is None


@each_call
def test_every_call_is_allowed_in_insecure_mode(call: dict[str, Any]) -> None:
    assert client(OFF, user="", insecure=True).call(**call).error is None


@each_call
@pytest.mark.parametrize(
    ("channel", "error"),
    [
        ("unknown:channel", Errors.UNKNOWN_CHANNEL),
        ("no name", Errors.BAD_REQUEST),
        ("room#bob", Errors.PERMISSION_DENIED),
    ],
)
def test_a_channel_that_is_not_for_the_client(call: dict[str, Any], channel: str, error: Error) -> None:
    [(method, request)] = call.items()
    named = type(request)(
        **{**{name: getattr(request, name) for name in request.__struct_fields__}, "channel": channel}
    )
    assert client().error(**{method: named}) == error.code


@each_call
def test_the_broker_fails(call: dict[str, Any]) -> None:
    failing = dict.fromkeys((e.Publish, e.ReadHistory, e.ReadPresence), Errors.INTERNAL)
    reply = client(outcomes=failing).call(**call)
    assert reply.error == m.ErrorMessage(100, "internal server error", temporary=True)


# Publish


def test_publish() -> None:
    peer = client()
    assert peer.call(publish=m.PublishRequest("open", DATA)).publish == m.PublishResult()
    assert peer.operations[-1] == e.Publish("open", DATA, m.ClientInfo("ann", "client-1"))


def test_a_subscriber_publishes_as_the_channel_knows_it() -> None:
    peer = client(hooks={"subscribe": SubscribeReply(info="host")})
    peer.subscribe("open")
    peer.call(publish=m.PublishRequest("open", DATA))
    info = m.ClientInfo("ann", "client-1", chan_info=Raw(b'"host"'))
    assert peer.operations[-1] == e.Publish("open", DATA, info)


def test_a_publish_with_an_idempotency_key_is_of_its_user() -> None:
    keys = set()
    for user in ("ann", "bob"):
        peer = client(user=user, hooks={"publish": None})
        assert peer.call(publish=m.PublishRequest("open", DATA, idempotency_key="k")).publish
        event, operation = peer.operations[-2:]
        assert event == e.CallHandler(PublishEvent("client-1", user, "open", {"text": "hi"}, "k"))
        assert isinstance(operation, e.Publish)
        keys.add(operation.idempotency_key)
    assert keys == {"\0ann\0k", "\0bob\0k"}, "and so never one of the app's"


@pytest.mark.parametrize("key", ["k" * 65, "é", "a\0b", "a\nb"])
def test_an_idempotency_key_that_the_hub_does_not_take(key: str) -> None:
    peer = client(hooks={"publish": None})
    assert peer.error(publish=m.PublishRequest("open", DATA, idempotency_key=key)) == 107
    assert peer.operations == [e.Verify("token", "connection")]


def test_the_longest_idempotency_key() -> None:
    assert client().call(publish=m.PublishRequest("open", DATA, idempotency_key=" ~" * 32)).publish


def test_publish_nothing() -> None:
    assert client().error(publish=m.PublishRequest("open")) == Errors.BAD_REQUEST.code


def test_publish_null() -> None:
    assert client().call(publish=m.PublishRequest("open", Raw(b"null"))).publish


def test_the_app_is_asked_before_a_publish() -> None:
    peer = client(hooks={"publish": None})
    assert peer.call(publish=m.PublishRequest("open", DATA)).publish
    assert peer.operations[-2:] == [
        e.CallHandler(PublishEvent("client-1", "ann", "open", {"text": "hi"})),
        e.Publish("open", DATA, m.ClientInfo("ann", "client-1")),
    ]


def test_the_app_leaves_a_publish_to_the_settings() -> None:
    peer = client(OFF, hooks={"publish": None})
    assert peer.error(publish=m.PublishRequest("open", DATA)) == Errors.PERMISSION_DENIED.code


@pytest.mark.parametrize(
    ("reply", "data", "tags", "skip_history"),
    [
        pytest.param(PublishReply(), DATA, None, False, id="as it is"),
        pytest.param(PublishReply(data={"text": "ho"}), Raw(b'{"text":"ho"}'), None, False, id="changed"),
        pytest.param(PublishReply(tags={"a": "b"}, skip_history=True), DATA, {"a": "b"}, True, id="marked"),
    ],
)
def test_the_app_accepts_a_publish(
    reply: PublishReply, data: Raw, tags: dict[str, str] | None, skip_history: bool
) -> None:
    peer = client(OFF, hooks={"publish": reply})
    assert peer.call(publish=m.PublishRequest("open", DATA)).publish
    assert peer.operations[-1] == e.Publish("open", data, m.ClientInfo("ann", "client-1"), tags, skip_history)


def test_the_app_refuses_a_publish() -> None:
    peer = client(hooks={"publish": Error(1000, "rude")})
    assert peer.error(publish=m.PublishRequest("open", DATA)) == 1000
    peer.hooks["publish"] = Disconnect(4500, "rude")
    peer.send(publish=m.PublishRequest("open", DATA))
    assert peer.closed == Disconnect(4500, "rude")
    assert not any(isinstance(operation, e.Publish) for operation in peer.operations)


# History


def test_history() -> None:
    peer = client(streams={"open": stream(3, 4, top=9)})
    since = m.StreamPosition(2, "epoch")
    result = peer.call(history=m.HistoryRequest("open", 2, since, reverse=True)).history
    assert peer.operations[-1] == e.ReadHistory("open", 2, since, True, HISTORY_REPLY_BYTES_MAX)
    assert result
    assert [publication.offset for publication in result.publications] == [3, 4]
    assert (result.offset, result.epoch) == (9, "epoch")


@pytest.mark.parametrize(("asked", "read"), [(0, 0), (5, 5), (50, 10), (-1, 10), (-7, 10)])
def test_a_limit_of_history(asked: int, read: int) -> None:
    peer = client(history_limit_max=10)
    peer.call(history=m.HistoryRequest("open", asked))
    assert peer.operations[-1] == e.ReadHistory("open", read, bytes_max=HISTORY_REPLY_BYTES_MAX)


def test_history_since_another_epoch() -> None:
    peer = client()
    since = m.StreamPosition(2, "another")
    code = peer.error(history=m.HistoryRequest("open", since=since))
    assert code == Errors.UNRECOVERABLE_POSITION.code


def test_history_since_an_offset_of_any_epoch() -> None:
    assert client().call(history=m.HistoryRequest("open", since=m.StreamPosition(2))).history


@pytest.mark.parametrize("insecure", [True, False])
def test_history_that_is_switched_off(insecure: bool) -> None:
    peer = client(options(), insecure=insecure)
    assert peer.error(history=m.HistoryRequest("open")) == Errors.NOT_AVAILABLE.code


# Presence


def test_presence() -> None:
    there = {"1": m.ClientInfo("ann", "1"), "2": m.ClientInfo("ann", "2"), "3": m.ClientInfo("bob", "3")}
    peer = client(outcomes={e.ReadPresence: there})
    assert peer.call(presence=m.PresenceRequest("open")).presence == m.PresenceResult(there)
    stats = peer.call(presence_stats=m.PresenceStatsRequest("open")).presence_stats
    assert stats == m.PresenceStatsResult(num_clients=3, num_users=2)


@pytest.mark.parametrize("insecure", [True, False])
def test_presence_that_is_switched_off(insecure: bool) -> None:
    peer = client(options(), insecure=insecure)
    assert peer.error(presence=m.PresenceRequest("open")) == Errors.NOT_AVAILABLE.code
    assert peer.error(presence_stats=m.PresenceStatsRequest("open")) == Errors.NOT_AVAILABLE.code


# The app


def test_rpc() -> None:
    peer = client(hooks={"rpc": RPCReply({"sum": 3})})
    reply = peer.call(rpc=m.RPCRequest(Raw(b"[1,2]"), "add"))
    assert peer.operations[-1] == e.CallHandler(RPCEvent("client-1", "ann", "add", [1, 2]))
    assert reply.rpc == m.RPCResult(Raw(b'{"sum":3}'))


@pytest.mark.parametrize(
    ("answer", "data"), [(RPCReply(), Raw(b"null")), (None, m.NO_PAYLOAD)], ids=["null", "nothing"]
)
def test_rpc_without_a_result(answer: Any, data: m.Payload) -> None:
    assert client(hooks={"rpc": answer}).call(rpc=m.RPCRequest()).rpc == m.RPCResult(data)


def test_rpc_that_nobody_handles() -> None:
    assert client().error(rpc=m.RPCRequest(method="add")) == Errors.NOT_AVAILABLE.code


def test_rpc_that_is_refused() -> None:
    peer = client(hooks={"rpc": Error(1000, "overflow")})
    assert peer.error(rpc=m.RPCRequest(method="add")) == 1000
    peer.hooks["rpc"] = Disconnect(4000, "overflow")
    peer.send(rpc=m.RPCRequest(method="add"))
    assert peer.closed == Disconnect(4000, "overflow")


def test_calls_of_the_app_go_on_beside_each_other() -> None:
    peer = client(hooks={"rpc": RPCReply()}, outcomes={e.CallHandler: LATER})
    slow = peer.send(rpc=m.RPCRequest())
    fast = peer.send(rpc=m.RPCRequest())
    peer.finish(index=1)
    assert peer.reply(fast).rpc
    assert peer.replies(slow) == []


def test_send() -> None:
    peer = client(hooks={"message": None})
    for command_id in (0, 9):
        peer.receive(m.Command(command_id, send=m.SendRequest(Raw(b'"hi"'))))
    assert peer.operations[-2:] == [e.CallHandler(MessageEvent("client-1", "ann", "hi"))] * 2
    assert len(peer.sent) == 1


def test_send_that_nobody_handles() -> None:
    peer = client()
    peer.receive(m.Command(send=m.SendRequest(DATA)))
    assert peer.closed is None
    assert len(peer.operations) == 1


def test_what_a_message_is_answered_with() -> None:
    peer = client(hooks={"message": Errors.INTERNAL})
    peer.receive(m.Command(send=m.SendRequest(DATA)))
    assert len(peer.sent) == 1
    peer.hooks["message"] = Disconnect(4000, "spam")
    peer.receive(m.Command(send=m.SendRequest(DATA)))
    assert peer.closed == Disconnect(4000, "spam")


def test_a_client_that_the_app_named() -> None:
    peer = Peer({"default": FULL}, hooks={"connect": ConnectReply("ann")})
    peer.connect()
    assert peer.call(publish=m.PublishRequest("open", DATA)).publish


@pytest.mark.parametrize("outcome", [stream(1), Errors.INTERNAL], ids=["success", "failure"])
def test_reads_are_counted_while_they_are_in_progress(outcome: Any) -> None:
    peer = client(outcomes=dict.fromkeys((e.ReadHistory, e.ReadPresence), LATER))
    peer.send(history=m.HistoryRequest("open"))
    peer.send(presence=m.PresenceRequest("open"))
    assert peer.session.reads == 2
    peer.finish(outcome)
    assert peer.session.reads == 1
    peer.finish({} if isinstance(outcome, Stream) else outcome)
    assert peer.session.reads == 0


def test_a_method_that_no_handler_is_for() -> None:
    peer = client(hooks={"rpc": RPCReply()}, is_handled=lambda hook, name: (hook, name) == ("rpc", "add"))
    assert peer.call(rpc=m.RPCRequest(method="add")).rpc
    error = peer.call(rpc=m.RPCRequest(method="sub" + "b" * 500)).error
    assert error
    assert error.code == Errors.METHOD_NOT_FOUND.code
    assert error.message.startswith("method not found: no handler of the app answers 'subb")
    assert len(error.message) < 200


def test_a_channel_that_no_handler_is_for() -> None:
    asked: list[str] = []

    def ask(event: Any) -> None:
        asked.append(event.channel)

    peer = client(hooks={"publish": ask, "subscribe": ask}, is_handled=lambda hook, name: name == "handled")
    for channel in ("other", "handled"):
        peer.subscribe(channel)
        assert peer.call(publish=m.PublishRequest(channel, DATA)).publish == m.PublishResult()
    assert asked == ["handled", "handled"]
    assert [peer.joined[channel].grant is OPEN for channel in ("other", "handled")] == [True, False]


def test_a_message_that_its_handler_cannot_read_is_logged() -> None:
    refusal = Errors.BAD_REQUEST.because("bad_request", "x: Field required")
    peer = client(hooks={"message": refusal})
    peer.receive(m.Command(send=m.SendRequest(Raw(b"1"))))
    assert refusal.cause
    assert peer.refused == [e.Refused(107, refusal.cause)]
    assert peer.closed is None


def test_an_error_of_the_hub_in_place_of_a_handlers_keeps_its_cause() -> None:
    refusal = Errors.BAD_REQUEST.because("bad_request", "lines.0.amount: Input should be a number")
    peer = client(hooks={"publish": refusal, "rpc": refusal, "subscribe": refusal})
    text = "bad request: lines.0.amount: Input should be a number"
    for request in (
        {"publish": m.PublishRequest("a", Raw(b"1"))},
        {"rpc": m.RPCRequest()},
        {"subscribe": m.SubscribeRequest("a")},
    ):
        error = peer.call(**request).error
        assert error
        assert (error.code, error.message) == (107, text)


def test_publishes_are_in_order_where_a_handler_is_told_of_them() -> None:
    peer = client(hooks={"after_publish": None}, outcomes={e.Publish: LATER})
    for number in range(2):
        peer.send(publish=m.PublishRequest("a", m.payload(number)))
    assert len(peer.held) == 1
    peer.finish()
    assert len(peer.held) == 1
    assert peer.held[0].operation.data == m.payload(1)  # type: ignore[union-attr]
