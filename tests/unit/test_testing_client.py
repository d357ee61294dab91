"""The clients of a `TestHub`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from support.shop import CHANNELS, KEYS, SECRET, running_shop, shop, web

from hub import (
    ConnectEvent,
    ConnectReply,
    Disconnect,
    DisconnectEvent,
    Error,
    Errors,
    Hub,
    MessageEvent,
    Refusal,
    RPCEvent,
    RPCReply,
    Settings,
    SetupError,
    SubscribeEvent,
)
from hub.protocol import api
from hub.protocol.messages import FilterNode
from hub.settings import ClientSettings, TokenSettings
from hub.testing import (
    ClientError,
    Disconnected,
    Joined,
    Left,
    Message,
    NextTimeoutError,
    Published,
    Subscribing,
    TestHub,
    Unsubscribed,
)

# From the app to a client


async def test_what_an_endpoint_publishes_comes_to_a_client() -> None:
    app, _ = shop()
    async with TestHub(app) as hub, web(app) as http:
        ann = await hub.connect(user="ann")
        subscribed = await ann.subscribe("orders:1")
        assert subscribed.recoverable
        assert ann.channels == ["orders:1"]
        assert (await http.post("/orders/1/paid")).json() == {"offset": 1}
        assert (await http.post("/orders/2/paid")).json() == {"offset": 1}
        event = await ann.next()
        assert (event.channel, event.data, event.pub.offset) == ("orders:1", {"status": "paid"}, 1)
        assert [publication.data for publication in hub.published("orders:1")] == [{"status": "paid"}]
        assert ann.received == [event]
        await ann.unsubscribe("orders:1")
        await http.post("/orders/1/paid")
        await hub.advance(0)
        assert ann.received == [event]


async def test_published_lists_what_the_app_publishes_alone() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await ann.publish("orders:1", {"by": "ann"})
        await inner.publish("orders:1", {"by": "app"}, tags={"kind": "a"}, idempotency_key="once")
        await inner.publish("orders:1", {"by": "app"}, idempotency_key="once")
        await inner.publish("orders:1", b"binary", skip_history=True)
        one, two = hub.published("orders:1")
        assert (one.data, one.tags, one.offset) == ({"by": "app"}, {"kind": "a"}, 2)
        assert one.time / 1000 == pytest.approx(time.time(), abs=60)
        assert (two.data, two.offset) == (b"binary", 0)
        assert hub.published("orders:2") == []
        await hub.advance(301)
        await inner.publish("orders:1", {"by": "app"}, idempotency_key="once")
        assert len(hub.published("orders:1")) == 3


@pytest.mark.parametrize("encoding", ["json", "msgpack", "protobuf"])
async def test_clients_of_every_encoding_hear_each_other(encoding: Any) -> None:
    async with running_shop() as (hub, _):
        ann, bob = await hub.connect(user="ann", encoding=encoding), await hub.connect(user="bob")
        for client in (ann, bob):
            await client.subscribe("orders:1")
        await ann.publish("orders:1", {"text": "hello"})
        for client in (ann, bob):
            event = await client.next()
            assert event.data == {"text": "hello"}
            assert event.pub.info
            assert event.pub.info.user == "ann"
        history = await bob.history("orders:1")
        assert [each.data for each in history.publications] == [{"text": "hello"}]


async def test_rpc_messages_and_disconnects_reach_the_app() -> None:
    app, inner = shop()
    told: list[Any] = []

    @inner.on_rpc
    async def rpc(event: RPCEvent) -> RPCReply | Refusal:
        await asyncio.sleep(0)
        return (
            RPCReply([event.method, event.data]) if event.method == "echo" else Error(1000, "no such method")
        )

    @inner.on_message
    def message(event: MessageEvent) -> None:
        told.append(event.data)

    @inner.on_disconnect
    async def gone(event: DisconnectEvent) -> None:
        told.append((event.user, event.code))

    async with TestHub(app) as hub:
        ann = await hub.connect(user="ann")
        assert await ann.rpc("echo", {"a": 1}) == ["echo", {"a": 1}]
        with pytest.raises(ClientError, match="ann: rpc other: no such method") as refused:
            await ann.rpc("other")
        assert (refused.value.code, refused.value.reason) == (1000, "no such method")
        await ann.send({"typing": True})
        assert told == [{"typing": True}]
        await ann.disconnect()
        assert told[1:] == [("ann", 3000)]
        assert not ann.is_connected
        bob = await hub.connect(user="bob")
    assert told[2:] == [("bob", 3001)]
    assert not bob.is_connected


async def test_events_of_every_kind_come_by_kind() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("room:1", join_leave=True)
        assert (await ann.next(Joined)).info.user == "ann"
        bob = await hub.connect(user="bob")
        await bob.subscribe("room:1")
        assert {info.user for info in (await ann.presence("room:1")).values()} == {"ann", "bob"}
        await inner.publish("room:1", "first")
        assert (await ann.next()).data == "first"
        assert (await ann.next(Joined)).info.user == "bob"
        await bob.disconnect()
        assert (await ann.next(Left)).info.client == bob.id
        await inner.request("unsubscribe", api.UnsubscribeRequest(channel="room:1", user="ann"))
        assert (await ann.next(Unsubscribed)).code == 2000
        assert ann.channels == []
        await inner.disconnect("ann", Disconnect(4600, "banned"))
        assert await ann.next(Disconnected) == Disconnected(4600, "banned")
        with pytest.raises(ClientError, match=r"ann: next Published: banned \(code 4600\)"):
            await ann.next()
        with pytest.raises(ClientError, match="banned"):
            await ann.publish("room:1", 1)


async def test_filters_and_since() -> None:
    async with running_shop() as (hub, inner):
        await inner.publish("orders:1", 1)
        ann = await hub.connect(user="ann")
        start = await ann.subscribe("orders:1")
        assert start.stream_position
        await inner.publish("orders:1", 2)
        assert (await ann.next()).data == 2
        bob = await hub.connect(user="bob")
        again = await bob.subscribe("orders:1", since=start.stream_position)
        assert again.recovered
        assert (await bob.next()).data == 2
        await bob.subscribe("filtered:1", tags_filter=FilterNode(key="kind", cmp="eq", val="goal"))
        await inner.publish("filtered:1", "chance", tags={"kind": "chance"})
        await inner.publish("filtered:1", "goal", tags={"kind": "goal"})
        assert (await bob.next()).data == "goal"


# Who connects


async def test_a_user_is_logged_in_by_a_token_whatever_keys_the_app_has() -> None:
    keys = [
        TokenSettings(),
        KEYS,
        TokenSettings(hmac_secret=KEYS.hmac_secret, audience="shop", issuer="login"),
        TokenSettings(audience="shop"),
    ]
    for token in keys:
        app, inner = shop(client=ClientSettings(token=token))
        seen: list[ConnectEvent] = []
        inner.on_connect(seen.append)
        async with TestHub(app) as hub:
            await hub.connect(user="ann", data={"page": 1}, headers={"Cookie": "a=b"})
        [event] = seen
        assert (event.user, event.has_token, event.data) == ("ann", True, {"page": 1})
        assert event.headers["cookie"] == "a=b"


async def test_a_token_of_the_app_is_taken_and_a_foreign_one_is_not() -> None:
    async with running_shop(client=ClientSettings(token=KEYS)) as (hub, inner):
        ann = await hub.connect(token=jwt.encode({"sub": "ann"}, SECRET, algorithm="HS256"))
        await ann.subscribe("room:1")
        assert [info.user for info in (await inner.presence("room:1")).values()] == ["ann"]
        with pytest.raises(ClientError, match="client 2: connect: invalid token") as refused:
            await hub.connect(token=jwt.encode({"sub": "ann"}, "x" * 32, algorithm="HS256"))
        assert refused.value.code == 3500


async def test_a_client_that_the_app_refuses_is_told_the_code_and_the_reason() -> None:
    app, inner = shop()

    @inner.on_connect
    async def who(event: ConnectEvent) -> ConnectReply | Refusal | None:
        await asyncio.sleep(0)
        return Disconnect(4501, "banned") if event.user == "bob" else None

    async with TestHub(app) as hub:
        with pytest.raises(ClientError, match=r"client 1: connect: permission denied|unauthorized"):
            await hub.connect()
        with pytest.raises(ClientError, match=r"^bob: connect: banned \(code 4501\)$"):
            await hub.connect(user="bob")
        await hub.connect(user="ann")


async def test_a_handler_that_raises_is_error_100() -> None:
    app, inner = shop()

    @inner.on_connect
    def who(event: ConnectEvent) -> None:
        raise KeyError("no such user")

    async with TestHub(app) as hub:
        with pytest.raises(ClientError) as failed:
            await hub.connect(user="ann")
    assert (failed.value.code, failed.value.temporary) == (100, True)


async def test_a_refused_subscribe_raises_and_may_be_tried_again() -> None:
    app, inner = shop()
    allowed: list[str] = []

    @inner.on_subscribe
    def may(event: SubscribeEvent) -> Refusal | None:
        return None if event.channel in allowed else Errors.PERMISSION_DENIED

    async with TestHub(app) as hub:
        ann = await hub.connect(user="ann")
        with pytest.raises(
            ClientError, match=r"^ann: subscribe to orders:1: permission denied \(code 103\)$"
        ):
            await ann.subscribe("orders:1")
        allowed.append("orders:1")
        await ann.subscribe("orders:1")
        with pytest.raises(SetupError, match="ann is subscribed to orders:1 already"):
            await ann.subscribe("orders:1")
        with pytest.raises(ClientError, match=r"subscribe to unknown:1: .*unknown.* \(code 102\)"):
            await ann.subscribe("unknown:1")
        with pytest.raises(ClientError, match=r"publish to orders:2: .* \(code 103\)"):
            await ann.publish("orders:2", 1)
        with pytest.raises(SetupError, match="ann is not subscribed to orders:2, but to orders:1"):
            await ann.unsubscribe("orders:2")


async def test_the_limits_of_the_node_hold() -> None:
    app, inner = shop()
    async with TestHub(app) as hub:
        ann = await hub.connect(user="ann")
        await inner.drain(0)
        assert hub.state == "draining"
        await hub.advance(0)
        with pytest.raises(
            ClientError, match=r"bob: connect: HTTP 503 at /live/connection/websocket: .*draining"
        ):
            await hub.connect(user="bob")
        assert not ann.is_connected


async def test_the_handshake_goes_through_the_apps_middleware() -> None:
    class Gate:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket" and (b"x-broken", b"1") in scope["headers"]:
                raise ValueError("broken")
            await self.app(scope, receive, send)

    hub = Hub(Settings(channels=CHANNELS))
    app = Starlette(middleware=[Middleware(Gate)])
    hub.install(app, "/live")
    async with TestHub(app) as test:
        await test.connect(user="ann")
        with pytest.raises(ClientError, match="origin") as refused:
            await test.connect(user="ann", headers={"origin": "https://evil.example"})
        assert refused.value.code == 0
        with pytest.raises(ClientError, match="the app raised ValueError") as broken:
            await test.connect(user="ann", headers={"x-broken": "1"})
        assert isinstance(broken.value.__cause__, ValueError)


# A broken link


async def test_a_dropped_client_stays_away_until_it_reconnects_and_misses_nothing() -> None:
    app, inner = shop()
    gone: list[str] = []
    logins: list[str] = []

    @inner.on_connect
    def who(event: ConnectEvent) -> None:
        logins.append(event.user)

    @inner.on_disconnect
    def left(event: DisconnectEvent) -> None:
        gone.append(event.user)

    async with TestHub(app) as hub:
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        client = ann.id
        ann.drop_link()
        assert not ann.is_connected
        for number in range(3):
            await inner.publish("orders:1", number)
        await hub.advance(2)
        assert ann.received == []
        assert gone == []
        await ann.reconnect()
        assert [(await ann.next()).data for _ in range(3)] == [0, 1, 2]
        await inner.publish("orders:1", "live")
        assert (await ann.next()).data == "live"
        assert ann.id == client
        assert logins == ["ann"], "the reconnect token takes the place of a login"
        await ann.reconnect()
        assert ann.id == client


@pytest.mark.parametrize("away_s", [0.0, 0.3, 3.0, 30.0, 300.0])
async def test_a_client_comes_back_after_any_time(away_s: float) -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await ann.drop_link()
        await inner.publish("orders:1", "missed")
        await hub.advance(away_s)
        assert not ann.is_connected
        await ann.reconnect()
        assert ann.channels == ["orders:1"]
        await inner.publish("orders:1", "live")
        expected = ["missed", "live"] if away_s < 60 else ["live"]
        assert [(await ann.next()).data for _ in expected] == expected


async def test_what_is_under_way_is_lost_with_the_link_and_recovered() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await ann.subscribe("news:1")
        for number in range(10):
            await inner.publish("orders:1", number)
            await inner.publish("news:1", number)
        ann.drop_link()
        await ann.reconnect()
        assert [(await ann.next()).data for _ in range(10)] == list(range(10))
        await hub.advance(0)
        assert all(event.channel == "orders:1" for event in ann.received if isinstance(event, Published))


async def test_a_client_that_is_away_can_do_nothing_and_says_so() -> None:
    async with running_shop() as (hub, _):
        ann = await hub.connect(user="ann")
        await ann.drop_link()
        for call in (
            lambda: ann.next(),
            lambda: ann.subscribe("news:1"),
            lambda: ann.publish("news:1", 1),
            lambda: ann.rpc("a"),
        ):
            with pytest.raises(
                SetupError, match=r"ann: .* away, since its link was dropped; await its reconnect"
            ):
                await call()
        with pytest.raises(SetupError, match="ann has no link to drop: it is away"):
            ann.drop_link()


async def test_a_client_that_the_hub_sends_away_comes_back_as_time_passes() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await inner.disconnect("ann", Disconnect(4000, "come back"))
        await hub.advance(0)
        assert not ann.is_connected
        assert "waiting to come back" in repr(ann)
        with pytest.raises(SetupError, match="it comes back by itself as the hub's time passes"):
            await ann.publish("orders:1", 1)
        await inner.publish("orders:1", "missed")
        await hub.advance(30)
        assert ann.is_connected
        assert (await ann.next()).data == "missed"


async def test_a_client_that_left_may_come_back() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await ann.disconnect()
        await inner.publish("orders:1", "missed")
        await ann.reconnect()
        assert (await ann.next()).data == "missed"
        await inner.disconnect("ann", Disconnect(4600, "banned"), revoke=True)
        await ann.next(Disconnected)
        await ann.reconnect()
        assert ann.is_connected


# What is said


async def test_a_next_that_waits_in_vain_says_what_came() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        with pytest.raises(
            NextTimeoutError, match="subscribed to no channel, and received nothing"
        ) as failed:
            await ann.next(timeout=0.01)
        assert isinstance(failed.value, TimeoutError)
        await ann.subscribe("orders:1")
        await ann.subscribe("room:1", join_leave=True)
        await inner.publish("orders:1", {"a": 1})
        await ann.next()
        with pytest.raises(NextTimeoutError) as failed:
            await ann.next(timeout=0.01)
        text = str(failed.value)
        assert text.startswith(
            "no Published within 0.01 s: ann is connected, is subscribed to orders:1, room:1, and"
        )
        assert "Joined(" in text
        assert "{'a': 1}" in text
        for number in range(20):
            await inner.publish("orders:1", number)
        await hub.advance(0)
        assert "received 12 more, " in ann.describe()
        with pytest.raises(NextTimeoutError, match="no Message"):
            await ann.next(Message, timeout=0.01)


async def test_a_subscription_that_lost_publications_begins_again() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        inner.node.channels.broken("orders:1")
        assert (await ann.next(Subscribing)).code == 2500
        assert ann.channels == []
        await hub.advance(2)
        assert ann.channels == ["orders:1"]
