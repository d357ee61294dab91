"""Mistakes in an app that a hub lives in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from support import sdk
from support.limits import WAIT_S
from support.peer import command, unconnected
from support.rawws import KEY, HandshakeError, RawWebSocket
from support.server import running, under_uvicorn

from hub import (
    ConnectEvent,
    ConnectReply,
    Disconnect,
    EventLoopError,
    Hub,
    NotStartedError,
    RequestError,
    SetupError,
)
from hub.server import run

PATH = "/live/connection/websocket"
HANDSHAKE = {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}


class Basket:
    """An object of the app, of which JSON has no form."""


def installed() -> tuple[FastAPI, Hub]:
    app = FastAPI()
    hub = Hub(sdk.settings())
    hub.install(app, "/live")
    return app, hub


def refused(call: Callable[[], object], kind: type[Exception] = SetupError) -> str:
    """The text of the exception that a call raises."""
    with pytest.raises(kind) as raised:
        call()
    return str(raised.value)


async def handshake(app: Any, path: str = PATH) -> str:
    """What the answer to a refused handshake says."""
    async with running(app, sdk.settings()) as server:
        with pytest.raises(HandshakeError) as answer:
            await RawWebSocket.connect(server.port, path)
    return answer.value.body.decode()


async def fail_to_connect(app: Any) -> None:
    """Connect to an app whose handler fails."""
    async with running(app, sdk.settings()) as server, unconnected(server.port, PATH) as peer:
        assert await peer.error(command(1, "connect")) == 100


def test_installed_twice(says: Any) -> None:
    app, hub = installed()
    says(refused(lambda: hub.install(app, "/other")))


def test_two_hubs_at_one_path(says: Any) -> None:
    app, _ = installed()
    says(refused(lambda: Hub(sdk.settings()).install(app, "/live")))


def test_path_without_slash(says: Any) -> None:
    says(refused(lambda: Hub(sdk.settings()).install(FastAPI(), "live")))


def test_forgotten_app(says: Any) -> None:
    says(refused(lambda: Hub(sdk.settings()).install("/live")))  # type: ignore[arg-type]


async def test_installed_too_late(says: Any) -> None:
    errors: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        errors.append(refused(lambda: Hub(sdk.settings()).install(app)))
        yield

    async with running(FastAPI(lifespan=lifespan), sdk.settings()):
        says(errors[0])


def test_behind_a_catch_all(says: Any) -> None:
    app = FastAPI()
    app.mount("/", Starlette())
    says(refused(lambda: Hub(sdk.settings()).install(app, "/live")))


async def test_started_twice(says: Any) -> None:
    hub = Hub(sdk.settings())
    async with hub.lifespan():
        with pytest.raises(SetupError) as raised:
            async with hub.lifespan():
                pass
    says(raised.value)


async def test_forgotten_lifespan(says: Any, log: Any) -> None:
    app = Starlette(routes=Hub(sdk.settings()).routes())
    says(await handshake(app, "/connection/websocket"))
    assert "hub.not_running" in log.events


async def test_hub_of_a_mounted_app(says: Any) -> None:
    inner, _ = installed()
    app = FastAPI()
    app.mount("/shop", inner)
    says(await handshake(app, f"/shop{PATH}"))


def test_publish_before_start(says: Any) -> None:
    _, hub = installed()
    says(refused(lambda: asyncio.run(hub.publish("news:1", 1)), NotStartedError))


async def test_publish_in_another_loop(says: Any) -> None:
    app, hub = installed()

    @app.get("/say")
    def say() -> str:
        return refused(lambda: asyncio.run(hub.publish("news:1", 1)), EventLoopError)

    says(await got(app, "/say"))


async def test_publish_from_thread_in_the_loop(says: Any) -> None:
    app, hub = installed()

    @app.get("/say")
    async def say() -> str:
        return refused(lambda: hub.publish_from_thread("news:1", 1), EventLoopError)

    says(await got(app, "/say"))


async def got(app: Any, path: str) -> Any:
    """The answer of an app to a GET."""
    async with running(app, sdk.settings()) as server, httpx.AsyncClient(timeout=WAIT_S) as client:
        return (await client.get(f"{server.url}{path}")).json()


async def test_forgotten_await(says: Any) -> None:
    _, hub = installed()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        hub.publish("news:1", 1)  # type: ignore[unused-coroutine]
        gc.collect()
    says(seen[0].message)


async def test_publish_without_a_json_form(says: Any) -> None:
    _, hub = installed()
    async with hub.lifespan():
        with pytest.raises(TypeError) as raised:
            await hub.publish("news:1", Basket())
    says(raised.value)


async def test_publish_to_an_unknown_namespace(says: Any) -> None:
    _, hub = installed()
    async with hub.lifespan():
        with pytest.raises(RequestError) as raised:
            await hub.publish("oders:1", 1)
    says(raised.value)


def test_two_handlers(says: Any) -> None:
    _, hub = installed()

    @hub.on_connect
    async def first(event: ConnectEvent) -> None: ...

    async def second(event: ConnectEvent) -> None: ...

    says(refused(lambda: hub.on_connect(second)))


def test_handler_without_arguments(says: Any) -> None:
    _, hub = installed()

    async def who(): ...  # type: ignore[no-untyped-def]

    handler: Any = who
    says(refused(lambda: hub.on_connect(handler), TypeError))


async def test_wrong_answer(says: Any, log: Any) -> None:
    app, hub = installed()

    @hub.on_connect
    async def who(event: ConnectEvent) -> Any:
        return True

    await fail_to_connect(app)
    says(log)


async def test_numeric_user(says: Any, log: Any) -> None:
    app, hub = installed()

    @hub.on_connect
    async def who(event: ConnectEvent) -> ConnectReply:
        return ConnectReply(user=7)  # type: ignore[arg-type]

    await fail_to_connect(app)
    says(log)


def test_wrong_disconnect_code(says: Any) -> None:
    says(refused(lambda: Disconnect(403, "no"), ValueError))


def test_no_hub_in_the_app(says: Any) -> None:
    says(refused(lambda: run(FastAPI(), sdk.settings())))


async def test_server_without_websockets(says: Any) -> None:
    app, _ = installed()
    headers = {**HANDSHAKE, "Connection": "Upgrade", "Upgrade": "websocket"}
    async with under_uvicorn(app, ws="none") as port, httpx.AsyncClient(timeout=WAIT_S) as client:
        says((await client.get(f"http://127.0.0.1:{port}{PATH}", headers=headers)).text)


async def test_proxy_without_upgrade(says: Any) -> None:
    # What nginx passes on where nothing sets the headers of one hop.
    app, _ = installed()
    headers = {**HANDSHAKE, "Connection": "close"}
    async with running(app, sdk.settings()) as server, httpx.AsyncClient(timeout=WAIT_S) as client:
        says((await client.get(f"{server.url}{PATH}", headers=headers)).text)
