"""A hub inside an app: in FastAPI and in Starlette, under the hub's own server and under plain uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import sys
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected, until_gone
from support.ports import free_port
from support.rawstream import StreamPeer
from support.rawws import HandshakeError, RawWebSocket
from support.server import running, under_uvicorn

from hub import (
    ClientEvent,
    ConnectEvent,
    ConnectReply,
    Depends,
    Disconnect,
    DisconnectEvent,
    Error,
    Errors,
    Hub,
    HubRouter,
    MessageEvent,
    NotStartedError,
    PublishedEvent,
    PublishEvent,
    PublishReply,
    Refusal,
    RPCEvent,
    RPCReply,
    SubscribeEvent,
    SubscribeReply,
)

PATH = "/live/connection/websocket"
Serve: TypeAlias = Callable[[Any], contextlib.AbstractAsyncContextManager[int]]


@contextlib.asynccontextmanager
async def _under_the_hubs_own(app: Any) -> AsyncIterator[int]:
    async with running(app, sdk.settings()) as server:
        yield server.port


@pytest.fixture(params=[_under_the_hubs_own, under_uvicorn], ids=["own server", "uvicorn"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """What serves an app, and gives its port."""
    made: Serve = request.param
    return made


@pytest.fixture(params=[FastAPI, Starlette], ids=["FastAPI", "Starlette"])
def app(request: pytest.FixtureRequest) -> Any:
    """An app to live in."""
    return request.param()


def install(app: Any, **client: Any) -> Hub:
    """A hub in an app, at `/live`."""
    hub = Hub(sdk.settings(client))
    hub.install(app, "/live")
    return hub


def join(port: int, user: str = "ann", **more: Any) -> contextlib.AbstractAsyncContextManager[Peer]:
    """A raw client of a user."""
    return connected(port, sdk.token(user), PATH, **more)


async def get(port: int, path: str) -> httpx.Response:
    """GET a path of an app."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


# Living together


async def test_an_sdk_and_the_app_meet_in_a_channel(serve: Serve, app: Any) -> None:
    hub = install(app)
    async with (
        serve(app) as port,
        sdk.client(f"ws://127.0.0.1:{port}{PATH}", token=sdk.token("ann")) as (client, _),
    ):
        subscription, events = await sdk.subscribe(client, "chat:a", recoverable=True)
        position = await hub.publish("chat:a", {"from": "app"}, tags={"a": "b"})
        await subscription.publish({"from": "client"})
        first, second = [context.pub for context in await events.count("publication", 2)]
        assert (first.data, first.tags, first.offset) == ({"from": "app"}, {"a": "b"}, position.offset)
        assert second.data == {"from": "client"}
        assert len((await subscription.history(limit=-1)).publications) == 2
        assert [one.user for one in (await hub.presence("chat:a")).values()] == ["ann"]
        await hub.disconnect("ann", Disconnect(4500, "enough"))
    await until_gone(hub.node)


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
async def test_the_apps_own_life_routes_and_sockets_go_on(serve: Serve, kind: Any) -> None:
    lived: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        await hub.publish("chat:a", "from the start")
        lived.append("begun")
        yield {"database": "open"}
        await hub.publish("chat:a", "from the end")
        lived.append("ended")

    async def greet(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"the database is {request.state.database}")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())

    app = kind(lifespan=lifespan)
    app.router.routes += [Route("/greet", greet), WebSocketRoute("/echo", echo)]
    hub = install(app)
    async with serve(app) as port:
        assert lived == ["begun"]
        assert (await get(port, "/greet")).text == "the database is open"
        assert (await get(port, "/live/livez")).status_code == 200
        assert (await get(port, "/live/readyz")).json() == {"status": "healthy"}
        assert "hub_connections" in (await get(port, "/live/metrics")).text
        assert (await get(port, "/connection/websocket")).status_code == 404
        document = (await get(port, "/live/api/openapi.json")).json()
        assert document["servers"] == [{"url": "/live"}]
        async with await RawWebSocket.connect(port, "/echo") as socket:
            socket.send_text("hello")
            assert await socket.read_text() == "HELLO"
        async with join(port) as peer:
            await peer.ask(command(2, "subscribe", channel="chat:a"))
            [reply] = await peer.ask(command(3, "history", channel="chat:a", limit=-1))
            assert [one["data"] for one in reply["history"]["publications"]] == ["from the start"]
    assert lived == ["begun", "ended"]


async def test_the_client_module_comes_whole(serve: Serve, app: Any) -> None:
    install(app)
    async with serve(app) as port:
        wanted = {"hub.js"}
        for name in (found := list(wanted)):
            module = await get(port, f"/live/static/{name}")
            assert module.status_code == 200, name
            assert module.headers["content-type"].startswith("text/javascript")
            for line in module.text.splitlines():
                part = line.rpartition('from "./')[2].rstrip('";')
                if 'from "./' in line and part not in found:
                    found.append(part)
        assert len(found) > 1


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("prefix", ["", "/shop"], ids=["stripped", "not stripped"])
@pytest.mark.parametrize("root_path", ["/shop", "/shop/"])
@pytest.mark.parametrize("path", ["/live", "/a/live"])
async def test_a_proxy_may_strip_a_prefix(serve: Serve, prefix: str, root_path: str, path: str) -> None:
    if root_path.endswith("/") and prefix:
        return  # FastAPI's own paths do not work either
    app = FastAPI(root_path=root_path)

    @app.get("/own")
    async def own() -> str:
        return "own"

    hub = Hub(sdk.settings())
    hub.install(app, path)
    base = prefix + path
    async with serve(app) as port:
        assert (await get(port, f"{prefix}/own")).json() == "own"
        for name in ("livez", "readyz", "metrics", "static/hub.js", "api/openapi.json"):
            assert (await get(port, f"{base}/{name}")).status_code == 200, name
        servers = (await get(port, f"{base}/api/openapi.json")).json()["servers"]
        assert servers == [{"url": root_path + path}]
        async with connected(port, sdk.token("ann"), f"{base}/connection/websocket"):
            assert len(hub.node.connections) == 1
        async with await StreamPeer.open(
            port, "http_stream", {"token": sdk.token("ann")}, prefix=base
        ) as stream:
            await stream.connected()
            assert await stream.post('{"id":2,"rpc":{"method":"a"}}') == 204
        async with httpx.AsyncClient(headers={"X-API-Key": sdk.API_KEY}, timeout=WAIT_S) as client:
            answer = await client.post(f"http://127.0.0.1:{port}{base}/api/info", json={})
            assert "result" in answer.json()
        assert (await get(port, f"{base}/nowhere")).status_code == 404


async def test_a_websocket_to_a_path_without_one_is_not_found(serve: Serve, app: Any) -> None:
    install(app)
    async with serve(app) as port:
        for path in ("/live/connection/nowhere", "/live/livez", "/live/", "/connection/websocket", "/"):
            with pytest.raises(HandshakeError) as refused:
                await RawWebSocket.connect(port, path)
            assert refused.value.status == 404, path
            assert b"clients of the hub connect to /live/connection/websocket\n" in refused.value.body, path


async def test_a_hub_that_does_not_run_says_so(app: Any) -> None:
    hub = install(app)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app", timeout=WAIT_S
    ) as client:

        async def status(path: str) -> int:
            return (await client.get(path)).status_code

        for _ in range(2):
            with pytest.raises(NotStartedError, match=r"hub\.install"):
                await hub.publish("chat:a", 1)
            assert (await status("/live/livez"), await status("/live/readyz")) == (200, 503)
            async with app.router.lifespan_context(app):
                assert (await status("/live/livez"), await status("/live/readyz")) == (200, 200)
                await hub.publish("chat:a", 1)


async def test_a_hub_whose_lifespan_is_not_run_refuses_connections(serve: Serve) -> None:
    hub = Hub(sdk.settings())
    app = Starlette(routes=hub.routes())
    async with serve(app) as port:
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(port)
        assert refused.value.status == 503
        assert b"the hub is not running: hub.install(app) runs it" in refused.value.body
        with pytest.raises(NotStartedError):
            await hub.publish("chat:a", 1)
    app = Starlette(routes=hub.routes(), lifespan=hub.lifespan)
    async with serve(app) as port, connected(port, sdk.token("ann")):
        await hub.publish("chat:a", 1)


async def test_handshakes_are_refused_as_in_a_hub_of_its_own(serve: Serve, app: Any) -> None:
    install(app)
    async with serve(app) as port:
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(port, PATH, {"Origin": "https://evil.example"})
        assert refused.value.status == 403
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(port, f"{PATH}?token=secret")
        assert refused.value.status == 400
        async with await RawWebSocket.connect(port, PATH, {"Origin": f"http://127.0.0.1:{port}"}):
            assert (await get(port, PATH)).status_code == 426


@pytest.mark.filterwarnings("ignore:Using `httpx` with")
def test_in_the_test_client_of_the_framework() -> None:
    from starlette.testclient import TestClient  # at once, it would warn of the library that it uses

    app = FastAPI()
    hub = install(app)

    @app.post("/say")
    async def say() -> None:
        await hub.publish("plain:a", "said")

    with TestClient(app) as client, client.websocket_connect(PATH) as socket:
        socket.send_text(command(1, "connect", token=sdk.token("ann")))
        assert "connect" in json.loads(socket.receive_text())
        socket.send_text(command(2, "subscribe", channel="plain:a"))
        assert json.loads(socket.receive_text()) == {"id": 2, "subscribe": {}}
        client.post("/say")
        assert json.loads(socket.receive_text())["push"]["pub"]["data"] == "said"
    assert not hub.node.connections


# What the app decides


async def test_who_connects(serve: Serve, app: Any) -> None:
    hub = install(app)
    asked: list[ConnectEvent] = []

    @hub.on_connect
    async def who(event: ConnectEvent) -> Any:
        asked.append(event)
        match event.data:
            case {"name": str(name)}:
                return ConnectReply(
                    user=name,
                    info={"name": name},
                    data={"welcome": True},
                    channels={"own:a": SubscribeReply(data="yours"), "chat:a": SubscribeReply(info="seat")},
                    ttl_s=60,
                )
            case "refuse":
                return Error(1000, "say your name")
            case "away":
                return Disconnect(4501, "away")
        return None

    async with serve(app) as port:
        async with unconnected(port, PATH) as peer:
            [reply] = await peer.ask(command(1, "connect", data={"name": "zoe"}, name="js", version="1"))
            connect = reply["connect"]
            assert connect["data"].pop("reconnect_token")
            assert connect["data"] == {"welcome": True, "message_bytes_max": 65536}
            assert (connect["expires"], connect["ttl"]) == (True, 60)
            assert connect["subs"]["own:a"]["data"] == "yours"
            [present] = (await hub.presence("chat:a")).values()
            assert (present.user, present.chan_info) == ("zoe", "seat")
            event = asked.pop()
            assert (event.user, event.name, event.version, event.has_token) == ("", "js", "1", False)
            assert event.headers["host"] == f"127.0.0.1:{port}"
            assert event.client == connect["client"]
        for data, code in (("refuse", 1000), ("nothing", 101)):
            async with unconnected(port, PATH) as peer:
                [reply] = await peer.ask(command(1, "connect", data=data))
                assert reply["error"]["code"] == code
        async with unconnected(port, PATH) as peer:
            peer.send(command(1, "connect", data="away"))
            assert await peer.closed() == (4501, "away")
        async with join(port, "bob", data="nothing"):
            assert asked[-1].has_token
            assert asked[-1].user == "bob"
            assert list(hub.node.registry.users) == ["bob"]


async def test_who_subscribes(serve: Serve, app: Any) -> None:
    hub = install(app)

    @hub.on_subscribe
    def may(event: SubscribeEvent) -> Any:
        assert event.user == "ann"
        match event.data:
            case "in":
                return SubscribeReply(info={"seat": 1}, data="welcome", ttl_s=60, join_leave=True)
            case "out":
                return Error(1003, "full")
            case "away":
                return Disconnect(4502, "away")
        return None

    async with serve(app) as port, join(port) as peer:
        [reply] = await peer.ask(command(2, "subscribe", channel="private:a", data="in"))
        assert reply["subscribe"]["data"] == "welcome"
        assert reply["subscribe"]["ttl"] == 60
        assert (await peer.reply())["push"]["join"]["info"]["chan_info"] == {"seat": 1}
        assert await peer.error(command(3, "subscribe", channel="chat:a", data="out")) == 1003
        assert await peer.error(command(4, "subscribe", channel="private:b")) == 103
        assert await peer.error(command(5, "subscribe", channel="plain:b")) == 0
        assert await peer.error(command(6, "subscribe", channel="nowhere:b", data="in")) == 102
        peer.send(command(7, "subscribe", channel="chat:b", data="away"))
        assert await peer.closed() == (4502, "away")


async def test_who_publishes_and_what(serve: Serve, app: Any) -> None:
    hub = install(app)

    @hub.on_publish
    async def decent(event: PublishEvent) -> Any:
        match event.data:
            case {"text": str(text)}:
                return PublishReply(data={"text": text.strip()}, tags={"by": event.user})
            case "passing":
                return PublishReply(skip_history=True)
            case "rude":
                return Error(1004, "be kind")
            case "away":
                return Disconnect(4503, "away")
        return None

    async with serve(app) as port, join(port) as peer:
        await peer.ask(command(2, "subscribe", channel="news:a"))
        assert await peer.error(command(3, "publish", channel="news:a", data={"text": " hi "})) == 0
        publication = (await peer.reply())["push"]["pub"]
        assert (publication["data"], publication["tags"]) == ({"text": "hi"}, {"by": "ann"})
        assert publication["info"]["user"] == "ann"
        assert await peer.error(command(4, "publish", channel="news:a", data="passing")) == 0
        assert "offset" not in (await peer.reply())["push"]["pub"]
        assert await peer.error(command(5, "publish", channel="news:a", data="rude")) == 1004
        assert await peer.error(command(6, "publish", channel="news:a", data="by the rules")) == 103
        peer.send(command(7, "publish", channel="news:a", data="away"))
        assert await peer.closed() == (4503, "away")


async def test_calls_messages_and_the_end(serve: Serve, app: Any) -> None:
    hub = install(app)
    told: asyncio.Queue[Any] = asyncio.Queue()

    @hub.on_rpc
    def answer(event: RPCEvent) -> Any:
        return RPCReply(data={event.method: event.data})

    @hub.on_message
    async def take(event: MessageEvent) -> Any:
        await told.put(event.data)
        return Disconnect(4504, "rude") if event.data == "rude" else None

    @hub.on_disconnect
    async def gone(event: DisconnectEvent) -> None:
        await told.put((event.user, event.code))

    async with serve(app) as port:
        async with join(port) as peer, join(port, "bob") as bob:
            [reply] = await peer.ask(command(2, "rpc", method="x", data=[1.5]))
            assert reply["rpc"]["data"] == {"x": [1.5]}
            peer.send('{"send":{"data":{"a":1}}}')
            async with asyncio.timeout(WAIT_S):
                assert await told.get() == {"a": 1}
                peer.send('{"send":{"data":"rude"}}')
                assert await told.get() == "rude"
                assert await told.get() == ("ann", 4504)
            assert await peer.closed() == (4504, "rude")
            await hub.disconnect("bob")
            assert (await bob.closed())[0] == 3503
            assert await told.get() == ("bob", 3503)
        async with join(port):
            pass
        async with asyncio.timeout(WAIT_S):
            assert await told.get() == ("ann", 3000)


@pytest.mark.parametrize("fault", ["raises", "returns nonsense", "returns no JSON"])
async def test_a_handler_that_fails(
    serve: Serve, app: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = install(app)

    async def broken(event: Any) -> Any:
        if fault == "raises":
            raise ZeroDivisionError
        return PublishReply(data=object()) if fault == "returns no JSON" else "yes"

    for decorate in (hub.on_subscribe, hub.on_publish, hub.on_rpc):
        decorate(broken)
    async with serve(app) as port, join(port) as peer:
        for line in (
            command(2, "subscribe", channel="chat:a"),
            command(3, "publish", channel="plain:a", data=1),
            command(4, "rpc", method="x", data=1),
        ):
            [reply] = await peer.ask(line)
            assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
        assert not hub.node.registry.channels
        hub.on_connect(broken)
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 3
    async with serve(app) as port, unconnected(port, PATH) as peer:
        [reply] = await peer.ask(command(1, "connect", token=sdk.token("ann")))
        assert reply["error"]["code"] == 100


# Handlers with types


class _ChatMessage(BaseModel):
    text: Annotated[str, Field(min_length=1, max_length=100)]


class _CancelOrder(msgspec.Struct):
    order_id: int
    lines: list[int] = []


@dataclasses.dataclass
class _Cancelled:
    order_id: int
    by: str


async def test_typed_handlers_of_a_router(serve: Serve, app: Any) -> None:
    hub = install(app)
    orders = HubRouter(prefix="own")
    kept: asyncio.Queue[Any] = asyncio.Queue()
    closed: list[str] = []

    async def current_user(event: ClientEvent) -> str:
        return event.user

    def session(user: Annotated[str, Depends(current_user)]) -> Iterator[str]:
        yield f"session of {user}"
        closed.append(user)

    @orders.on_subscribe(":{order_id}")
    async def may_follow(order_id: int) -> SubscribeReply | Refusal | None:
        return SubscribeReply(data={"order": order_id}) if order_id < 10 else Errors.PERMISSION_DENIED

    @orders.rpc(".cancel")
    async def cancel(request: _CancelOrder, user: str = Depends(current_user)) -> _Cancelled:
        return _Cancelled(request.order_id, user)

    @hub.on_publish("news:{room}")
    def said(room: str, message: _ChatMessage, session: Annotated[str, Depends(session)]) -> PublishReply:
        return PublishReply(data={"text": message.text, "room": room, "session": session})

    @hub.after_publish("news:{room}")
    async def keep(event: PublishedEvent, room: str, message: dict[str, str]) -> None:
        await kept.put((room, message["text"], event.user, event.offset, event.epoch))

    hub.include_router(orders)
    async with (
        serve(app) as port,
        sdk.client(f"ws://127.0.0.1:{port}{PATH}", token=sdk.token("ann")) as (client, _),
        join(port) as peer,
    ):
        [reply] = await peer.ask(command(2, "subscribe", channel="own:7"))
        assert reply["subscribe"]["data"] == {"order": 7}
        [reply] = await peer.ask(command(3, "subscribe", channel="own:seven"))
        assert reply["error"] == {
            "code": 107,
            "message": "bad request: order_id: Input should be a valid integer, unable to parse string as an"
            " integer",
        }
        assert await peer.error(command(4, "subscribe", channel="own:70")) == 103
        assert (await client.rpc("own.cancel", {"order_id": 7})).data == {"order_id": 7, "by": "ann"}
        [reply] = await peer.ask(command(5, "rpc", method="own.cancel", data={"order_id": 1, "lines": ["a"]}))
        assert reply["error"]["message"] == "bad request: lines.0: Expected `int`, got `str`"
        assert await peer.error(command(6, "rpc", method="own.refund", data={})) == 104
        await peer.ask(command(7, "subscribe", channel="news:a"))
        peer.send(command(8, "publish", channel="news:a", data={"text": "hi"}))
        replies = [await peer.reply(), await peer.reply()]
        [publication] = [reply["push"]["pub"] for reply in replies if "push" in reply]
        assert publication["data"] == {"text": "hi", "room": "a", "session": "session of ann"}
        position = await hub.publish("news:a", {"text": "of the app"})
        assert (await peer.reply())["push"]["pub"]["data"] == {"text": "of the app"}
        async with asyncio.timeout(WAIT_S):
            assert await kept.get() == ("a", "hi", "ann", publication["offset"], position.epoch)
        assert kept.empty()
        assert await peer.error(command(9, "publish", channel="news:a", data={"text": ""})) == 107
        assert closed == ["ann"]


async def test_the_app_is_told_of_a_publication_whose_client_left(serve: Serve, app: Any) -> None:
    hub = install(app)
    told: asyncio.Queue[str] = asyncio.Queue()

    @hub.on_publish("plain:{x}")
    async def allow(event: PublishEvent) -> PublishReply:
        return PublishReply()

    @hub.after_publish
    async def keep(event: PublishedEvent) -> None:
        await told.put(event.data)

    async with serve(app) as port:
        async with join(port) as peer:
            assert await peer.error(command(2, "publish", channel="plain:a", data="one")) == 0
            peer.send(command(3, "publish", channel="plain:a", data="two"))
        async with asyncio.timeout(WAIT_S):
            assert await told.get() == "one"


async def test_a_hook_after_a_publish_that_fails_or_hangs_hides_no_success(
    serve: Serve, app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hub = install(app)

    @hub.on_publish
    async def allow(event: PublishEvent) -> PublishReply:
        return PublishReply()

    @hub.after_publish
    def keep(event: PublishedEvent) -> None:
        raise SystemExit

    async with serve(app) as port, join(port) as peer:
        assert await peer.error(command(2, "publish", channel="plain:a", data=1)) == 0
        assert await peer.error(command(3, "publish", channel="plain:a", data=1)) == 0
    assert "after_publish" in caplog.text


async def test_the_state_of_a_connection(serve: Serve, app: Any) -> None:
    hub = install(app)
    gone: asyncio.Queue[Any] = asyncio.Queue()

    @hub.on_connect
    async def who(event: ConnectEvent) -> ConnectReply:
        event.state["agent"] = event.headers.get("x-agent", "a secret agent")
        return ConnectReply(user="ann")

    @hub.on_subscribe("own:{x}")
    async def may(event: SubscribeEvent) -> SubscribeReply:
        return SubscribeReply(data=event.state["agent"])

    @hub.rpc("count")
    def count(event: RPCEvent) -> int:
        event.state["count"] = event.state.get("count", 0) + 1
        return int(event.state["count"])

    @hub.on_disconnect
    async def left(event: DisconnectEvent) -> None:
        await gone.put(event.state)

    async with serve(app) as port:
        async with unconnected(port, PATH) as peer:
            [reply] = await peer.ask(command(1, "connect"))
            token = reply["connect"]["data"]["reconnect_token"]
            assert b"secret" not in b"".join(decoded_parts(token))
            [reply] = await peer.ask(command(2, "subscribe", channel="own:1"))
            assert reply["subscribe"]["data"] == "a secret agent"
            [reply] = await peer.ask(command(3, "rpc", method="count"))
            assert reply["rpc"]["data"] == 1
            async with asyncio.timeout(WAIT_S):
                while not peer.tokens:  # one with the changed state
                    await peer.ask(command(4, "ping"))
                    await asyncio.sleep(0.02)
            token = peer.tokens[-1]
            peer.socket.writer.transport.abort()
        async with unconnected(port, PATH) as peer:
            [reply] = await peer.ask(command(1, "connect", token=token))
            assert "connect" in reply
            [reply] = await peer.ask(command(2, "rpc", method="count"))
            assert reply["rpc"]["data"] == 2
        async with asyncio.timeout(WAIT_S):
            while await gone.get() != {"agent": "a secret agent", "count": 2}:
                pass  # of the first socket, where the hub noticed its end before the reconnect


def decoded_parts(token: str) -> list[bytes]:
    """The parts of a token, decoded as far as anybody can."""
    parts = [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
    sealed = json.loads(parts[1])["state"]
    return [*parts, urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))]


async def test_a_state_that_is_too_large_is_one_clear_error(
    serve: Serve, app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hub = install(app)

    @hub.on_connect
    async def who(event: ConnectEvent) -> ConnectReply:
        return ConnectReply(user="ann", state={"everything": "x" * 10_000})

    async with serve(app) as port, unconnected(port, PATH) as peer:
        assert await peer.error(command(1, "connect")) == 100
    assert "the state of a connection is 10017 bytes of JSON, and 4096 at the most" in caplog.text


async def test_the_asyncapi_document_is_under_the_hubs_path(serve: Serve, app: Any) -> None:
    hub = install(app)

    @hub.rpc("double")
    async def double(data: int) -> int:
        """Double a number."""
        return 2 * data

    async with serve(app) as port:
        answer = await get(port, "/live/asyncapi.json")
        assert answer.headers["content-type"] == "application/json"
        made = answer.json()
    assert made["channels"]["rpc_double"]["description"] == "Double a number."
    server = made["servers"]["hub"]
    assert (server["host"], server["pathname"], server["protocol"]) == (
        f"127.0.0.1:{port}",
        "/live/connection/websocket",
        "ws",
    )


async def test_the_server_api_calls_typed_methods(serve: Serve, app: Any) -> None:
    hub = install(app)

    @hub.rpc("double")
    async def double(data: int) -> int:
        return 2 * data

    async with serve(app) as port, httpx.AsyncClient(timeout=WAIT_S) as client:

        async def call(method: str, data: Any) -> Any:
            url, headers = f"http://127.0.0.1:{port}/live/api/rpc", {"X-API-Key": sdk.API_KEY}
            body = {"method": method, "data": data}
            return (await client.post(url, headers=headers, json=body)).json()

        assert await call("double", 4) == {"result": {"data": 8}}
        assert (await call("double", "x"))["error"]["code"] == 107
        assert (await call("triple", 4))["error"]["code"] == 104


# A slow client


async def test_a_client_that_does_not_read_is_closed_and_slows_nobody(serve: Serve, app: Any) -> None:
    hub = install(app, outbox_bytes_max=100_000)
    ended: asyncio.Queue[DisconnectEvent] = asyncio.Queue()
    hub.on_disconnect(ended.put)
    text = "x" * 10_000
    async with (
        serve(app) as port,
        unconnected(port, PATH, receive_buffer_bytes=4096) as slow,
        join(port, "bob") as quick,
    ):
        await slow.ask(command(1, "connect", token=sdk.token("slow")))
        for peer in (slow, quick):
            await peer.ask(command(2, "subscribe", channel="plain:a"))
        sent = 0
        async with asyncio.timeout(WAIT_S):
            while ended.empty():
                await hub.publish("plain:a", text)
                sent += 1
                assert (await quick.reply())["push"]["pub"]["data"] == text
        event = await ended.get()
        assert (event.user, event.code) == ("slow", 3008)
        assert await slow.closed() == (3008, "slow")
        assert sent > 10
        assert list(hub.node.registry.users) == ["bob"]


async def test_a_client_that_never_reads_again_is_let_go(serve: Serve, app: Any) -> None:
    hub = install(app, outbox_bytes_max=100_000)
    async with serve(app) as port, unconnected(port, PATH, receive_buffer_bytes=4096) as slow:
        await slow.ask(command(1, "connect", token=sdk.token("slow")))
        await slow.ask(command(2, "subscribe", channel="plain:a"))
        while hub.node.registry.clients:
            await hub.publish("plain:a", "x" * 10_000)
            await asyncio.sleep(0)
        await until_gone(hub.node)
        slow.socket.writer.transport.abort()


async def test_a_message_past_the_limit_is_refused(serve: Serve, app: Any) -> None:
    hub = install(app)
    gone: asyncio.Queue[str] = asyncio.Queue()
    hub.on_disconnect(lambda event: gone.put(event.user))
    async with serve(app) as port, join(port) as peer, join(port, "bob") as other:
        peer.send(command(2, "publish", channel="plain:a", data="x" * 65_536))
        assert (await peer.closed())[0] == 1009
        assert (await other.ask(command(2, "ping")))[0]["id"] == 2
        peer.socket.writer.close()
        assert await asyncio.wait_for(gone.get(), WAIT_S) == "ann"


async def test_commands_in_progress_are_bounded(serve: Serve, app: Any) -> None:
    hub = install(app, commands_max=10)
    go_on = asyncio.Event()
    begun: list[int] = []

    @hub.on_rpc
    async def slowly(event: RPCEvent) -> RPCReply:
        begun.append(event.data)
        await go_on.wait()
        return RPCReply(data=event.data)

    async with serve(app) as port, join(port) as peer:
        for number in range(2000):
            peer.send(command(number + 2, "rpc", method="x", data=number) + " " * 500)
        async with asyncio.timeout(WAIT_S):
            while len(begun) < 10:  # noqa: ASYNC110 - the app is asked one by one
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # nothing says that no more is asked
        assert len(begun) == 10
        go_on.set()
        assert sorted([(await peer.reply())["id"] for _ in range(2000)]) == list(range(2, 2002))


# The example


async def test_the_example(serve: Serve) -> None:
    # A module of its own: other tests import the example, and its hub is installed once.
    spec = importlib.util.find_spec("examples.fastapi_chat")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    async with serve(example.app) as port:
        assert "/live/static/hub.js" in (await get(port, "/")).text
        url = f"ws://127.0.0.1:{port}{PATH}"
        async with sdk.client(url, data={"name": "Ann"}) as (ann, _), sdk.client(url) as (_, stranger):
            assert (await stranger.next("disconnected")).code == 1000
            subscription, events = await sdk.subscribe(ann, "room:lobby")
            await subscription.publish({"text": "hello"})
            with pytest.raises(Exception, match="107"):
                await subscription.publish({"text": ""})
            with pytest.raises(Exception, match="103"):
                await ann.publish("room:other", {"text": "hello"})
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
                said = await client.post("/rooms/lobby/announcements", json={"text": "tea"})
                assert said.json() == {"offset": 2}
                assert (await client.post("/rooms/lobby/announcements", json={"text": ""})).status_code == 422
                wrong = await client.post("/rooms/a b/announcements", json={"text": "tea"})
                assert wrong.status_code == 400
                assert wrong.json() == {"detail": "bad request"}
            await events.count("publication", 2)
            assert events.data == [{"text": "hello"}, {"text": "tea"}]
            assert events.of("publication")[0].pub.info.user == "Ann"


async def test_the_example_runs_by_its_command() -> None:
    script = Path(__file__).parents[2] / "examples" / "fastapi_chat.py"
    port = free_port()
    env = {**os.environ, "HUB_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env=env, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    assert "Lobby" in (await get(port, "/")).text
                    break
                except httpx.ConnectError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)  # another process's listener announces itself by nothing else
        process.terminate()
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
