"""A client's subscriptions: made, lost, recovered, refused and renewed; the server's own among them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from support.pilot import Pilot, publication

from hub.client import values
from hub.client.codec import CODECS
from hub.client.errors import DuplicateSubscriptionError, UnauthorizedError
from hub.client.quoted import DeltaDecoder
from hub.client.subscription import SubscriptionOptions, SubscriptionState
from hub.client.values import ClientInfo, Subscribed, Subscribing, Unsubscribed
from hub.protocol import messages as m
from hub.protocol.delta import create
from hub.protocol.msgpack import MessagePackCodec
from hub.protocol.payloads import Quoted

RECOVERABLE: dict[str, Any] = {"recoverable": True, "epoch": "e", "offset": 3}
PUBLISH = m.PublishRequest("news", m.payload(1))
ANN = m.ClientInfo("ann", "client-2", m.payload({"name": "Ann"}))


def recovered(*offsets: int, since: int = 3, epoch: str = "e") -> m.SubscribeResult:
    """A result that recovers these publications."""
    return m.SubscribeResult(
        recoverable=True,
        epoch=epoch,
        offset=since,
        was_recovering=True,
        recovered=True,
        publications=[publication(offset) for offset in offsets],
    )


def test_subscribing_and_leaving() -> None:
    pilot = Pilot()
    subscription = pilot.register("news", token="t", data=m.payload(1), positioned=True, join_leave=True)
    assert pilot.of(Subscribing) == [Subscribing("news", 0, "subscribe called")]
    assert not pilot.commands
    pilot.do(pilot.machine.subscribe("news", pilot.now))
    assert len(pilot.events) == 1
    pilot.connect()
    command = pilot.answer(
        subscribe=m.SubscribeResult(positioned=True, epoch="e", offset=3, data=m.payload([2]))
    )
    assert command.subscribe == m.SubscribeRequest(
        "news", "t", data=m.payload(1), positioned=True, join_leave=True
    )
    position = m.StreamPosition(3, "e")
    assert pilot.events[-1] == Subscribed("news", False, True, position, False, False, [2])
    assert subscription.position is None  # a channel that is watched, and cannot be recovered
    pilot.publish("news", 4, 4)
    pilot.push("news", join=m.Join(ANN))
    pilot.push("news", leave=m.Leave(ANN))
    pilot.push("news")
    ann = ClientInfo("ann", "client-2", {"name": "Ann"})
    assert pilot.data == [4, 4]
    assert pilot.events[-2:] == [values.Joined("news", ann), values.Left("news", ann)]
    pilot.do(pilot.machine.unsubscribe("news", pilot.now))
    pilot.do(pilot.machine.unsubscribe("news", pilot.now))
    assert pilot.of(Unsubscribed) == [Unsubscribed("news", 0, "unsubscribe called")]
    pilot.publish("news", 5)
    assert pilot.answer(unsubscribe=m.UnsubscribeResult()).unsubscribe == m.UnsubscribeRequest("news")
    assert pilot.data == [4, 4]


def test_an_error_says_why_the_client_is_not_subscribed() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.call("unknown", PUBLISH, "news")
    assert str(pilot.outcomes["unknown"]) == "subscription unsubscribed (code 7)"
    subscription = pilot.machine.new_subscription("news", SubscriptionOptions())
    pilot.call("early", PUBLISH, "news")
    assert str(pilot.outcomes["early"]) == "subscription unsubscribed: subscribe was not called (code 7)"
    pilot.do(pilot.machine.subscribe("news", pilot.now))
    assert subscription.why == ""
    pilot.call("waits", PUBLISH, "news")
    pilot.refuse(100, temporary=True)
    assert subscription.why == "error 100: no"
    pilot.pass_time(1)
    pilot.refuse(103)
    said = "subscription unsubscribed: no: the log of the hub says why (code 7)"
    assert str(pilot.outcomes["waits"]) == said


def test_a_channel_has_one_subscription() -> None:
    pilot = Pilot()
    pilot.register("news")
    with pytest.raises(DuplicateSubscriptionError, match="news has a subscription already"):
        pilot.machine.new_subscription("news", SubscriptionOptions())
    pilot.do(pilot.machine.remove_subscription("news", pilot.now))
    pilot.register("news")
    pilot.connect()
    assert len(pilot.commands) == 1


def test_what_was_missed_is_asked_for_and_comes_once() -> None:
    pilot = Pilot()
    pilot.connect()
    subscription = pilot.subscribe("news", RECOVERABLE, recoverable=True)
    pilot.publish("news", 4, 5, 5, 4)
    assert pilot.data == [4, 5]
    pilot.lose()
    assert pilot.events[-2] == Subscribing("news", 1, "transport closed")
    pilot.come_back()
    command = pilot.command()
    assert command.subscribe
    assert (command.subscribe.recover, command.subscribe.epoch, command.subscribe.offset) == (True, "e", 5)
    pilot.hear(m.Reply(command.id, subscribe=recovered(5, 6, 7, since=5)))
    assert pilot.data == [4, 5, 6, 7]
    event = pilot.of(Subscribed)[-1]
    assert (event.was_recovering, event.recovered) == (True, True)
    assert subscription.position == m.StreamPosition(7, "e")
    pilot.publish("news", 7, 8)
    assert pilot.data == [4, 5, 6, 7, 8]


def test_a_server_that_answers_with_the_top_is_understood_too() -> None:
    pilot = Pilot()
    pilot.connect()
    subscription = pilot.register("news", since=m.StreamPosition(3, "e"))
    assert pilot.commands[0].subscribe
    assert pilot.commands[0].subscribe.recover
    result = recovered(4, 5)
    result.offset = 5
    pilot.answer(subscribe=result)
    assert pilot.data == [4, 5]
    assert subscription.position == m.StreamPosition(5, "e")


def test_what_cannot_be_recovered_begins_anew() -> None:
    pilot = Pilot()
    pilot.connect()
    subscription = pilot.subscribe("news", RECOVERABLE)
    pilot.lose()
    pilot.come_back()
    pilot.answer(subscribe=m.SubscribeResult(recoverable=True, epoch="f", offset=1, was_recovering=True))
    assert subscription.position == m.StreamPosition(1, "f")
    pilot.publish("news", 2)
    assert pilot.data == [2]


@pytest.mark.parametrize(("code", "keeps_token"), [(2500, True), (2501, False), (2502, False)])
def test_an_unsubscribe_that_wants_another_subscribe(code: int, keeps_token: bool) -> None:
    pilot = Pilot()
    pilot.connect()
    subscription = pilot.subscribe("news", RECOVERABLE, token="t", renewable=True)
    pilot.push("news", unsubscribe=m.UnsubscribePush(code, "why"))
    pilot.publish("news", 9)  # between the two subscriptions nothing belongs to either
    assert not pilot.data
    assert pilot.events[-1] == Subscribing("news", code, "why")
    assert not pilot.commands  # not at once: all subscribers may have been told
    pilot.pass_time(0.75)
    if not keeps_token:
        assert pilot.token("new") == "news"
    request = pilot.command().subscribe
    assert request
    assert (request.token, request.recover) == ("t" if keeps_token else "new", code != 2502)
    assert subscription.state is SubscriptionState.SUBSCRIBING


def test_an_unsubscribe_that_is_meant_to_last() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe("news", token="t")
    pilot.push("news", unsubscribe=m.UnsubscribePush(2501, "expired"))
    pilot.pass_time(1)
    pilot.answer(subscribe=m.SubscribeResult())
    pilot.push("news", unsubscribe=m.UnsubscribePush(2000, "server unsubscribe"))
    assert pilot.events[-1] == Unsubscribed("news", 2000, "server unsubscribe")
    pilot.pass_time(20)
    assert not pilot.commands


def test_a_subscribe_that_fails_is_tried_again_and_one_that_is_refused_is_not() -> None:
    pilot = Pilot(chance=1.0)
    pilot.connect()
    subscription = pilot.register("news", min_delay_s=1.0, max_delay_s=3.0)
    for wait_s in (2.0, 3.0, 3.0):
        pilot.refuse(100, temporary=True)
        assert pilot.of(values.Error)[-1].code == 14
        pilot.pass_time(wait_s - 0.1)
        assert not pilot.commands
        pilot.pass_time(0.1)
    pilot.refuse(103)
    assert pilot.events[-1] == Unsubscribed("news", 103, "no")
    assert subscription.state is SubscriptionState.UNSUBSCRIBED


def test_a_subscribe_without_an_answer_ends_the_link() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.register("news")
    pilot.command()
    pilot.pass_time(5)
    assert pilot.events[-1] == values.Connecting(3, "subscribe timeout", 1, 0.75)
    pilot.come_back()
    pilot.answer(subscribe=m.SubscribeResult())
    pilot.do(pilot.machine.unsubscribe("news", pilot.now))
    pilot.command()
    pilot.pass_time(5)
    assert pilot.events[-1] == values.Connecting(4, "unsubscribe error", 1, 0.75)


def test_an_unsubscribe_that_the_link_took_along_is_done() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe("news")
    pilot.do(pilot.machine.unsubscribe("news", pilot.now))
    pilot.command()
    pilot.lose()
    assert [event.code for event in pilot.of(values.Connecting)] == [0, 1]


def test_a_token_of_its_own() -> None:
    pilot = Pilot()
    pilot.connect(ping=0)
    pilot.register("private", renewable=True)
    pilot.token(OSError("down"))
    assert pilot.of(values.Error)[-1] == values.Error(8, pilot.of(values.Error)[-1].error, "private")
    pilot.pass_time(1)
    assert pilot.token("old") == "private"
    pilot.refuse(109)
    pilot.pass_time(1.5)
    pilot.token("new")
    command = pilot.answer(subscribe=m.SubscribeResult(expires=True, ttl=10))
    assert command.subscribe
    assert command.subscribe.token == "new"
    pilot.pass_time(9)
    pilot.token(OSError("down"))
    assert pilot.of(values.Error)[-1].code == 9
    pilot.pass_time(7.5)
    pilot.token("newer")
    command = pilot.answer(sub_refresh=m.SubRefreshResult(expires=True, ttl=10))
    assert command.sub_refresh == m.SubRefreshRequest("private", "newer")
    pilot.pass_time(9)
    pilot.token(UnauthorizedError())
    assert pilot.events[-1] == Unsubscribed("private", 1, "unauthorized")
    assert pilot.command().unsubscribe


def test_a_token_that_is_refused_or_comes_too_late() -> None:
    pilot = Pilot()
    pilot.register("private", renewable=True)
    pilot.connect(ping=0)
    pilot.lose()
    pilot.come_back(ping=0)
    pilot.token("of the link that was lost")
    assert not pilot.commands
    pilot.token("")
    assert pilot.events[-1] == Unsubscribed("private", 1, "unauthorized")
    assert not pilot.commands
    pilot.do(pilot.machine.subscribe("private", pilot.now))
    pilot.token("t")
    pilot.answer(subscribe=m.SubscribeResult(expires=True, ttl=10))
    pilot.pass_time(9)
    pilot.token("t2")
    command = pilot.command()
    pilot.push("private", unsubscribe=m.UnsubscribePush(2000, "over"))
    pilot.hear(m.Reply(command.id, sub_refresh=m.SubRefreshResult(expires=True, ttl=10)))
    pilot.pass_time(60)
    assert not pilot.asked


@pytest.mark.parametrize("code", [103, 109, 110])
def test_a_renewed_token_that_expired_on_its_way_makes_it_subscribe_again(code: int) -> None:
    pilot = Pilot()
    pilot.connect(ping=0)
    pilot.register("private", renewable=True)
    pilot.token("first")
    pilot.answer(subscribe=m.SubscribeResult(expires=True, ttl=10))
    pilot.pass_time(9)
    pilot.token("expired")
    command = pilot.command()
    pilot.push("private", unsubscribe=m.UnsubscribePush(2501, "subscription expired"))
    pilot.hear(m.Reply(command.id, m.ErrorMessage(code, "expired")))
    pilot.pass_time(1.5)
    pilot.token("third")
    command = pilot.answer(subscribe=m.SubscribeResult())
    assert command.subscribe
    assert command.subscribe.token == "third"
    assert not pilot.of(Unsubscribed)


def test_an_expired_token_without_another_ends_it() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.register("private", token="old")
    pilot.refuse(109)
    assert pilot.events[-1] == Unsubscribed("private", 109, "no")


# The server's own


def test_server_side_subscriptions() -> None:
    pilot = Pilot()
    pilot.connect(subs={"a": m.SubscribeResult(**RECOVERABLE), "b": m.SubscribeResult(data=m.payload(1))})
    assert pilot.of(Subscribed) == [
        Subscribed("a", True, False, m.StreamPosition(3, "e"), False, False, None),
        Subscribed("b", False, False, None, False, False, 1),
    ]
    pilot.push("c", subscribe=m.SubscribePush(recoverable=True, epoch="g", offset=1))
    pilot.publish("a", 4, 5, 5)
    pilot.publish("b", 0, 0)
    pilot.publish("c", 2)
    pilot.push("b", join=m.Join(ANN))
    pilot.push("b", leave=m.Leave(ANN))
    pilot.push("b")
    assert pilot.data == [4, 5, 0, 0, 2]
    pilot.push("c", unsubscribe=m.UnsubscribePush(2000, "why"))
    assert pilot.events[-1] == Unsubscribed("c", 2000, "why")
    pilot.lose()
    assert pilot.events[-3:-1] == [
        Subscribing("a", 1, "transport closed"),
        Subscribing("b", 1, "transport closed"),
    ]
    told = len(pilot.of(Subscribing))
    pilot.wait()
    pilot.lose()
    assert len(pilot.of(Subscribing)) == told
    asked = pilot.come_back(subs={"a": recovered(5, 6, since=5)})
    assert asked.subs == {"a": m.SubscribeRequest(recover=True, epoch="e", offset=5)}
    assert pilot.data == [4, 5, 0, 0, 2, 6]
    assert pilot.of(Unsubscribed)[-1] == Unsubscribed("b", 0, "")
    pilot.lose()
    assert pilot.come_back().subs["a"].offset == 6


def test_a_position_is_forgotten_and_a_token_that_cannot_be_had_anew_is_not() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe("news", RECOVERABLE, token="t")
    pilot.push("news", unsubscribe=m.UnsubscribePush(2502, "state invalidated"))
    pilot.pass_time(1)
    request = pilot.command().subscribe
    assert request
    assert (request.token, request.recover) == ("t", False)


def test_one_that_was_left_stays_so_over_a_reconnect() -> None:
    pilot = Pilot()
    pilot.register("news")
    pilot.do(pilot.machine.unsubscribe("news", pilot.now))
    pilot.connect()
    assert not pilot.commands


def test_an_empty_answer_leaves_what_was_there() -> None:
    pilot = Pilot()
    pilot.connect(subs={"a": m.SubscribeResult()})
    pilot.lose()
    pilot.come_back()
    assert pilot.of(Unsubscribed) == [Unsubscribed("a", 0, "")]


def quoted(offset: int, text: str | bytes, *, delta: bool = False) -> m.Push:
    """A publication as those get it who take deltas."""
    return m.Push(channel="news", pub=m.Publication(Quoted(text), offset=offset, delta=delta))


def test_deltas_and_a_filter_are_asked_for_and_deltas_undone() -> None:
    pilot = Pilot()
    pilot.connect()
    wanted = m.FilterNode(key="kind", cmp="eq", val="goal")
    pilot.register("news", delta="fossil", tags_filter=wanted, recoverable=True)
    command = pilot.answer(subscribe=m.SubscribeResult(delta=True, recoverable=True, epoch="e", offset=3))
    assert command.subscribe
    assert (command.subscribe.delta, command.subscribe.tf) == ("fossil", wanted)
    texts = [f'{{"text": "{"é" * 40}", "n": {number}}}' for number in range(4)]
    deltas = [create(one.encode(), other.encode()).decode() for one, other in pairwise(texts)]
    pilot.hear(
        m.Reply(push=quoted(4, texts[0])),
        m.Reply(push=quoted(5, deltas[0], delta=True)),
        m.Reply(push=quoted(5, deltas[1], delta=True)),  # was seen, and is the base of the next all the same
        m.Reply(push=quoted(6, deltas[2], delta=True)),
    )
    assert [each["n"] for each in pilot.data] == [0, 1, 3]
    # A new subscription is a new chain; what was missed is one too.
    pilot.lose()
    pilot.come_back()
    missed = [quoted(7, texts[1]).pub, quoted(8, deltas[1], delta=True).pub]
    result = recovered(since=6)
    result.publications, result.delta = missed, True  # type: ignore[assignment]
    pilot.answer(subscribe=result)
    pilot.hear(m.Reply(push=quoted(9, deltas[2], delta=True)))
    assert [each["n"] for each in pilot.data] == [0, 1, 3, 1, 2, 3]


def test_a_hub_that_sends_no_deltas_is_read_as_ever() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe("news", delta="fossil")
    pilot.publish("news", 1)
    assert pilot.data == [1]


def test_a_binary_payload_is_whole_and_ends_the_chain() -> None:
    chain = DeltaDecoder(CODECS["msgpack"])
    server = MessagePackCodec()

    def heard(push: m.Push) -> Any:
        [reply] = CODECS["msgpack"].decode(server.encode(m.Reply(push=push)))
        assert reply.push
        assert reply.push.pub
        return chain.value(reply.push.pub)

    assert heard(quoted(1, "[1]")) == [1]
    assert heard(quoted(2, create(b"[1]", b"[1,2]").decode(), delta=True)) == [1, 2]
    assert heard(quoted(3, b"\x00\xff")) == b"\x00\xff"
    with pytest.raises(ValueError, match="a delta of nothing"):
        heard(quoted(4, "x", delta=True))


@pytest.mark.parametrize("push", [quoted(1, "{"), quoted(1, "x", delta=True), quoted(1, "[" * 100_000)])
def test_a_payload_that_is_none_of_a_hubs_ends_the_client(push: m.Push) -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe("news", {"delta": True}, delta="fossil")
    pilot.hear(m.Reply(push=push))
    assert pilot.of(values.Disconnected) == [values.Disconnected(2, "bad protocol")]
    pilot = Pilot()
    pilot.connect()
    pilot.subscribe("news", {"delta": True}, delta="fossil")
    pilot.publish("news", 1)  # not quoted
    assert pilot.of(values.Disconnected) == [values.Disconnected(2, "bad protocol")]


def test_a_refused_subscribe_is_an_error_before_the_end() -> None:
    pilot = Pilot()
    pilot.connect()
    pilot.register("private")
    pilot.do(pilot.machine.subscribe("private", pilot.now))
    pilot.refuse(103)
    error, end = pilot.events[-2:]
    assert isinstance(error, values.Error)
    assert (error.code, error.channel, error.answer) == (14, "private", "error 103: no")
    assert end == values.Unsubscribed("private", 103, "no")
