"""The SDK from PyPI, as apps use it: every command, every kind of channel, and what the server does to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from centrifuge import ReplyError, StreamPosition  # type: ignore[import-untyped]
from support import sdk
from support.limits import WAIT_S
from support.proxy import Proxy

from hub import Disconnect, Errors, RPCEvent, RPCReply
from hub.protocol import api

pytestmark = pytest.mark.usefixtures("encoding")


async def test_connects_and_learns_its_id_and_the_version() -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (_, events),
    ):
        connected = await events.next("connected")
        assert hub.clients == [connected.client]
        assert hub.users == ["ann"]
        assert connected.version == hub.node.version


async def test_without_a_token_it_is_told_so_and_stops() -> None:
    async with sdk.serving() as (hub, server), sdk.client(server.websocket_url) as (_, events):
        assert (await events.next("disconnected")).code == Errors.UNAUTHORIZED.code
        assert not hub.clients


async def test_an_anonymous_client_where_they_are_let_in() -> None:
    configured = sdk.settings({"anonymous": True})
    async with sdk.serving(configured) as (hub, server), sdk.client(server.websocket_url) as (client, events):
        await events.next("connected")
        assert hub.users == [""]
        refused = sdk.Events()
        await client.new_subscription("plain:a", events=refused).subscribe()
        assert (await refused.next("unsubscribed")).code == Errors.PERMISSION_DENIED.code


async def test_publications_reach_every_subscriber_with_their_publisher() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann", info={"name": "Ann"})) as (ann, ann_events),
        sdk.client(server.websocket_url, token=sdk.token("bob")) as (bob, _),
    ):
        subscription, own = await sdk.subscribe(ann, "chat:a")
        _, others = await sdk.subscribe(bob, "chat:a")
        sent = [{"text": "héllo"}, [1, 2.5, None], "text", 0, False, {}]
        for payload in sent:
            await subscription.publish(payload)
        client = (await ann_events.next("connected")).client
        for events in (own, others):
            publications = [context.pub for context in await events.count("publication", len(sent))]
            assert [publication.data for publication in publications] == sent
            assert [publication.offset for publication in publications] == [1, 2, 3, 4, 5, 6]
            info = publications[0].info
            assert (info.user, info.client, info.conn_info) == ("ann", client, {"name": "Ann"})


async def test_tags_and_publications_of_the_server() -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        _, events = await sdk.subscribe(client, "plain:a")
        await hub.publish("plain:a", {"n": 1}, tags={"kind": "goal"})
        publication = (await events.next("publication")).pub
        assert (publication.data, publication.tags) == ({"n": 1}, {"kind": "goal"})
        assert publication.info is None
        assert publication.offset == 0


async def test_history_by_limit_since_and_reverse() -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        subscription, _ = await sdk.subscribe(client, "chat:a")
        for number in range(1, 11):
            await hub.publish("chat:a", number)

        async def read(**asked: Any) -> list[int]:
            return [publication.data for publication in (await subscription.history(**asked)).publications]

        top = await subscription.history(limit=0)
        assert (top.offset, top.publications) == (10, [])
        assert await read(limit=-1) == list(range(1, 11))
        assert await read(limit=3) == [1, 2, 3]
        assert await read(limit=3, reverse=True) == [10, 9, 8]
        since = StreamPosition(offset=4, epoch=top.epoch)
        assert await read(limit=-1, since=since) == [5, 6, 7, 8, 9, 10]
        assert await read(limit=2, since=since) == [5, 6]
        assert await read(limit=-1, since=since, reverse=True) == [3, 2, 1]
        with pytest.raises(ReplyError) as refused:
            await subscription.history(limit=-1, since=StreamPosition(offset=4, epoch="another"))
        assert refused.value.code == Errors.UNRECOVERABLE_POSITION.code


async def test_presence_and_its_numbers() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann", info={"name": "Ann"})) as (ann, events),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (again, _),
    ):
        subscription, _ = await sdk.subscribe(ann, "chat:a")
        second, _ = await sdk.subscribe(again, "chat:a")
        client = (await events.next("connected")).client
        present = (await subscription.presence()).clients
        assert len(present) == 2
        assert (present[client].user, present[client].conn_info) == ("ann", {"name": "Ann"})
        stats = await subscription.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 1)
        await second.unsubscribe()
        assert list((await subscription.presence()).clients) == [client]


async def test_what_is_zero_or_empty_is_a_number_a_text_or_a_map() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        stats = await client.presence_stats("readable:nobody")
        assert (stats.num_clients, stats.num_users) == (0, 0)
        assert (await client.presence("readable:nobody")).clients == {}
        history = await client.history("readable:nobody", limit=-1)
        assert (history.publications, history.offset, type(history.epoch)) == ([], 0, str)


async def test_a_client_without_a_user_is_shown_with_an_empty_user() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("")) as (client, events),
    ):
        token = sdk.subscription_token("", "chat:a")
        subscription, own = await sdk.subscribe(client, "chat:a", token=token, join_leave=True)
        await subscription.publish(1)
        me = (await events.next("connected")).client
        shown = [
            (await own.next("join")).info,
            (await own.next("publication")).pub.info,
            (await subscription.presence()).clients[me],
        ]
        assert [(info.user, info.client) for info in shown] == [("", me)] * 3


async def test_joins_and_leaves_are_told_to_those_who_ask() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (ann, _),
        sdk.client(server.websocket_url, token=sdk.token("bob")) as (bob, _),
    ):
        _, asks = await sdk.subscribe(ann, "chat:a", join_leave=True)
        assert (await asks.next("join")).info.user == "ann"
        subscription, silent = await sdk.subscribe(bob, "chat:a")
        assert (await asks.next("join")).info.user == "bob"
        await subscription.unsubscribe()
        assert (await asks.next("leave")).info.user == "bob"
        assert not silent.of("join")


async def test_rpc_is_answered_by_the_app() -> None:
    async def answer(event: RPCEvent) -> Any:
        if event.method == "add":
            return RPCReply(data=sum(event.data))
        if event.method == "leave":
            return Disconnect(4501, "you asked")
        return Errors.METHOD_NOT_FOUND

    async with (
        sdk.serving(rpc=answer) as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, events),
    ):
        assert (await client.rpc("add", [1, 2, 3])).data == 6
        with pytest.raises(ReplyError) as refused:
            await client.rpc("nothing", None)
        assert refused.value.code == Errors.METHOD_NOT_FOUND.code
        leaving = asyncio.ensure_future(client.rpc("leave", None))
        ended = await events.next("disconnected")
        assert (ended.code, ended.reason) == (4501, "you asked")
        await asyncio.gather(leaving, return_exceptions=True)


async def test_what_a_channel_does_not_offer_is_refused() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, _),
    ):
        await sdk.subscribe(client, "plain:a")
        calls = {
            Errors.NOT_AVAILABLE: [
                client.history("plain:a"),
                client.presence("plain:a"),
                client.presence_stats("plain:a"),
                client.rpc("none", {}),
            ],
            Errors.PERMISSION_DENIED: [
                client.publish("chat:a", {}),
                client.history("news:a"),
                client.presence("private:a"),
            ],
            Errors.UNKNOWN_CHANNEL: [client.publish("nowhere:a", {})],
            Errors.BAD_REQUEST: [client.publish("a b", {})],
        }
        for error, asked in calls.items():
            for call in asked:
                with pytest.raises(ReplyError) as refused:
                    await call
                assert refused.value.code == error.code


async def test_a_channel_of_named_users() -> None:
    async with (
        sdk.serving() as (_, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (ann, _),
        sdk.client(server.websocket_url, token=sdk.token("eve")) as (eve, _),
    ):
        await sdk.subscribe(ann, "limited:talk#ann,bob")
        refused = sdk.Events()
        await eve.new_subscription("limited:talk#ann,bob", events=refused).subscribe()
        assert (await refused.next("unsubscribed")).code == Errors.PERMISSION_DENIED.code


async def test_server_side_subscriptions_of_the_token_and_of_the_user() -> None:
    configured = sdk.settings({"user_personal_channel": "own:#{user}"})
    made = sdk.token("ann", channels=["news:a"], subs={"private:b": {"data": {"hi": 1}, "info": {"x": 1}}})
    async with (
        sdk.serving(configured) as (hub, server),
        sdk.client(server.websocket_url, token=made) as (_, events),
    ):
        subscribed = {context.channel: context for context in await events.count("subscribed", 3)}
        assert set(subscribed) == {"news:a", "private:b", "own:#ann"}
        assert subscribed["private:b"].data == {"hi": 1}
        assert subscribed["news:a"].recoverable
        for channel in subscribed:
            await hub.publish(channel, channel)
        published = {context.channel: context.pub.data for context in await events.count("publication", 3)}
        assert published == {channel: channel for channel in subscribed}
        [present] = (await hub.presence("private:b")).values()
        assert present.user == "ann"
        assert (await events.next("join")).info.chan_info == {"x": 1}


async def test_the_server_subscribes_and_unsubscribes() -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (client, events),
    ):
        await events.next("connected")
        before = [await hub.publish("news:a", number) for number in range(3)]
        request = api.SubscribeRequest(user="ann", channel="news:a", recover_since=before[0])
        await hub.request("subscribe", request)
        assert (await events.next("subscribed")).channel == "news:a"
        await hub.publish("news:a", 3)
        await events.count("publication", 3)
        assert events.data == [1, 2, 3]

        _, chosen = await sdk.subscribe(client, "chat:a")
        for channel in ("news:a", "chat:a"):
            await hub.request("unsubscribe", api.UnsubscribeRequest(user="ann", channel=channel))
        assert (await events.next("unsubscribed")).channel == "news:a"
        assert (await chosen.next("unsubscribed")).code == 2000
        assert not hub.channels


async def test_the_server_disconnects_for_a_while_or_for_good() -> None:
    async with (
        sdk.serving() as (hub, server),
        sdk.client(server.websocket_url, token=sdk.token("ann")) as (_, events),
    ):
        first = (await events.next("connected")).client
        await events.next("connecting")
        await hub.disconnect("ann", Disconnect(4001, "come back"))
        again = await events.next("connecting")
        assert (again.code, again.reason) == (4001, "come back")
        assert (await events.next("connected")).client != first
        await hub.disconnect("ann")
        ended = await events.next("disconnected")
        assert (ended.code, ended.reason) == (3503, "force no reconnect")
        assert not hub.clients


async def test_a_thousand_channels_on_one_connection_and_again_after_a_cut() -> None:
    configured = sdk.settings({"channels_max": 1000, "message_bytes_max": 512 * 1000})
    async with (
        sdk.serving(configured) as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann"), timeout=WAIT_S) as (client, _),
    ):
        events = sdk.Events()
        for number in range(1000):
            await client.new_subscription(f"news:{number}", events=events).subscribe()
        await events.count("subscribed", 1000)
        proxy.cut()
        await events.count("subscribed", 2000)
        assert hub.subscriptions == 1000
        for number in range(1000):
            await hub.publish(f"news:{number}", number)
        await events.count("publication", 1000)
        assert sorted(events.data) == list(range(1000))
        over = sdk.Events()
        await client.new_subscription("news:one-more", events=over).subscribe()
        assert (await over.next("unsubscribed")).code == Errors.LIMIT_EXCEEDED.code
