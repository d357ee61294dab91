"""hub/core/hooks.py: an app's answers are found wrong where the app makes them."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from msgspec import Raw

from hub.core import hooks as h
from hub.protocol.codes import Disconnects, Errors

CONNECT = h.ConnectEvent("client", "ann")
SUBSCRIBE = h.SubscribeEvent("client", "ann", "room")
PUBLISH = h.PublishEvent("client", "ann", "room", 1)
RPC = h.RPCEvent("client", "ann", "method", 1)
PUBLISHED = h.PublishedEvent("client", "ann", "room", 1, 7, "epoch")
MESSAGE = h.MessageEvent("client", "ann", 1)
DISCONNECT = h.DisconnectEvent("client", "ann", 3000, "")


def test_values_become_json_text() -> None:
    connect = h.ConnectReply(info={"name": "Ann"}, data=[1])
    assert (connect.info, connect.data) == (Raw(b'{"name":"Ann"}'), Raw(b"[1]"))
    subscribe = h.SubscribeReply(info="here", data=Raw(b"[ 1 ]"))
    assert (subscribe.info, subscribe.data) == (Raw(b'"here"'), Raw(b"[ 1 ]"))
    assert h.PublishReply(data=False).data == Raw(b"false")
    assert h.RPCReply(0).data == Raw(b"0")


def test_none_stays() -> None:
    assert h.ConnectReply() == h.ConnectReply(None, None, None)
    assert h.RPCReply().data is None


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (h.ConnectReply, "info"),
        (h.ConnectReply, "data"),
        (h.SubscribeReply, "info"),
        (h.SubscribeReply, "data"),
        (h.PublishReply, "data"),
        (h.RPCReply, "data"),
    ],
)
def test_a_value_without_a_json_form(reply: Any, field: str) -> None:
    with pytest.raises(TypeError, match="object"):
        reply(**{field: object()})
    with pytest.raises(ValueError, match="surrogate"):
        reply(**{field: "\ud800"})


def test_tags_that_are_none() -> None:
    assert h.PublishReply(tags={"a": "b"}).tags == {"a": "b"}
    with pytest.raises(ValueError, match="surrogate"):
        h.PublishReply(tags={"a": "\ud800"})
    with pytest.raises(TypeError, match="tags must be strings by name"):
        h.PublishReply(tags={"a": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize("reply", [h.ConnectReply, h.SubscribeReply])
@pytest.mark.parametrize("ttl_s", [-1, math.inf, math.nan])
def test_a_time_that_is_none(reply: Any, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="ttl_s must be seconds from 0, or None for no end, got"):
        reply(ttl_s=ttl_s)


@pytest.mark.parametrize("reply", [h.ConnectReply, h.SubscribeReply])
def test_a_time(reply: Any) -> None:
    assert reply(ttl_s=0).ttl_s == 0


def test_a_user_is_a_string() -> None:
    with pytest.raises(TypeError, match=r"user must be a string, got 7: try str\(\)"):
        h.ConnectReply(user=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "reply"),
    [
        (CONNECT, h.ConnectReply()),
        (SUBSCRIBE, h.SubscribeReply()),
        (PUBLISH, h.PublishReply()),
        (RPC, h.RPCReply()),
    ],
)
def test_answers_to_an_event(event: h.Event, reply: Any) -> None:
    for answer in (reply, None, Errors.INTERNAL, Disconnects.SHUTDOWN):
        assert h.checked(event, answer) is answer


@pytest.mark.parametrize("event", [MESSAGE, DISCONNECT, PUBLISHED])
def test_what_these_are_answered_with_does_not_matter(event: h.Event) -> None:
    assert h.checked(event, "anything") == "anything"


@pytest.mark.parametrize(
    ("event", "answer", "text"),
    [
        (CONNECT, True, "a connect handler must return ConnectReply, Error, Disconnect or None, got bool"),
        (SUBSCRIBE, h.ConnectReply(), "a subscribe handler must return SubscribeReply, .*, got ConnectReply"),
        (PUBLISH, {}, "a publish handler must return PublishReply, .*, got dict"),
        (RPC, 3, "a rpc handler must return RPCReply, .*, got int"),
    ],
)
def test_no_answer_to_an_event(event: h.Event, answer: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        h.checked(event, answer)


def test_every_event_has_a_name() -> None:
    assert set(h.HOOKS) == set(get_args(h.Event))
    assert len(set(h.HOOKS.values())) == len(h.HOOKS)


def test_a_user_that_cannot_be_sent_is_refused_where_it_is_made() -> None:
    with pytest.raises(UnicodeEncodeError):
        h.ConnectReply(user="\ud800")


# The connection's state


@pytest.mark.parametrize(
    ("state", "text"), [(None, b""), ({}, b""), ({"a": 1}, b'{"a":1}'), ([], b"[]"), ("x", b'"x"')]
)
def test_the_json_of_a_state(state: Any, text: bytes) -> None:
    assert h.state_json(state) == text


def test_a_state_is_bounded() -> None:
    assert len(h.state_json("x" * (h.STATE_BYTES_MAX - 2))) == h.STATE_BYTES_MAX
    with pytest.raises(ValueError, match="is 4097 bytes of JSON, and 4096 at the most: keep ids in it"):
        h.state_json("x" * (h.STATE_BYTES_MAX - 1))
    with pytest.raises(TypeError, match="state"):
        h.state_json({"a": object()})


def test_a_handler_that_makes_such_a_state_fails() -> None:
    state = {"a": "x" * h.STATE_BYTES_MAX}
    with pytest.raises(ValueError, match="4096 at the most"):
        h.checked(CONNECT, h.ConnectReply(state=state))
    with pytest.raises(ValueError, match="4096 at the most"):
        h.checked(h.RPCEvent("client", "ann", "method", 1, state=state), None)
    assert h.checked(h.RPCEvent("client", "ann", "method", 1, state={"a": 1}), None) is None


def test_events_of_a_client_have_a_state_of_their_own() -> None:
    one, two = h.MessageEvent("client", "ann", 1), h.MessageEvent("client", "ann", 1)
    one.state["a"] = 1
    assert two.state == {}
    assert one == two
    assert "state" not in repr(one)


def test_a_refusal_that_is_raised() -> None:
    assert h.RefusalError(Errors.UNAUTHORIZED).refusal is Errors.UNAUTHORIZED
