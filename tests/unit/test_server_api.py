"""hub/protocol/server_api.py: the server API with plain Python values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import Raw

from hub.errors import BroadcastError
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect
from hub.protocol.json import MalformedError
from hub.protocol.messages import NO_PAYLOAD, StreamPosition
from hub.protocol.server_api import ServerAPI, refusal
from hub.protocol.values import ClientInfo, HistoryResult, PresenceStatsResult, Publication

DONE = api.ConfirmedResult(confirmed=True, nodes=api.ConfirmedNodes(1, 1))


class Recorded(ServerAPI):
    """Keeps the request, and returns a result that was given."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.requests: list[api.Request] = []

    async def _run(self, request: api.Request) -> Any:
        self.requests.append(request)
        return self.result


@dataclass
class Order:
    number: int


def called(result: Any, call: Callable[[ServerAPI], Awaitable[Any]]) -> tuple[api.Request, Any]:
    """The request of a call, and what the call returns."""

    async def run() -> tuple[api.Request, Any]:
        recorded = Recorded(result)
        value = await call(recorded)
        [request] = recorded.requests
        return request, value

    return asyncio.run(run())


def test_publish() -> None:
    request, position = called(
        api.PublishResult(offset=3, epoch="e"),
        lambda hub: hub.publish(
            "a", Order(1), tags={"k": "v"}, skip_history=True, idempotency_key="i", delta=True
        ),
    )
    assert request == api.PublishRequest(
        channel="a",
        data=Raw(b'{"number":1}'),
        tags={"k": "v"},
        skip_history=True,
        idempotency_key="i",
        delta=True,
    )
    assert position == StreamPosition(3, "e")
    assert called(api.PublishResult(), lambda hub: hub.publish("a", b"\xff"))[0] == api.PublishRequest(
        channel="a", data=b"\xff"
    )


@pytest.mark.parametrize(
    ("data", "tags", "error", "text"),
    [
        ({"by": object()}, None, TypeError, "data.by is of type object"),
        ("\ud800", None, ValueError, "surrogate"),
        (Raw(b"{"), None, MalformedError, "too early"),
        (1, {"a": 1}, TypeError, "tags must be strings"),
    ],
)
def test_what_cannot_be_published_is_refused_before_it_is_sent(
    data: Any, tags: Any, error: type[Exception], text: str
) -> None:
    hub = Recorded(None)
    with pytest.raises(error, match=text):
        asyncio.run(hub.publish("a", data, tags=tags))
    with pytest.raises(error, match=text):
        asyncio.run(hub.broadcast(["a"], data, tags=tags))
    assert hub.requests == []


def test_broadcast() -> None:
    one, two = api.PublishResponse(result=api.PublishResult(offset=1, epoch="e")), api.PublishResponse()
    request, positions = called(
        api.BroadcastResult(responses=[one, two]),
        lambda hub: hub.broadcast(
            iter(["a", "b"]), 1, tags={"k": "v"}, skip_history=True, idempotency_key="i", delta=True
        ),
    )
    assert request == api.BroadcastRequest(
        channels=["a", "b"],
        data=Raw(b"1"),
        tags={"k": "v"},
        skip_history=True,
        idempotency_key="i",
        delta=True,
    )
    assert positions == [StreamPosition(1, "e"), StreamPosition()]


def test_a_broadcast_that_was_refused_in_part() -> None:
    refused = api.PublishResponse(error=api.ErrorResult(code=102, message="unknown channel"))
    failed = api.PublishResponse(error=api.ErrorResult(code=100, message="internal server error"))
    with pytest.raises(BroadcastError) as error:
        called(
            api.BroadcastResult(responses=[api.PublishResponse(), refused, failed]),
            lambda hub: hub.broadcast(["a", "c", "b"], 1),
        )
    assert str(error.value) == "2 of 3 channels were refused, 'c' for one: unknown channel (code 102)"
    assert {channel: each.code for channel, each in error.value.errors.items()} == {"c": 102, "b": 100}
    assert (error.value.code, error.value.temporary) == (102, False)


def test_one_string_is_no_list_of_channels() -> None:
    with pytest.raises(TypeError, match="give a list of names, not the string 'news'"):
        asyncio.run(Recorded(None).broadcast("news", 1))


def test_history() -> None:
    publications = [
        m.Publication(Raw(b'{"a":1}'), m.ClientInfo("ann", "c", Raw(b'"x"')), 1, {"k": "v"}, time=5),
        m.Publication(b"\xff", offset=2),
    ]
    request, history = called(
        api.HistoryResult(publications=publications, offset=2, epoch="e"),
        lambda hub: hub.history("a", limit=2, since=StreamPosition(0, "e"), reverse=True),
    )
    assert request == api.HistoryRequest(channel="a", limit=2, since=StreamPosition(0, "e"), reverse=True)
    first = Publication({"a": 1}, 1, ClientInfo("ann", "c", "x"), {"k": "v"}, 5)
    assert history == HistoryResult([first, Publication(b"\xff", 2)], 2, "e")
    assert called(api.HistoryResult(publications=[], offset=0, epoch="e"), lambda hub: hub.history("a"))[
        0
    ] == api.HistoryRequest(channel="a", limit=-1)


def test_presence() -> None:
    info = m.ClientInfo("ann", "c", Raw(b'{"name":"Ann"}'), Raw(b"1"))
    request, present = called(api.PresenceResult(presence={"c": info}), lambda hub: hub.presence("a"))
    assert request == api.PresenceRequest(channel="a")
    assert present == {"c": ClientInfo("ann", "c", {"name": "Ann"}, 1)}
    request, counts = called(
        api.PresenceStatsResult(num_clients=2, num_users=1), lambda hub: hub.presence_stats("a")
    )
    assert request == api.PresenceStatsRequest(channel="a")
    assert counts == PresenceStatsResult(2, 1)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda hub: hub.subscribe(
                "ann", "a", client="c", session="s", info=Order(1), data=[1], since=StreamPosition(1, "e")
            ),
            api.SubscribeRequest(
                user="ann",
                channel="a",
                client="c",
                session="s",
                info=Raw(b'{"number":1}'),
                data=Raw(b"[1]"),
                recover_since=StreamPosition(1, "e"),
            ),
        ),
        (
            lambda hub: hub.subscribe("ann", "a"),
            api.SubscribeRequest(user="ann", channel="a", info=NO_PAYLOAD, data=NO_PAYLOAD),
        ),
        (
            lambda hub: hub.unsubscribe("ann", "a", client="c", session="s"),
            api.UnsubscribeRequest(user="ann", channel="a", client="c", session="s"),
        ),
        (
            lambda hub: hub.disconnect(
                "ann", Disconnect(4000, "bye"), client="c", session="s", whitelist=["d"], revoke=True
            ),
            api.DisconnectRequest(
                user="ann",
                client="c",
                session="s",
                whitelist=["d"],
                disconnect=api.DisconnectReason(4000, "bye"),
                revoke=True,
            ),
        ),
        (
            lambda hub: hub.disconnect("ann"),
            api.DisconnectRequest(user="ann", disconnect=api.DisconnectReason(3503, "force no reconnect")),
        ),
        (
            lambda hub: hub.refresh("ann", client="c", session="s", expired=True, expire_at=9),
            api.RefreshRequest(user="ann", client="c", session="s", expired=True, expire_at=9),
        ),
    ],
)
def test_commands(call: Callable[[ServerAPI], Awaitable[Any]], expected: api.Request) -> None:
    assert called(DONE, call) == (expected, DONE)


def test_which_refusals_are_temporary() -> None:
    assert refusal(api.ErrorResult(code=100, message="x")).temporary
    assert not refusal(api.ErrorResult(code=102, message="x")).temporary
