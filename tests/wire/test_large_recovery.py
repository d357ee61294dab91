"""A recovery that is larger than the outbox: what fits is in the reply, the rest follows as it is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from centrifuge import DeltaType, Filter  # type: ignore[import-untyped]
from msgspec import Raw
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected, until_gone
from support.proxy import Proxy

from hub import Hub
from hub.protocol import api
from hub.protocol.codes import Disconnects, Unsubscribes

OUTBOX_BYTES = 65_536
TEXT = "x" * 8_000
SMALL = {"outbox_bytes_max": OUTBOX_BYTES}


async def publish(hub: Hub, channel: str, count: int) -> Any:
    """Publish so many times. Returns the position after the last."""
    for _ in range(count):
        position = await hub.publish(channel, Raw(json.dumps(TEXT).encode()))
    return position


def slow_ends(hub: Hub) -> float:
    """How many connections ended since they read too slowly."""
    return float(hub.metrics.disconnects.labels(Disconnects.SLOW.code)._value.get())


async def test_all_of_it_comes_once_and_in_order_over_a_slow_link_that_breaks() -> None:
    channels = ("own:a", "own:b", "news:a")
    made = sdk.token("ann", channels=channels[:2])
    async with (
        sdk.live(sdk.settings(SMALL)) as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=made, min_reconnect_delay=0.01) as (client, own),
    ):
        _, news = await sdk.subscribe(client, "news:a")
        proxy.go_down()
        await news.count("subscribing", 2)
        for channel in channels:
            await publish(hub, channel, 300)
        proxy.bytes_per_s = 12_000_000
        proxy.come_up()
        await news.count("publication", 100)
        proxy.cut()
        for _ in range(60):  # live ones, behind those of the history
            for channel in channels:
                await hub.publish(channel, "live")
            await asyncio.sleep(0.002)
        everything = list(range(1, 361))
        for events, channel in ((own, "own:a"), (own, "own:b"), (news, "news:a")):
            async with asyncio.timeout(WAIT_S):
                while len(offsets := _offsets(events, channel)) < len(everything):  # noqa: ASYNC110 - of many
                    await asyncio.sleep(0.01)
            assert offsets == everything, channel
        assert all(each.recovered for each in news.of("subscribed")[1:])
        assert slow_ends(hub) == 0
        await publish(hub, "news:a", 1)
        await news.count("publication", 361)


def _offsets(events: sdk.Events, channel: str) -> list[int]:
    return [
        each.pub.offset for each in events.of("publication") if getattr(each, "channel", channel) == channel
    ]


@asynccontextmanager
async def stalled(hub: Hub, port: int, channels: list[str], count: int) -> AsyncIterator[Peer]:
    """A client that misses so much in each channel, asks for all of it at once, and reads nothing yet."""
    since = {channel: await hub.publish(channel, 0) for channel in channels}
    for channel in channels:
        await publish(hub, channel, count)
    async with unconnected(port, receive_buffer_bytes=4096) as peer:
        await peer.ask(command(1, "connect", token=sdk.token("ann")))
        peer.socket.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(
            *(
                command(
                    number,
                    "subscribe",
                    channel=channel,
                    recoverable=True,
                    recover=True,
                    epoch=at.epoch,
                    offset=at.offset,
                )
                for number, (channel, at) in enumerate(since.items(), 2)
            )
        )
        [connection] = hub.node.registry.of_user("ann")
        async with asyncio.timeout(WAIT_S):
            while not connection.is_backlogged or len(connection.session.subscriptions) < len(channels):  # noqa: ASYNC110 - the node tells nobody
                await asyncio.sleep(0.01)
        yield peer


def resume(peer: Peer) -> None:
    peer.socket.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def taken(peer: Peer, last: dict[str, int]) -> dict[str, list[int]]:
    """The offsets that came of each channel, until the last of each is there."""
    came: dict[str, list[int]] = {channel: [] for channel in last}
    asked = list(last)
    while any(offsets[-1:] != [last[channel]] for channel, offsets in came.items()):
        line = await peer.line()
        assert len(line) < 65_536
        reply = json.loads(line)
        if "push" in reply:
            came[reply["push"]["channel"]].append(reply["push"]["pub"].get("offset", 0))
        else:
            result = reply["subscribe"]
            assert (result["recovered"], result["offset"]) == (True, 1)
            pubs = result.get("publications", [])
            came[asked[reply["id"] - 2]] += [each["offset"] for each in pubs]
    return came


async def test_a_burst_of_recoveries_costs_no_more_than_one() -> None:
    channels = [f"news:{number}" for number in range(20)]
    async with sdk.live(sdk.settings(SMALL)) as (hub, server):
        async with stalled(hub, server.port, channels, 60) as peer:
            [connection] = hub.node.connections
            waiting = connection.transport._transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert waiting + connection.waiting_bytes < 2 * OUTBOX_BYTES
            await publish(hub, channels[0], 50)
            assert connection.waiting_bytes < OUTBOX_BYTES
            resume(peer)
            last = dict.fromkeys(channels, 61) | {channels[0]: 111}
            came = await taken(peer, last)
            assert came == {channel: list(range(2, last[channel] + 1)) for channel in channels}
            assert slow_ends(hub) == 0
            await hub.publish(channels[3], "live")
            assert (await peer.reply())["push"]["pub"]["data"] == "live"
        await until_gone(hub.node)
        assert hub.node.registry.channels == {}
        assert not hub.node.backfill._behind


async def test_deltas_and_filters_go_through_all_pages() -> None:
    rows = [{"player": f"Spieler {number}", "score": 0} for number in range(150)]
    async with (
        sdk.live(sdk.settings(SMALL)) as (hub, server),
        Proxy(server.port) as proxy,
        sdk.client(proxy.websocket_url, token=sdk.token("ann"), min_reconnect_delay=0.01) as (ann, _),
        sdk.client(proxy.websocket_url, token=sdk.token("bob"), min_reconnect_delay=0.01) as (bob, _),
    ):
        _, changes = await sdk.subscribe(ann, "board:a", delta=DeltaType.FOSSIL)
        _, goals = await sdk.subscribe(bob, "board:a", tags_filter=Filter.eq("kind", "goal"))
        turn = hub.node.backfill._send_page
        pages: list[int] = []

        def count(connection: Any, subscription: Any, missed: Any) -> None:
            pages.append(len(missed))
            turn(connection, subscription, missed)

        hub.node.backfill._send_page = count  # type: ignore[method-assign]
        proxy.go_down()
        await changes.count("subscribing", 2)
        await goals.count("subscribing", 2)
        sent = []
        for number in range(60):
            rows[number]["score"] = number
            sent.append([dict(row) for row in rows])
            await hub.publish("board:a", sent[-1], tags={"kind": "foul" if number % 3 else "goal"})
        proxy.come_up()
        await changes.count("publication", 60)
        await goals.count("publication", 20)
        assert changes.data == sent
        assert goals.data == sent[::3]
        assert len(pages) > 10
        assert hub.node.deltas.computed < 60
        # Live from there on.
        await hub.publish("board:a", rows, tags={"kind": "goal"})
        await changes.count("publication", 61)
        await goals.count("publication", 21)
        assert (changes.data[-1], goals.data[-1]) == (rows, rows)
        assert all(each.recovered for events in (changes, goals) for each in events.of("subscribed")[1:])


async def told(peer: Peer) -> Any:
    """The next unsubscribe, or what else is no publication."""
    while True:
        reply = await peer.reply()
        if "pub" not in reply.get("push", {}) and "subscribe" not in reply:
            return reply


async def test_who_is_too_slow_for_the_history_is_told() -> None:
    async with (
        sdk.live(sdk.settings(SMALL)) as (hub, server),
        stalled(hub, server.port, ["news:a", "news:b"], 990) as peer,
    ):
        await publish(hub, "news:a", 1_500)
        resume(peer)
        assert (await told(peer))["push"] == {
            "channel": "news:a",
            "unsubscribe": {
                "code": Unsubscribes.INSUFFICIENT_STATE.code,
                "reason": Unsubscribes.INSUFFICIENT_STATE.reason,
            },
        }
        await hub.publish("news:b", "last")
        while (reply := await peer.reply())["push"]["pub"]["data"] != "last":
            assert reply["push"]["channel"] == "news:b"
        assert reply["push"]["pub"]["offset"] == 992


async def test_a_history_that_is_removed_meanwhile_is_told() -> None:
    async with (
        sdk.live(sdk.settings(SMALL)) as (hub, server),
        stalled(hub, server.port, ["news:a"], 990) as peer,
    ):
        await hub.request("history_remove", api.HistoryRemoveRequest(channel="news:a"))
        resume(peer)
        assert (await told(peer))["push"]["unsubscribe"]["code"] == Unsubscribes.INSUFFICIENT_STATE.code


async def test_what_is_in_no_history_is_heard_at_once_and_an_unsubscribe_ends_it() -> None:
    async with (
        sdk.live(sdk.settings(SMALL)) as (hub, server),
        stalled(hub, server.port, ["chat:a"], 990) as peer,
        connected(server.port, sdk.token("ben")) as ben,
    ):
        await ben.ask(command(2, "subscribe", channel="chat:a"))
        assert hub.node.registry.channels["chat:a"].subscribers == 2
        await hub.publish("chat:a", "aside", skip_history=True)
        peer.send(command(9, "unsubscribe", channel="chat:a"))
        resume(peer)
        heard: list[Any] = []
        while "unsubscribe" not in (reply := await peer.reply()):
            if "push" in reply:
                heard.append(reply["push"]["pub"])
        assert [each["data"] for each in heard if "offset" not in each] == ["aside"]
        assert 0 < len(heard) < 990
        await hub.publish("chat:a", "more")
        assert (await peer.ask(command(10, "ping")))[0]["id"] == 10
