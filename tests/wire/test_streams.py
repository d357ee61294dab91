"""HTTP streaming, SSE and `/emulation` on raw sockets, under the hub's own server and under plain uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from support import sdk
from support.peer import command, connected, until_gone
from support.rawstream import RawStream, StreamPeer
from support.rawws import RawWebSocket
from support.server import running, under_uvicorn

from hub import ConnectReply, Disconnect, Hub
from hub.app import create_app
from hub.settings import Settings

ORIGIN = "https://app.example"


@contextlib.asynccontextmanager
async def under_the_hubs_own(app: Any, settings: Settings) -> AsyncIterator[int]:
    async with running(app, settings, drain=app.state.hub.drain) as server:
        yield server.port


@contextlib.asynccontextmanager
async def under_plain_uvicorn(app: Any, settings: Settings) -> AsyncIterator[int]:
    async with under_uvicorn(app) as port:
        yield port


@pytest.fixture(params=[under_the_hubs_own, under_plain_uvicorn], ids=["own server", "uvicorn"])
def serve(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextlib.asynccontextmanager
async def live(
    serve: Any, handlers: dict[str, Any] | None = None, **client: Any
) -> AsyncIterator[tuple[Hub, int]]:
    settings = sdk.settings({"allowed_origins": [ORIGIN], **client})
    app = create_app(settings)
    for event, handler in (handlers or {}).items():
        getattr(app.state.hub, f"on_{event}")(handler)
    async with serve(app, settings) as port:
        yield app.state.hub, port
        await until_gone(app.state.hub.node)
        assert not app.state.hub.node.connections._emulated


def ann(port: int, kind: str, **options: Any) -> contextlib.AbstractAsyncContextManager[StreamPeer]:
    """A client of a user."""
    return opened(port, kind, {"token": sdk.token("ann")}, **options)


@contextlib.asynccontextmanager
async def opened(port: int, kind: str, *args: Any, **options: Any) -> AsyncIterator[StreamPeer]:
    async with await StreamPeer.open(port, kind, *args, **options) as peer:
        yield peer


both = pytest.mark.parametrize("kind", ["http_stream", "sse"])
every = pytest.mark.parametrize("kind", ["http_stream", "sse", "uni_http_stream", "uni_sse"])


@both
async def test_commands_are_answered_in_the_stream(serve: Any, kind: str) -> None:
    async with (
        live(serve) as (hub, port),
        ann(port, kind) as peer,
    ):
        result = await peer.connected()
        assert (result["ping"], result["pong"], result["node"]) == (25, True, hub.node.id)
        [joined, published, pong] = await peer.ask(
            command(2, "subscribe", channel="plain:a"),
            command(3, "publish", channel="plain:a", data={"n": 1}),
            command(4, "ping"),
        )
        replies = [joined, published, pong]
        async with connected(port, sdk.token("bob")) as bob:
            await bob.ask(command(2, "publish", channel="plain:a", data={"n": 2}))
        replies.append(await peer.reply())
        assert [reply.get("id", 0) for reply in replies if "push" not in reply] in ([2, 3, 4], [2, 3])
        pushed = [reply["push"]["pub"]["data"] for reply in replies if "push" in reply]
        assert pushed == [{"n": 1}, {"n": 2}][: len(pushed)]


@every
async def test_nothing_on_the_way_is_told_to_hold_it_back(serve: Any, kind: str) -> None:
    async with (
        live(serve) as (_, port),
        ann(port, kind) as peer,
    ):
        headers = peer.stream.headers
        assert peer.stream.status == 200
        assert headers["content-type"] == ("text/event-stream" if "sse" in kind else "application/x-ndjson")
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert headers["transfer-encoding"] == "chunked"


@both
async def test_a_disconnect_is_a_push_and_the_end(serve: Any, kind: str) -> None:
    async with (
        live(serve) as (hub, port),
        ann(port, kind) as peer,
    ):
        await peer.connected()
        await hub.disconnect("ann", Disconnect(4500, "enough"))
        assert await peer.closed() == (4500, "enough")


@both
async def test_a_refused_connect_is_told(serve: Any, kind: str) -> None:
    async with live(serve) as (_, port):
        async with opened(port, kind) as nobody:
            assert (await nobody.reply())["error"]["code"] == 101
        async with opened(port, kind, {"token": "none"}) as liar:
            assert await liar.closed() == (3500, "invalid token")


@both
async def test_what_is_no_connect_command_ends_it(serve: Any, kind: str) -> None:
    async with live(serve) as (_, port):
        path = f"/connection/{kind}"
        for text in ("", "nonsense", '{"id":1,"publish":{}}', "{}"):
            if kind == "sse":
                stream = await RawStream.send(port, "GET", f"{path}?cf_connect={text}")
            else:
                stream = await RawStream.send(port, "POST", path, body=text.encode())
            async with stream:
                assert await StreamPeer(kind, stream, port).closed() == (3501, "bad request")


@both
async def test_ping_and_pong(serve: Any, kind: str) -> None:
    async with (
        live(serve, ping_interval_s=2.0, pong_timeout_s=1.5) as (_, port),
        ann(port, kind) as peer,
    ):
        await peer.connected()
        assert await peer.line() == "{}"
        assert await peer.post("{}") == 204
        assert await peer.line() == "{}"
        # Not answered this time.
        assert json.loads(await peer.line() or "")["push"]["disconnect"]["code"] == 3012
        assert await peer.line() is None


@both
async def test_a_client_that_leaves_is_gone(serve: Any, kind: str) -> None:
    async with live(serve) as (hub, port):
        async with ann(port, kind) as peer:
            await peer.connected()
            await peer.ask(command(2, "subscribe", channel="plain:a"))
        await until_gone(hub.node)
        assert not hub.node.registry.channels
        assert await peer.post("{}") == 404


async def test_emulation_knows_only_sessions_that_are_there(serve: Any) -> None:
    async with (
        live(serve) as (_, port),
        ann(port, "sse") as peer,
    ):
        await peer.connected()
        assert await peer.post("{}", session="0" * 32) == 404
        assert await peer.post("{}", session="") == 404
        assert await peer.post("{}", node="0" * 16) == 404
        async with connected(port, sdk.token("bob")) as websocket:
            # Of a WebSocket, which sends for itself.
            [reply] = await websocket.ask(command(2, "ping"))
            assert reply["id"] == 2
        async with opened(port, "uni_sse", {"token": sdk.token("eve")}) as deaf:
            connect = (await deaf.reply())["connect"]
            assert await peer.post("{}", session=connect["session"]) == 404


async def test_what_emulation_does_not_take(serve: Any) -> None:
    async with live(serve, message_bytes_max=65_536) as (_, port):

        async def post(body: bytes) -> int:
            async with await RawStream.send(port, "POST", "/emulation", body=body) as response:
                return response.status

        for body in (b"", b"[]", b"{}", b'{"session":"","node":"","data":1}', b"\xff", b'{"session":"a"'):
            assert await post(body) == 400
        for text in (r"\ud800", r"\udfff x"):
            assert await post(b'{"session":"","node":"","data":"%b"}' % text.encode()) == 400
        assert await post(b'{"session":"","node":"","data":"%b"}' % (b"x" * 65_537)) == 413
        assert await post(b"x" * 200_000) == 413
        for method in ("GET", "PUT"):
            async with await RawStream.send(port, method, "/emulation") as response:
                assert (response.status, response.headers["allow"]) == (405, "POST, OPTIONS")


@both
async def test_who_sends_more_than_is_answered_is_told_to_come_back(serve: Any, kind: str) -> None:
    release = asyncio.Event()

    async def wait(event: Any) -> None:
        await release.wait()

    async with live(serve, {"rpc": wait}, commands_max=3) as (_, port), ann(port, kind) as peer:
        await peer.connected()
        for number in range(8):
            assert await peer.post(command(number + 2, "rpc", method="wait")) == 204
        assert await peer.closed() == (3013, "too many requests")
        release.set()


@every
async def test_pages_of_other_origins(serve: Any, kind: str) -> None:
    async with live(serve) as (_, port):
        for origin, status in ((ORIGIN, 200), ("https://evil.example", 403), ("http://[", 403)):
            async with opened(port, kind, {"token": sdk.token("ann")}, headers={"Origin": origin}) as peer:
                assert peer.stream.status == status
                allowed = peer.stream.headers.get("access-control-allow-origin")
                assert allowed == (ORIGIN if status == 200 else None)
                cookies = peer.stream.headers.get("access-control-allow-credentials")
                assert cookies == ("true" if status == 200 else None)


@every
async def test_pages_of_any_origin_send_no_cookies(serve: Any, kind: str) -> None:
    async with live(serve, allowed_origins=["*", ORIGIN]) as (_, port):
        for origin, cookies in ((ORIGIN, "true"), ("https://other.example", None)):
            async with opened(port, kind, {"token": sdk.token("ann")}, headers={"Origin": origin}) as peer:
                assert peer.stream.headers["access-control-allow-origin"] == origin
                assert peer.stream.headers.get("access-control-allow-credentials") == cookies


@pytest.mark.parametrize("path", ["/connection/http_stream", "/emulation"])
async def test_a_browser_may_ask_before_it_posts(serve: Any, path: str) -> None:
    async with live(serve) as (_, port):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        async with await RawStream.send(port, "OPTIONS", path, {"Origin": ORIGIN, **asked}) as answer:
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["access-control-allow-methods"] == "POST"
            assert answer.headers["access-control-allow-headers"] == "Content-Type"
            assert answer.headers["vary"] == "Origin"
        evil = {"Origin": "https://evil.example", **asked}
        async with await RawStream.send(port, "OPTIONS", path, evil) as answer:
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
        async with await RawStream.send(port, "POST", path, {"Origin": "https://evil.example"}) as answer:
            assert answer.status == 403
        # A status that a page of the allowed origin may read.
        async with await RawStream.send(port, "PUT", path, {"Origin": ORIGIN}) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (405, ORIGIN)


@every
async def test_a_token_beside_the_connect_command_is_refused(serve: Any, kind: str) -> None:
    async with live(serve) as (_, port):
        path = f"/connection/{kind}?token=abc"
        async with await RawStream.send(port, "GET" if "sse" in kind else "POST", path) as answer:
            assert answer.status == 400


@every
async def test_a_node_that_takes_nobody_says_when_to_come_back(serve: Any, kind: str) -> None:
    async with live(serve) as (hub, port):
        hub.node.begin_draining()
        async with opened(port, kind) as peer:
            assert peer.stream.status == 503
            assert 1 <= int(peer.stream.headers["retry-after"]) <= 5


@every
async def test_a_drain_says_goodbye(serve: Any, kind: str) -> None:
    async with (
        live(serve) as (hub, port),
        ann(port, kind) as peer,
    ):
        assert "connect" in await peer.reply()
        draining = asyncio.create_task(hub.drain(0))
        assert await peer.closed() == (3001, "shutdown")
        await draining


@every
async def test_what_was_missed_is_recovered(serve: Any, kind: str) -> None:
    async with live(serve) as (hub, port):
        first = await hub.publish("own:a", 1)
        for number in (2, 3):
            await hub.publish("own:a", number)
        since = {"recover": True, "offset": first.offset, "epoch": first.epoch}
        connect = {"token": sdk.token("ann", channels=["own:a"]), "subs": {"own:a": since}}
        async with opened(port, kind, connect) as peer:
            recovered = (await peer.reply())["connect"]["subs"]["own:a"]
            assert recovered["recovered"] is True
            assert [each["data"] for each in recovered["publications"]] == [2, 3]
            await hub.publish("own:a", 4)
            message = await peer.reply()
            assert message.get("push", message)["pub"]["data"] == 4


@pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])
async def test_a_one_way_client_gets_pushes_alone(serve: Any, kind: str) -> None:
    async def welcome(event: Any) -> ConnectReply | None:
        return ConnectReply(user="page") if event.name == "page" else None

    async with live(serve, {"connect": welcome}, ping_interval_s=0.4, pong_timeout_s=0.3) as (hub, port):
        async with opened(port, kind, {"token": sdk.token("ann", channels=["own:a"])}) as peer:
            connect = json.loads(await peer.line() or "")["connect"]
            assert connect["ping"] >= 1
            assert "pong" not in connect
            assert list(connect["subs"]) == ["own:a"]
            await hub.publish("own:a", {"n": 1})
            push = json.loads(await peer.line() or "")
            assert (push["channel"], push["pub"]["data"]) == ("own:a", {"n": 1})
            assert [await peer.line() for _ in range(3)] == ["{}"] * 3  # and no pong is missed
            await hub.disconnect("ann")
            assert await peer.closed() == (3503, "force no reconnect")
        async with opened(port, kind, {"connect": {"name": "page"}}) as page:
            assert "connect" in json.loads(await page.line() or "")


@pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])
async def test_a_one_way_client_that_is_refused_is_disconnected(serve: Any, kind: str) -> None:
    async with live(serve) as (_, port):
        refusals = {
            "": (3507, "unauthorized"),
            "none": (3500, "invalid token"),
            sdk.token("ann", ttl_s=-60): (3005, "connection expired"),
        }
        for token, end in refusals.items():
            async with opened(port, kind, {"token": token}) as peer:
                assert await peer.closed() == end


async def test_a_one_way_websocket(serve: Any) -> None:
    async with live(serve, ping_interval_s=0.4, pong_timeout_s=0.3) as (hub, port):
        path = "/connection/uni_websocket"
        async with await RawWebSocket.connect(port, path) as socket:
            socket.send_text(json.dumps({"token": sdk.token("ann", channels=["own:a"])}))
            connect = json.loads(await socket.read_text())["connect"]
            assert list(connect["subs"]) == ["own:a"]
            assert "pong" not in connect
            socket.send_text("whatever it says now")
            socket.send_text(command(2, "publish", channel="plain:a", data=1))
            await hub.publish("own:a", {"n": 1})
            assert json.loads(await socket.read_text())["pub"]["data"] == {"n": 1}
            assert [await socket.read_text() for _ in range(3)] == ["{}"] * 3
            await hub.disconnect("ann")
            assert await socket.closed() == (3503, "force no reconnect")
        async with await RawWebSocket.connect(port, path) as socket:
            socket.send_text("{}")
            assert await socket.closed() == (3507, "unauthorized")


async def test_under_another_path(serve: Any) -> None:
    app = Starlette()
    settings = sdk.settings()
    hub = Hub(settings)
    hub.install(app, "/live")
    async with serve(app, settings) as port:
        async with opened(port, "sse", {"token": sdk.token("ann")}, prefix="/live") as peer:
            await peer.connected()
            [reply] = await peer.ask(command(2, "ping"))
            assert reply["id"] == 2
        await until_gone(hub.node)
