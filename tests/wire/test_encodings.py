"""Clients of different encodings in one channel: each is told the same, in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import msgpack  # type: ignore[import-untyped]
import pytest
import websockets
from msgspec import Raw
from support import sdk
from support.bombs import BOMBS
from support.dialects import DIALECTS, Dialect, Speaker, speaking
from support.limits import WAIT_S
from support.redis import RedisServer
from support.server import running, under_uvicorn

from hub import MessageEvent, PublishEvent, PublishReply, RPCEvent, RPCReply
from hub.app import create_app
from hub.protocol import api
from hub.protocol.payloads import Packed, Payload

dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)

Serve: TypeAlias = Callable[[Any], contextlib.AbstractAsyncContextManager[int]]

SENT: dict[str, list[Any]] = {
    "json": [{"text": "héllo", "n": [1, 2.5, None]}, "text", 0, False, {}, 2**64 - 1, -(2**63)],
    "protobuf": [b'{"a" : 1}', b"12", b"\x00\xff\xfe", b"no json", b'"\\u00e9"'],
    "msgpack": [{"blob": b"\x00\xff", "n": 1.5}, b"\xff\x00", "text", None, [2**64 - 1, -1], [], 0.0],
}
"""What clients of each encoding publish."""


def form_of(name: str, sent: Any) -> Payload:
    """What the hub keeps of what a client sent."""
    if name == "json":
        return Raw(json.dumps(sent).encode())
    if name == "protobuf":
        return Raw(sent) if sent[:1] in b'{1"' else sent
    return sent if isinstance(sent, bytes) else Packed(msgpack.packb(sent))


@contextlib.asynccontextmanager
async def _under_the_hubs_own(app: Any) -> AsyncIterator[int]:
    async with running(app, app.state.hub.settings) as server:
        yield server.port


@contextlib.asynccontextmanager
async def everybody(port: int, **options: Any) -> AsyncIterator[dict[str, Speaker]]:
    """A client of each encoding."""
    url = f"ws://127.0.0.1:{port}/connection/websocket"
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(speaking(dialect, url, token=sdk.token(name), **options))
            for name, dialect in DIALECTS.items()
        }


@pytest.mark.parametrize("serve", [_under_the_hubs_own, under_uvicorn], ids=["own server", "uvicorn"])
@pytest.mark.parametrize("compression", ["deflate", None], ids=["compressed", "plain"])
async def test_what_one_publishes_all_are_told(serve: Serve, compression: str | None) -> None:
    app = create_app(sdk.settings(server={"compression": compression is not None}))
    async with (
        serve(app) as port,
        everybody(port, compression=compression) as clients,
        asyncio.timeout(WAIT_S),
    ):
        for client in clients.values():
            assert "error" not in await client.ask("subscribe", channel="chat:a")
        forms = []
        for name, several in SENT.items():
            long = {"json": "long" * 400, "protobuf": b"long" * 400, "msgpack": {"long": b"long" * 400}}[name]
            for sent in [*several, long]:
                assert await clients[name].ask("publish", channel="chat:a", data=sent) == {}
                forms.append(form_of(name, sent))
                for client in clients.values():
                    push = await client.push()
                    assert push["channel"] == "chat:a"
                    assert push["pub"]["data"] == client.dialect.shows(forms[-1])
                    assert push["pub"]["info"]["user"] == name
        for client in clients.values():
            shown = [client.dialect.shows(form) for form in forms]
            history = await client.ask("history", channel="chat:a", limit=-1)
            assert [publication["data"] for publication in history["publications"]] == shown
            await client.ask("unsubscribe", channel="chat:a")
            position = {"epoch": history["epoch"], "offset": 2}
            again = await client.ask(
                "subscribe", channel="chat:a", recoverable=True, recover=True, **position
            )
            assert again["recovered"]
            assert [publication["data"] for publication in again["publications"]] == shown[2:]


async def test_two_nodes_over_redis_tell_each_others_clients_the_same() -> None:
    with RedisServer() as redis:
        configured = sdk.settings(redis={"url": redis.url})
        async with (
            asyncio.timeout(WAIT_S),
            sdk.live(configured) as (hub, here),
            sdk.live(configured) as (_, there),
            everybody(here.port) as near,
            everybody(there.port) as far,
        ):
            hearers = [*near.values(), *far.values()]
            for client in hearers:
                assert "error" not in await client.ask("subscribe", channel="chat:a")
            for name, several in SENT.items():
                for sent in several:
                    assert await near[name].ask("publish", channel="chat:a", data=sent) == {}
                    for client in hearers:
                        shown = client.dialect.shows(form_of(name, sent))
                        assert (await client.push())["pub"]["data"] == shown
            await hub.publish("chat:a", b"\x00\xff")
            for client in hearers:
                assert (await client.push())["pub"]["data"] == client.dialect.shows(b"\x00\xff")
            for client in far.values():
                history = await client.ask("history", channel="chat:a", limit=1, reverse=True)
                assert history["publications"][0]["data"] == client.dialect.shows(b"\x00\xff")


@dialects
async def test_a_publish_that_is_repeated_over_another_node_is_published_once(dialect: Dialect) -> None:
    data: Any = b'"paid"' if dialect.codec.name == "protobuf" else "paid"
    with RedisServer() as redis:
        configured = sdk.settings(redis={"url": redis.url})
        async with (
            asyncio.timeout(WAIT_S),
            sdk.live(configured) as (hub, here),
            sdk.live(configured) as (_, there),
            speaking(dialect, here.websocket_url, token=sdk.token("ann")) as first,
            speaking(dialect, there.websocket_url, token=sdk.token("ann")) as again,
            speaking(dialect, there.websocket_url, token=sdk.token("bob")) as other,
        ):
            publish = {"channel": "chat:a", "data": data, "idempotency_key": "order-1"}
            for client in (first, again, other):
                assert "error" not in await client.ask("subscribe", channel="chat:a")
            for client in (first, again, first):
                assert await client.ask("publish", **publish) == {}
            await hub.publish("chat:a", "of the app", idempotency_key="order-1")
            assert await other.ask("publish", **publish) == {}
            history = await first.ask("history", channel="chat:a", limit=-1)
            users = [publication.get("info", {}).get("user") for publication in history["publications"]]
            assert users == ["ann", None, "bob"]


async def test_info_that_is_binary_is_shown_to_each_in_its_way() -> None:
    async with sdk.live() as (hub, server), everybody(server.port) as clients, asyncio.timeout(WAIT_S):
        request = api.SubscribeRequest(user="json", channel="private:a", b64info="AP8=", b64data="/wA=")
        await hub.request("subscribe", request)
        assert (await clients["json"].push())["subscribe"]["data"] == "/wA="
        assert (await clients["json"].push())["join"]["info"]["chan_info"] == "AP8="
        for name in ("protobuf", "msgpack"):
            await hub.request(
                "subscribe", api.SubscribeRequest(user=name, channel="private:a", b64data="/wA=")
            )
            assert (await clients[name].push())["subscribe"]["data"] == b"\xff\x00"
        [present] = [info for info in (await hub.presence("private:a")).values() if info.user == "json"]
        assert present.chan_info == b"\x00\xff"


@dialects
async def test_the_app_is_given_values_and_gives_what_it_likes(dialect: Dialect) -> None:
    heard: list[Any] = []

    def publish(event: PublishEvent) -> PublishReply:
        heard.append(event.data)
        return PublishReply(data=b"\x01\xff" if event.data == "binary" else None)

    def rpc(event: RPCEvent) -> RPCReply:
        return RPCReply(data=event.data)

    def message(event: MessageEvent) -> None:
        heard.append(event.data)

    text = b'"binary"' if dialect.codec.name == "protobuf" else "binary"
    async with (
        sdk.live(publish=publish, rpc=rpc, message=message) as (_, server),
        speaking(dialect, server.websocket_url, token=sdk.token("ann")) as client,
        asyncio.timeout(WAIT_S),
    ):
        await client.ask("subscribe", channel="plain:a")
        await client.ask("publish", channel="plain:a", data=text)
        assert (await client.push())["pub"]["data"] == dialect.shows(b"\x01\xff")
        assert (await client.ask("rpc", method="echo", data=text))["data"] == text
        await client.send(dialect.write({"send": {"data": text}}))
        if dialect.codec.name != "json":
            assert (await client.ask("rpc", method="echo", data=b"\x00\xff"))["data"] == b"\x00\xff"
        while heard != ["binary", "binary"]:  # noqa: ASYNC110 - the handler runs in a thread
            await asyncio.sleep(0.01)


# The handshake, and frames


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        (["graphql-ws"], None),
        (["graphql-ws", "hub-msgpack", "centrifuge-json"], "hub-msgpack"),
        (["centrifuge-json", "centrifuge-protobuf"], "centrifuge-json"),
    ],
)
async def test_the_first_subprotocol_that_is_known_is_chosen(
    offered: list[websockets.Subprotocol] | None, chosen: str | None
) -> None:
    async with (
        sdk.live() as (_, server),
        websockets.connect(server.websocket_url, subprotocols=offered) as websocket,
        asyncio.timeout(WAIT_S),
    ):
        assert websocket.subprotocol == chosen
        client = Speaker(DIALECTS["msgpack" if chosen == "hub-msgpack" else "json"], websocket)
        assert (await client.ask("connect", token=sdk.token("ann")))["client"]


@dialects
@pytest.mark.parametrize("serve", [_under_the_hubs_own, under_uvicorn], ids=["own server", "uvicorn"])
async def test_a_frame_of_the_other_kind_is_read_as_what_the_subprotocol_says(
    dialect: Dialect, serve: Serve
) -> None:
    async with (
        serve(create_app(sdk.settings())) as port,
        speaking(dialect, f"ws://127.0.0.1:{port}/connection/websocket", token=sdk.token("ann")) as client,
        asyncio.timeout(WAIT_S),
    ):
        ping = dialect.write({"id": 5, "ping": {}})
        if dialect.codec.name != "msgpack":  # which is no UTF-8, as text in a frame must be
            await client.send(ping, text=not dialect.codec.is_text)
            assert await client.answer("ping") == {}


@pytest.mark.parametrize(("name", "data", "faults"), BOMBS.values(), ids=BOMBS)
async def test_what_is_no_command_ends_one_client_or_is_answered_and_the_others_stay(
    name: str, data: bytes, faults: list[int]
) -> None:
    async with (
        sdk.live() as (hub, server),
        speaking(DIALECTS["json"], server.websocket_url, token=sdk.token("ann")) as well,
        speaking(DIALECTS[name], server.websocket_url, token=sdk.token("eve")) as client,
        asyncio.timeout(WAIT_S),
    ):
        await well.ask("subscribe", channel="chat:a")
        await client.send(data)
        if faults == [0]:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.answer("")
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 3501
        else:
            for _ in faults:
                assert (await client.answer(""))["code"] == 107
        await hub.publish("chat:a", "still served")
        assert (await well.push())["pub"]["data"] == "still served"
