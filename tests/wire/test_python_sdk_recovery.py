"""The SDK from PyPI over a network that fails: nothing is skipped, nothing comes twice, and a gap is told."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from centrifuge import StreamPosition  # type: ignore[import-untyped]
from starlette.applications import Starlette
from support import sdk
from support.peer import command, connected
from support.proxy import Proxy
from support.server import running

from hub import Hub
from hub.broker.base import Stream
from hub.broker.memory import MemoryBroker
from hub.protocol import api

pytestmark = pytest.mark.usefixtures("encoding")


async def test_what_was_missed_in_a_cut_is_recovered() -> None:
    async with (
        sdk.serving() as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        _, events = await sdk.subscribe(client, "news:a")
        for number in range(3):
            await hub.publish("news:a", number)
        await events.count("publication", 3)
        proxy.go_down()
        await events.count("subscribing", 2)
        for number in range(3, 8):
            await hub.publish("news:a", number)
        proxy.come_up()
        again = (await events.count("subscribed", 2))[-1]
        assert (again.was_recovering, again.recovered) == (True, True)
        await hub.publish("news:a", 8)
        await events.count("publication", 9)
        assert events.data == list(range(9))


async def test_what_was_missed_while_unsubscribed_is_recovered() -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        subscription, events = await sdk.subscribe(client, "chat:a", recoverable=True)
        await hub.publish("chat:a", 0)
        await events.count("publication", 1)
        await subscription.unsubscribe()
        for number in range(1, 4):
            await hub.publish("chat:a", number)
        await subscription.subscribe()
        await events.count("publication", 4)
        assert events.data == [0, 1, 2, 3]
        assert events.of("subscribed")[-1].recovered


async def test_nothing_is_lost_or_doubled_in_many_cuts_under_way() -> None:
    total = 400
    async with (
        sdk.serving() as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann", channels=["own:a"])) as (client, own),
    ):
        _, events = await sdk.subscribe(client, "news:a")
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        for number in range(total):
            await hub.publish("news:a", number)
            await hub.publish("own:a", number)
            if chance.random() < 0.02:
                proxy.cut()
            await asyncio.sleep(chance.random() * 0.005)  # the cuts fall anywhere in a reconnect
        for heard in (events, own):
            await heard.count("publication", total)
            assert heard.data == list(range(total)), f"seed {seed}"
        assert len(events.of("subscribed")) > 1


class _Distant(MemoryBroker):
    """A broker whose history is read when the test says so, and comes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.read, self.answer = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def history(self, channel: str, **asked: Any) -> asyncio.Future[Stream]:
        return asyncio.ensure_future(self._history(channel, asked))

    async def _history(self, channel: str, asked: dict[str, Any]) -> Stream:
        self.asked.set()
        await self.read.wait()
        stream = await super().history(channel, **asked)
        self.asked.clear()
        await self.answer.wait()
        return stream


async def test_what_is_published_while_a_subscription_is_made_comes_once() -> None:
    broker = _Distant()
    hub = Hub(sdk.settings(), broker=broker)
    app = Starlette(routes=hub.routes(), lifespan=hub.lifespan)
    async with running(app, hub.settings) as server, connected(server.port, sdk.token("ann")) as peer:
        first = await hub.publish("news:a", 1)
        await hub.publish("news:a", 2)
        since = {"recover": True, "epoch": first.epoch, "offset": first.offset}
        peer.send(command(2, "subscribe", channel="news:a", **since))
        await broker.asked.wait()
        await hub.publish("news:a", 3)  # will be in the history, and arrives before it is read
        broker.read.set()
        while broker.asked.is_set():  # noqa: ASYNC110 - the read takes a turn of the loop
            await asyncio.sleep(0)
        await hub.publish("news:a", 4)  # is not in what was read
        broker.answer.set()
        reply = (await peer.reply())["subscribe"]
        assert reply["recovered"]
        offsets = [one["offset"] for one in reply["publications"]]
        assert offsets[:2] == [2, 3]
        await hub.publish("news:a", 5)
        while offsets[-1] < 5:  # the fourth is in the reply, or follows it
            offsets.append((await peer.reply())["push"]["pub"]["offset"])
        assert offsets == [2, 3, 4, 5]


async def test_a_position_that_history_has_lost_is_told() -> None:
    async with (
        sdk.serving() as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        _, events = await sdk.subscribe(client, "short:a")
        proxy.go_down()
        await events.count("subscribing", 2)
        for number in range(10):
            await hub.publish("short:a", number)
        proxy.come_up()
        again = (await events.count("subscribed", 2))[-1]
        assert (again.was_recovering, again.recovered) == (True, False)
        assert again.stream_position.offset == 10
        await hub.publish("short:a", 10)
        await events.count("publication", 1)
        assert events.data == [10]


async def test_a_lost_position_makes_the_app_load_its_state_again() -> None:
    async with (
        sdk.serving() as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        loaded: list[int] = []

        async def load_state(channel: str) -> StreamPosition:
            top = await hub.request("history", api.HistoryRequest(channel=channel))
            loaded.append(top.offset)
            return StreamPosition(offset=top.offset, epoch=top.epoch)

        await hub.publish("short:a", 0)
        _, events = await sdk.subscribe(client, "short:a", get_state=load_state)
        assert loaded == [1]
        proxy.go_down()
        await events.count("subscribing", 2)
        for number in range(10):
            await hub.publish("short:a", number)
        proxy.come_up()
        await events.count("subscribed", 2)
        assert loaded == [1, 11]
        await hub.publish("short:a", "live")
        await events.count("publication", 1)
        assert events.data == ["live"]


async def test_server_side_subscriptions_recover_in_the_connect_reply() -> None:
    made = sdk.token("ann", channels=["own:a", "short:a"])
    async with (
        sdk.serving() as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=made) as (_, events),
    ):
        await events.count("subscribed", 2)
        await hub.publish("own:a", 0)
        await events.count("publication", 1)
        proxy.go_down()
        await events.count("subscribing", 2)
        for number in range(1, 6):
            await hub.publish("own:a", number)
            await hub.publish("short:a", number)
        proxy.come_up()
        again = {context.channel: context for context in (await events.count("subscribed", 4))[2:]}
        assert again["own:a"].recovered
        assert not again["short:a"].recovered
        assert again["short:a"].was_recovering
        await events.count("publication", 6)
        assert events.data == [0, 1, 2, 3, 4, 5]


async def test_a_new_epoch_is_not_mistaken_for_the_old_one() -> None:
    async with (
        sdk.serving() as (first, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        _, events = await sdk.subscribe(client, "news:a")
        await first.publish("news:a", "old")
        await events.count("publication", 1)
        async with sdk.serving() as (second, other):
            await second.publish("news:a", "new")
            proxy.target = other.port
            proxy.cut()
            again = (await events.count("subscribed", 2))[-1]
            assert (again.was_recovering, again.recovered) == (True, False)
            assert events.of("subscribed")[0].stream_position.epoch != again.stream_position.epoch
            await second.publish("news:a", "newer")
            await events.count("publication", 2)
            assert events.data == ["old", "newer"]
            await client.disconnect()
