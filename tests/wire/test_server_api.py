"""The server API with plain Python values: the same calls of `Hub`, `AsyncPublisher` and `Publisher`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from support import sdk
from support.peer import command, connected
from support.redis import RedisServer
from support.server import Running

from hub import AsyncPublisher, BroadcastError, Disconnect, Publisher, RequestError
from hub.protocol.messages import StreamPosition
from hub.protocol.values import HistoryResult


class Message(BaseModel):
    text: str


@dataclass
class Name:
    name: str


class Awaited:
    """A blocking publisher, whose calls are awaited."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(getattr(self._publisher, name), *args, **options)

        return call


@pytest.fixture(params=["Hub", "AsyncPublisher", "Publisher"])
def kind(request: pytest.FixtureRequest) -> str:
    """What makes the calls."""
    name: str = request.param
    return name


@pytest.fixture(params=[False, True], ids=["memory", "redis"])
async def setting(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[tuple[Any, Running]]:
    """What makes calls, and the server of the hub that they reach."""
    with contextlib.ExitStack() as stack:
        redis = {"url": stack.enter_context(RedisServer()).url} if request.param else {}
        async with sdk.live(sdk.settings(redis=redis)) as (hub, server):
            if kind == "Hub":
                yield hub, server
            elif kind == "AsyncPublisher":
                async with AsyncPublisher(server.url, sdk.API_KEY) as publisher:
                    yield publisher, server
            else:
                with Publisher(server.url, sdk.API_KEY) as blocking:
                    yield Awaited(blocking), server


async def test_publications_and_history(setting: tuple[Any, Running]) -> None:
    hub, _ = setting
    first = await hub.publish("chat:a", Message(text="one"), tags={"k": "v"})
    [second, other] = await hub.broadcast(["chat:a", "chat:b"], {"n": 2})
    assert (first.offset, second.offset, other.offset) == (1, 2, 1)
    history: HistoryResult = await hub.history("chat:a")
    assert [each.data for each in history.publications] == [{"text": "one"}, {"n": 2}]
    assert history.publications[0].tags == {"k": "v"}
    assert (history.offset, history.epoch) == (2, second.epoch)
    for options, offsets in (
        ({"limit": 0}, []),
        ({"limit": 1}, [1]),
        ({"since": first}, [2]),
        ({"reverse": True}, [2, 1]),
    ):
        found = (await hub.history("chat:a", **options)).publications
        assert [each.offset for each in found] == offsets
    with pytest.raises(RequestError) as failed:
        await hub.history("chat:a", since=StreamPosition(1, "another"))
    assert failed.value.code == 112
    with pytest.raises(RequestError) as failed:
        await hub.history("plain:a")
    assert failed.value.code == 108
    assert "set history_size and history_ttl_s in [channels.plain]" in str(failed.value)


async def test_a_broadcast_says_which_channels_were_refused(setting: tuple[Any, Running]) -> None:
    hub, _ = setting
    with pytest.raises(BroadcastError, match="1 of 2 channels were refused, 'nowhere:a' for one") as failed:
        await hub.broadcast(["chat:a", "nowhere:a"], 1)
    [(channel, error)] = failed.value.errors.items()
    assert (channel, error.code) == ("nowhere:a", 102)
    assert "no [channels.nowhere] is configured" in str(failed.value)
    assert (await hub.history("chat:a")).offset == 1


async def test_presence(setting: tuple[Any, Running]) -> None:
    hub, server = setting
    assert await hub.presence("chat:a") == {}
    async with connected(server.port, sdk.token("ann", info={"name": "Ann"})) as ann:
        await ann.ask(command(2, "subscribe", channel="chat:a"))
        [(client, info)] = (await hub.presence("chat:a")).items()
        assert (info.user, info.client, info.conn_info, info.chan_info) == (
            "ann",
            client,
            {"name": "Ann"},
            None,
        )
        counts = await hub.presence_stats("chat:a")
        assert (counts.num_clients, counts.num_users) == (1, 1)
    with pytest.raises(RequestError) as failed:
        await hub.presence("plain:a")
    assert failed.value.code == 108


async def test_subscriptions_of_a_user(setting: tuple[Any, Running]) -> None:
    hub, server = setting
    async with connected(server.port, sdk.token("ann")) as ann:
        done = await hub.subscribe("ann", "private:a", info=Name("Ann"), data={"hello": 1})
        assert (done.confirmed, done.nodes.confirmed, done.nodes.total) == (True, 1, 1)
        assert (await ann.reply())["push"]["subscribe"]["data"] == {"hello": 1}
        assert (await ann.reply())["push"]["join"]["info"]["chan_info"] == {"name": "Ann"}
        [info] = (await hub.presence("private:a")).values()
        assert info.chan_info == {"name": "Ann"}
        assert (await hub.unsubscribe("ann", "private:a")).confirmed
        assert "unsubscribe" in (await ann.reply())["push"]
        assert (await hub.disconnect("ann", Disconnect(4500, "enough"))).confirmed
        assert await ann.closed() == (4500, "enough")


async def test_the_end_of_a_connection(setting: tuple[Any, Running]) -> None:
    hub, server = setting
    async with connected(server.port, sdk.token("ann")) as ann:
        assert (await hub.refresh("ann", expire_at=int(time.time()) + 60)).confirmed
        assert (await ann.reply())["push"]["refresh"]["ttl"] > 0
        assert (await hub.refresh("ann", expired=True)).confirmed
        assert (await ann.closed())[0] == 3005
