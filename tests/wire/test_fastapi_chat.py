"""The chat of `examples/fastapi_chat.py`, tested as its own author would: with the kit of `hub.testing`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from examples.fastapi_chat import app
from hub.testing import ClientError, Joined, Left, SyncTestHub, TestHub


@pytest.fixture
async def chat() -> AsyncIterator[TestHub]:
    async with TestHub(app) as hub:
        yield hub


async def test_people_in_a_room_hear_each_other(chat: TestHub) -> None:
    ann, bob = await chat.connect(data={"name": "Ann"}), await chat.connect(data={"name": " Bob "})
    for client in (ann, bob):
        await client.subscribe("room:lobby")
    await ann.publish("room:lobby", {"text": "hello"})
    for client in (ann, bob):
        event = await client.next()
        assert event.data == {"text": "hello"}
        assert event.pub.info
        assert event.pub.info.user == "Ann"


async def test_who_says_no_name_does_not_get_in(chat: TestHub) -> None:
    wrong: list[Any] = [None, {"name": ""}, {"name": 7}, {"name": "x" * 31}, []]
    for data in wrong:
        with pytest.raises(ClientError, match="connect with data such as") as refused:
            await chat.connect(data=data)
        assert refused.value.code == 1000


async def test_what_is_no_message_is_refused(chat: TestHub) -> None:
    ann = await chat.connect(data={"name": "Ann"})
    await ann.subscribe("room:lobby")
    for data in ({"text": ""}, {"text": 7}, "hello", {"text": "x" * 501}):
        with pytest.raises(ClientError, match="bad request: ") as refused:
            await ann.publish("room:lobby", data)
        assert refused.value.code == 107
    with pytest.raises(ClientError, match=r"publish to room:other: permission denied \(code 103\)"):
        await ann.publish("room:other", {"text": "hello"})
    assert ann.received == []


async def test_who_is_in_a_room_and_who_leaves(chat: TestHub) -> None:
    ann, bob = await chat.connect(data={"name": "Ann"}), await chat.connect(data={"name": "Bob"})
    await ann.subscribe("room:lobby", join_leave=True)
    await ann.next(Joined)
    await bob.subscribe("room:lobby")
    assert (await ann.next(Joined)).info.user == "Bob"
    assert {info.user for info in (await ann.presence("room:lobby")).values()} == {"Ann", "Bob"}
    bob.drop_link()
    await chat.advance(4)
    assert len(await ann.presence("room:lobby")) == 2, "who is away for a moment is still there"
    await chat.advance(2)
    assert (await ann.next(Left)).info.user == "Bob"


async def test_nothing_is_lost_in_a_tunnel(chat: TestHub) -> None:
    ann, bob = await chat.connect(data={"name": "Ann"}), await chat.connect(data={"name": "Bob"})
    for client in (ann, bob):
        await client.subscribe("room:lobby")
    ann.drop_link()
    for number in range(20):
        await bob.publish("room:lobby", {"text": str(number)})
    await ann.reconnect()
    assert [(await ann.next()).data["text"] for _ in range(20)] == [str(number) for number in range(20)]


async def test_the_app_announces(chat: TestHub) -> None:
    ann = await chat.connect(data={"name": "Ann"})
    await ann.subscribe("room:lobby")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chat") as http:
        assert (await http.post("/rooms/lobby/announcements", json={"text": "tea"})).json() == {"offset": 1}
        assert (await http.post("/rooms/a b/announcements", json={"text": "tea"})).status_code == 400
        with chat.redis_away():
            assert (await http.post("/rooms/lobby/announcements", json={"text": "tea"})).status_code == 400
    assert (await ann.next()).data == {"text": "tea"}
    assert [each.data for each in chat.published("room:lobby")] == [{"text": "tea"}]


def test_the_same_without_async() -> None:
    with SyncTestHub(app) as chat, TestClient(app) as http:
        ann = chat.connect(data={"name": "Ann"})
        ann.subscribe("room:lobby")
        assert http.post("/rooms/lobby/announcements", json={"text": "tea"}).json() == {"offset": 1}
        assert ann.next().data == {"text": "tea"}
