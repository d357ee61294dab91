"""`TestHub`: its time, its broker, and what one test leaves to the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from support.limits import WAIT_S
from support.shop import CHANNELS, KEYS, NO_REDIS, SECRET, running_shop, shop

from hub import (
    DisconnectEvent,
    Hub,
    NotStartedError,
    RequestError,
    RPCEvent,
    Settings,
    SetupError,
    create_app,
)
from hub.settings import ClientSettings, RedisSettings
from hub.testing import (
    ClientError,
    Joined,
    LeakedTasksError,
    Left,
    TestHub,
)

# Time


async def test_pings_keep_a_client_over_any_time() -> None:
    async with running_shop() as (hub, _):
        ann = await hub.connect(user="ann")
        await ann.subscribe("room:1")
        began = time.monotonic()
        await hub.advance(86_400)
        assert time.monotonic() - began < WAIT_S
        assert ann.is_connected
        assert len(await ann.presence("room:1")) == 1


async def test_positions_are_kept_for_those_who_follow() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await inner.publish("orders:1", 1)
        await hub.advance(3 * 86_400)
        await inner.publish("orders:1", 2)
        assert [(await ann.next()).pub.offset for _ in range(2)] == [1, 2]


async def test_advance_needs_no_await() -> None:
    async with running_shop() as (hub, inner):
        await inner.publish("orders:1", 1)
        hub.advance(30)
        hub.advance(31)
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        assert (await ann.history("orders:1")).publications == []
        with pytest.raises(ValueError, match="time passes forward only"):
            hub.advance(-1)


async def test_history_ends_with_its_time_to_live() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await inner.publish("orders:1", 1)
        await hub.advance(59.9)
        assert len((await ann.history("orders:1")).publications) == 1
        await hub.advance(0.2)
        assert (await ann.history("orders:1")).publications == []


async def test_a_session_ends_with_the_disconnect_grace() -> None:
    app, inner = shop()
    gone: list[str] = []

    @inner.on_disconnect
    def left(event: DisconnectEvent) -> None:
        gone.append(event.user)

    grace_s = ClientSettings().reconnect.presence_grace_s
    async with TestHub(app) as hub:
        ann, bob = await hub.connect(user="ann"), await hub.connect(user="bob")
        for client in (ann, bob):
            await client.subscribe("room:1", join_leave=True)
        await ann.drop_link()
        await hub.advance(grace_s - 1)
        assert gone == []
        assert {info.user for info in (await inner.presence("room:1")).values()} == {"ann", "bob"}
        await hub.advance(2)
        assert gone == ["ann"]
        assert (await bob.next(Left)).info.user == "ann"
        assert {info.user for info in (await inner.presence("room:1")).values()} == {"bob"}


async def test_a_token_expires() -> None:
    async with running_shop(client=ClientSettings(token=KEYS)) as (hub, _):
        claims = {"sub": "ann", "exp": int(time.time()) + 600}
        token = jwt.encode(claims, SECRET, algorithm="HS256")
        ann = await hub.connect(token=token)
        await hub.advance(500)
        assert ann.is_connected
        await hub.advance(200)
        assert not ann.is_connected
        with pytest.raises(ClientError, match="token expired"):
            await hub.connect(token=token)


async def test_a_drain_takes_its_window_of_the_hubs_time() -> None:
    async with running_shop() as (hub, inner):
        for number in range(20):
            await hub.connect(user=str(number))
        draining = asyncio.create_task(inner.drain(60))
        await hub.advance(30)
        assert 0 < len(inner.node.connections) < 20
        await hub.advance(31)
        async with asyncio.timeout(WAIT_S):
            await draining
        assert len(inner.node.connections) == 0


# Redis


async def test_while_redis_is_away_the_hub_is_degraded_and_afterwards_it_is_whole() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        for channel in ("orders:1", "room:1", "local:1"):
            await ann.subscribe(channel, join_leave=channel == "room:1")
        await ann.next(Joined)
        assert hub.state == "healthy"
        with hub.redis_away():
            assert hub.state == "degraded"
            with pytest.raises(RequestError) as failed:
                await inner.publish("orders:1", 1)
            assert failed.value.temporary
            with pytest.raises(ClientError) as refused:
                await ann.publish("orders:1", 1)
            assert (refused.value.code, refused.value.temporary) == (100, True)
            await inner.publish("local:1", "local")
            assert (await ann.next()).data == "local"
            with pytest.raises(ClientError):
                await ann.subscribe("orders:2")
            bob = await hub.connect(user="bob")
            assert ann.is_connected
            with pytest.raises(SetupError, match="away already"), hub.redis_away():
                pass
            assert hub.state == "degraded"
        await hub.advance(0)
        assert hub.state == "healthy"
        assert hub.published("orders:1") == []
        await inner.publish("orders:1", 2)
        assert (await ann.next()).data == 2
        await ann.subscribe("orders:2")
        await bob.subscribe("room:1")
        assert (await ann.next(Joined)).info.user == "bob"


async def test_a_client_that_came_back_while_redis_was_away_recovers_afterwards() -> None:
    async with running_shop() as (hub, inner):
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        await ann.drop_link()
        await inner.publish("orders:1", "missed")
        with hub.redis_away():
            await ann.reconnect()
            assert ann.is_connected
            assert ann.channels == []
        await hub.advance(30)
        assert ann.channels == ["orders:1"]
        assert (await ann.next()).data == "missed"


# Isolation


async def test_nothing_goes_from_one_test_to_the_next() -> None:
    app, inner = shop()
    for _ in range(3):
        async with TestHub(app) as hub:
            ann = await hub.connect(user="ann")
            assert (await ann.subscribe("orders:1")).stream_position.offset == 0  # type: ignore[union-attr]
            assert await inner.presence("room:1") == {}
            assert hub.published("orders:1") == []
            await ann.subscribe("room:1")
            await inner.publish("orders:1", 1)
            await hub.advance(100)
            assert inner.node.clock.unix() == pytest.approx(time.time() + 100, abs=60)

            @inner.on_rpc
            def rpc(event: RPCEvent) -> None:
                """Each test may register it: the hub forgets it."""

        with pytest.raises(NotStartedError):
            await inner.publish("orders:1", 1)


async def test_the_hub_lives_as_before_after_a_test() -> None:
    app, inner = shop(redis=RedisSettings())
    usual = inner.node.environment
    async with TestHub(app) as hub:
        await hub.connect(user="ann")
    assert inner.node.environment is usual
    async with inner.lifespan():
        assert type(inner.node.broker).__name__ == "MemoryBroker"
        with pytest.raises(SetupError, match="the hub is running"):
            async with TestHub(app):
                pass


async def test_a_test_that_fails_leaves_nothing_behind() -> None:
    app, _ = shop()

    async def fail() -> None:
        async with TestHub(app) as hub:
            await hub.connect(user="ann")
            hub.advance(1000)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with TestHub(app) as hub:
        with pytest.raises(SetupError, match="in a TestHub already"):
            async with TestHub(app):
                pass
        await hub.connect(user="ann")


async def test_a_task_that_goes_on_fails_the_test_and_is_named() -> None:
    app, inner = shop()
    tasks = []

    async def forgotten() -> None:
        await asyncio.sleep(3600)

    @inner.on_rpc
    async def rpc(event: RPCEvent) -> None:
        tasks.append(asyncio.create_task(forgotten()))

    with pytest.raises(
        LeakedTasksError, match=r"a task went on after the app had ended: .*forgotten at .*\.py:\d+"
    ):
        async with TestHub(app) as hub:
            await (await hub.connect(user="ann")).rpc("a")
    assert tasks[0].cancelled()

    async def fail() -> None:
        async with TestHub(app) as hub:
            await (await hub.connect(user="ann")).rpc("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert tasks[1].cancelled()


async def test_the_apps_lifespan_runs_in_one_task_and_its_state_is_there() -> None:
    told: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        task = asyncio.current_task()
        await hub.publish("news:1", "up")
        yield {"database": "open"}
        assert asyncio.current_task() is task
        told.append("closed")

    class Look:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                told.append(scope["state"])
            await self.app(scope, receive, send)

    hub = Hub(Settings(channels=CHANNELS))
    app = Starlette(lifespan=lifespan, middleware=[Middleware(Look)])
    hub.install(app, "/live")
    test = TestHub(app)
    await asyncio.create_task(test.__aenter__())
    await asyncio.create_task(test.connect(user="ann"))
    await asyncio.create_task(test.__aexit__(None, None, None))
    assert told == [{"database": "open"}, "closed"]
    assert [each.data for each in test.published("news:1")] == ["up"]


async def test_a_lifespan_that_fails_says_why() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    hub = Hub(Settings(channels=CHANNELS))
    app = Starlette(lifespan=lifespan)
    hub.install(app)
    for _ in range(2):
        with pytest.raises(ValueError, match="no database"):
            async with TestHub(app):
                pass


# Which hub


async def test_the_hub_of_any_app_is_found() -> None:
    settings = Settings(client=ClientSettings(anonymous=True), channels=CHANNELS)
    async with TestHub(create_app(settings)) as test:
        await test.connect()
    hub = Hub(settings)
    app = Starlette(routes=[Mount("/own", routes=hub.routes())], lifespan=hub.lifespan)
    with pytest.raises(SetupError, match=r"Starlette has no hub: .*app\.state\.hubs = \[hub\]"):
        TestHub(app)
    app.state.hubs = [hub]
    async with TestHub(app, path="/own/") as test:
        await test.connect()
    async with TestHub(app) as test:
        with pytest.raises(ClientError, match="HTTP 403 at /connection/websocket"):
            await test.connect()


async def test_an_app_with_several_hubs_names_one() -> None:
    app, one = shop()
    two = Hub(Settings(client=ClientSettings(anonymous=True), redis=NO_REDIS, channels=CHANNELS))
    two.install(app, "/two")
    with pytest.raises(SetupError, match="the app has 2 hubs, at /live, /two: name one"):
        TestHub(app)
    with pytest.raises(SetupError, match="the app has no hub at /three, but at /live, /two"):
        TestHub(app, path="/three")
    async with TestHub(app, path="/two") as hub:
        client = await hub.connect(user="ann")
        await client.subscribe("news:1")
        await two.publish("news:1", "two")
        assert (await client.next()).data == "two"
        with hub.redis_away():
            assert (one.node.state, two.node.state) == ("degraded", "degraded")


async def test_wrong_arguments_are_told() -> None:
    app, _ = shop()
    with pytest.raises(NotStartedError, match="async with TestHub"):
        await TestHub(app).connect(user="ann")
    with pytest.raises(NotStartedError):
        TestHub(app).advance(1)
    async with TestHub(app) as hub:
        with pytest.raises(TypeError, match="a user is a str, such as 'ann', not 7"):
            await hub.connect(user=7)  # type: ignore[arg-type]
        with pytest.raises(SetupError, match="a user or a token"):
            await hub.connect(user="ann", token="token")
