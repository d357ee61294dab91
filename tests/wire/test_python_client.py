"""The Python client against real hubs: what is published, missed, cut, refused and renewed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.limits import WAIT_S
from support.ports import free_port
from support.proxy import Proxy
from support.redis import RedisServer
from support.sdk import live, settings, subscription_token, token

from hub import ConnectEvent, ConnectReply, Refusal, RPCEvent, RPCReply, SubscribeReply
from hub.client import (
    Client,
    ClientDisconnectedError,
    ClientState,
    Connected,
    Disconnected,
    Error,
    FilterNode,
    MessageTooLargeError,
    OperationTimeoutError,
    Published,
    ReplyError,
    Subscribed,
    Subscription,
    SubscriptionState,
    SubscriptionUnsubscribedError,
    UnauthorizedError,
    Unsubscribed,
)
from hub.client.driver import EVENTS_MAX
from hub.protocol import api
from hub.protocol.codes import Errors


class Seen:
    """Every event of a client or a subscription, in order."""

    def __init__(self, of: Client | Subscription) -> None:
        self.all: list[Any] = []
        self._came = asyncio.Event()
        for handlers in of.handlers.values():
            handlers(self._keep)

    def _keep(self, event: Any) -> None:
        self.all.append(event)
        self._came.set()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.all if isinstance(event, kind)]

    async def count(self, kind: type, count: int) -> list[Any]:
        """Wait for so many events of a kind, and return all of them."""
        async with asyncio.timeout(WAIT_S):
            while len(self.of(kind)) < count:
                self._came.clear()
                await self._came.wait()
        return self.of(kind)

    async def data(self, count: int) -> list[Any]:
        """Wait for so many publications, and return all their payloads."""
        return [event.pub.data for event in await self.count(Published, count)]


@contextlib.asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[tuple[Client, Seen]]:
    options = {"min_reconnect_delay_s": 0.01, "proxy": None, "timeout_s": WAIT_S, **options}
    made = Client(url, **options)
    seen = Seen(made)
    async with made:
        yield made, seen


async def subscribe(made: Client, channel: str, **options: Any) -> tuple[Subscription, Seen]:
    subscription = made.new_subscription(channel, **options)
    seen = Seen(subscription)
    await subscription.subscribe()
    await subscription.ready()
    return subscription, seen


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_two_clients_chat(encoding: str) -> None:
    async with AsyncExitStack() as stack:
        _, server = await stack.enter_async_context(live())
        ann, _ = await stack.enter_async_context(client(server.url, token=token("ann"), encoding=encoding))
        bob, _ = await stack.enter_async_context(client(server.websocket_url, token=token("bob")))
        lobby, seen = await subscribe(ann, "chat:lobby", recoverable=True, join_leave=True)
        theirs, _ = await subscribe(bob, "chat:lobby")
        await theirs.publish({"text": "hé"})
        await bob.publish("chat:lobby", None)
        assert await seen.data(2) == [{"text": "hé"}, None]
        first = seen.of(Published)[0]
        assert first.channel == "chat:lobby"
        assert first.pub.info.user == "bob"
        assert lobby.position is not None
        assert lobby.position.offset == first.pub.offset + 1 == 2
        history = await lobby.history(limit=-1)
        assert [pub.data for pub in history.publications] == [{"text": "hé"}, None]
        assert (await ann.history("chat:lobby", limit=1, reverse=True)).publications[0].data is None
        assert {info.user for info in (await lobby.presence()).clients.values()} == {"ann", "bob"}
        assert (await ann.presence("chat:lobby")).clients == (await theirs.presence()).clients
        stats = await theirs.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 2)
        assert await ann.presence_stats("chat:lobby") == stats


@pytest.mark.parametrize("encoding", ["json", "msgpack", "protobuf"])
async def test_deltas_and_a_filter_by_tags(encoding: str) -> None:
    async with (
        live() as (hub, server),
        client(server.url, token=token("ann"), encoding=encoding) as (made, _),
    ):
        wanted = FilterNode(key="kind", cmp="eq", val="goal")
        _, seen = await subscribe(made, "board:1", delta="fossil", tags_filter=wanted)
        sent = [{"rows": [f"Zoë {row}" for row in range(50)], "score": number} for number in range(6)]
        for number, data in enumerate(sent):
            await hub.publish("board:1", data, tags={"kind": "foul" if number % 2 else "goal"})
        assert await seen.data(3) == sent[::2]
        assert hub.node.deltas.computed == 2


async def test_bytes_are_payloads_in_messagepack() -> None:
    async with live() as (_, server), client(server.url, token=token("ann"), encoding="msgpack") as (made, _):
        _, seen = await subscribe(made, "plain:1")
        await made.publish("plain:1", b"\x00\xff")
        await made.publish("plain:1", {"blob": b"\x00\xff", "text": "hé"})
        assert await seen.data(2) == [b"\x00\xff", {"blob": b"\x00\xff", "text": "hé"}]


async def test_what_was_missed_comes_once_and_in_order() -> None:
    async with AsyncExitStack() as stack:
        hub, server = await stack.enter_async_context(live())
        proxy = await stack.enter_async_context(Proxy(server.port))
        made, seen = await stack.enter_async_context(client(proxy.websocket_url, token=token("ann")))
        _, mine = await subscribe(made, "news:1", recoverable=True)
        await hub.publish("news:1", 1)
        assert await mine.data(1) == [1]
        proxy.go_down()
        await seen.count(Error, 1)
        for number in range(2, 5):
            await hub.publish("news:1", number)
        proxy.come_up()
        assert await mine.data(4) == [1, 2, 3, 4]
        await hub.publish("news:1", 5)
        assert await mine.data(5) == [1, 2, 3, 4, 5]
        proxy.cut()  # before anything else came: what was recovered is not recovered again
        back = (await mine.count(Subscribed, 3))[-1]
        assert (back.was_recovering, back.recovered) == (True, True)
        await hub.publish("news:1", 6)
        assert await mine.data(6) == [1, 2, 3, 4, 5, 6]


async def test_server_side_subscriptions_recover_too() -> None:
    ann = token("ann", channels=["news:1"])
    async with AsyncExitStack() as stack:
        hub, server = await stack.enter_async_context(live())
        proxy = await stack.enter_async_context(Proxy(server.port))
        made, seen = await stack.enter_async_context(client(proxy.websocket_url, token=ann))
        await made.ready()
        await seen.count(Subscribed, 1)
        await hub.publish("news:1", 1)
        assert await seen.data(1) == [1]
        proxy.go_down()
        await hub.publish("news:1", 2)
        proxy.come_up()
        assert await seen.data(2) == [1, 2]
        proxy.cut()
        await seen.count(Subscribed, 3)
        await hub.publish("news:1", 3)
        assert await seen.data(3) == [1, 2, 3]
        await hub.request("unsubscribe", api.UnsubscribeRequest("ann", "news:1"))
        (left,) = await seen.count(Unsubscribed, 1)
        assert (left.channel, left.code) == ("news:1", 2000)


@pytest.mark.parametrize("encoding", ["json", "msgpack", "protobuf"])
async def test_a_publish_over_the_hubs_limit_is_refused_and_the_connection_stays(encoding: Any) -> None:
    async with live() as (_, server):
        made = Client(server.websocket_url, token=token("ann"), encoding=encoding)
        seen = Seen(made)
        async with made:
            await made.ready()
            with pytest.raises(MessageTooLargeError, match=r"hub takes 65536 \(client\.message_bytes_max\)"):
                await made.publish("plain:a", "x" * 70_000)
            await made.publish("plain:a", "x" * 60_000)
            assert made.state is ClientState.CONNECTED
            assert "message_bytes_max" not in seen.of(Connected)[0].data


async def test_a_reconnect_token_brings_it_to_another_node_with_what_it_missed_and_no_login() -> None:
    logins: list[str] = []

    async def get_token() -> str:
        logins.append("token")
        return token("ann")

    async def connect(event: ConnectEvent) -> ConnectReply:
        logins.append(event.user)
        return ConnectReply(channels={"own:a": SubscribeReply()})

    with RedisServer() as redis:
        keys = {"reconnect": {"keys": ["signs-the-reconnect-tokens-of-both-nodes"]}}
        configured = [settings(keys, redis={"url": redis.url}) for _ in range(2)]
        async with AsyncExitStack() as stack:
            (one, first), (two, second) = [
                await stack.enter_async_context(live(each, connect=connect)) for each in configured
            ]
            proxy = await stack.enter_async_context(Proxy(first.port))
            made, seen = await stack.enter_async_context(client(proxy.websocket_url, get_token=get_token))
            _, chat = await subscribe(made, "chat:a", recoverable=True)
            await one.publish("chat:a", 1)
            await one.publish("own:a", 1)
            assert await chat.data(1) == await seen.data(1) == [1]
            proxy.go_down()
            proxy.target = second.port
            await one.publish("chat:a", 2)
            await one.publish("own:a", 2)
            proxy.come_up()
            assert await chat.data(2) == await seen.data(2) == [1, 2]
            await two.publish("chat:a", 3)
            assert await chat.data(3) == [1, 2, 3]
            assert [event.recovered for event in (*chat.of(Subscribed), *seen.of(Subscribed))] == [
                False,
                True,
            ] * 2
            assert len({event.client for event in await seen.count(Connected, 2)}) == 1
            assert logins == ["token", "ann"]
            assert len(two.node.connections) == 1


async def test_the_app_is_called_and_told() -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def answer(event: RPCEvent) -> RPCReply | Refusal:
        return RPCReply({"sum": sum(event.data)}) if event.method == "sum" else Errors.METHOD_NOT_FOUND

    async with AsyncExitStack() as stack:
        _, server = await stack.enter_async_context(
            live(message=lambda event: told.put_nowait(event.data), rpc=answer)
        )
        made, _ = await stack.enter_async_context(client(server.websocket_url, token=token("ann")))
        assert (await made.rpc("sum", [1, 2])).data == {"sum": 3}
        with pytest.raises(ReplyError, match=r"method not found \(code 104\)"):
            await made.rpc("product", [1, 2])
        await made.send({"typing": True})
        assert await told.get() == {"typing": True}


async def test_an_expired_token_is_fetched_anew_and_a_refusal_stops() -> None:
    answers: list[str | Exception] = [token("ann", ttl_s=-60), OSError("no login server"), token("ann")]

    async def get_token() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def refuse() -> str:
        raise UnauthorizedError("not you")

    async with live() as (_, server):
        async with client(server.websocket_url, get_token=get_token) as (made, seen):
            await made.ready()
            assert answers == []
            assert [event.code for event in seen.of(Error)] == [13, 5]
        async with client(server.websocket_url, get_token=refuse) as (made, seen):
            with pytest.raises(ClientDisconnectedError):
                await made.ready()
            assert await seen.count(Disconnected, 1) == [Disconnected(1, "unauthorized")]
        async with client(server.websocket_url, token="forged") as (_, seen):
            assert (await seen.count(Disconnected, 1))[0].code == 3500


async def test_a_subscription_has_tokens_of_its_own() -> None:
    asked: list[str] = []

    async def get_token(channel: str) -> str:
        asked.append(channel)
        return subscription_token("ann", channel, ttl_s=1.5) if len(asked) < 3 else ""

    async with live() as (_, server), client(server.websocket_url, token=token("ann")) as (made, _):
        private, seen = await subscribe(made, "private:1", get_token=get_token)
        # Renewed in time, then refused: the channel is left, the connection stays.
        (left,) = await seen.count(Unsubscribed, 1)
        assert (left.code, left.reason) == (1, "unauthorized")
        assert asked == ["private:1"] * 3
        assert private.state is SubscriptionState.UNSUBSCRIBED
        assert made.state is ClientState.CONNECTED
        denied = made.new_subscription("private:2")
        refusals = Seen(denied)
        await denied.subscribe()
        with pytest.raises(SubscriptionUnsubscribedError):
            await denied.ready()
        assert await refusals.count(Unsubscribed, 1) == [Unsubscribed("private:2", 103, "permission denied")]


async def test_a_hub_that_asks_to_wait_is_obeyed() -> None:
    refusals = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refusals
        refusals += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, client(url, timeout_s=4.0) as (made, seen):
        (error,) = await seen.count(Error, 1)
        assert "503" in str(error.error)
        again = seen.all[-1]
        assert (again.attempt, 7 < again.delay_s < 7.1) == (1, True)
        with pytest.raises(OperationTimeoutError):
            await made.ready()
    assert refusals == 1


async def test_a_link_that_went_quiet_is_left() -> None:
    quick = settings(client={"ping_interval_s": 1, "pong_timeout_s": 0.5})
    async with live(quick) as (hub, server), Proxy(server.port) as proxy:
        ann = token("ann")
        async with client(proxy.websocket_url, token=ann, max_server_ping_delay_s=0.1) as (made, seen):
            _, mine = await subscribe(made, "news:1", recoverable=True)
            proxy.half_open()
            await hub.publish("news:1", "missed")
            assert await mine.data(1) == ["missed"]
            assert "no ping" in [event.reason for event in seen.all if hasattr(event, "reason")]


async def test_handlers_may_wait_call_and_leave() -> None:
    async with live() as (hub, server), client(server.websocket_url, token=token("ann")) as (made, seen):
        lobby = made.new_subscription("chat:lobby")
        lobby_seen = Seen(lobby)
        heard: list[Any] = []

        @lobby.on_publication
        async def answer(event: Published) -> None:
            heard.append(event.pub.data)
            if event.pub.data == "hello":
                await lobby.publish("hello to you")
            elif event.pub.data == "faulty":
                raise RuntimeError("the handler's own fault")
            elif event.pub.data == "leave":
                await made.disconnect()

        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        await lobby.subscribe()
        await lobby.ready()
        for data in ("hello", "faulty"):
            await hub.publish("chat:lobby", data)
        await lobby_seen.data(3)
        await hub.publish("chat:lobby", "leave")
        await seen.count(Disconnected, 1)
        assert heard[:1] == ["hello"]
        assert set(heard) == {"hello", "hello to you", "faulty", "leave"}
        assert [str(fault["exception"]) for fault in faults] == ["the handler's own fault"]
        assert made.state is ClientState.DISCONNECTED
        with pytest.raises(ClientDisconnectedError):
            await made.publish("chat:lobby", "too late")
        await made.connect()
        await lobby.ready()


async def test_a_slow_handler_holds_the_reader_back_and_loses_nothing() -> None:
    count = 8 * EVENTS_MAX
    async with AsyncExitStack() as stack:
        hub, server = await stack.enter_async_context(live())
        made, _ = await stack.enter_async_context(
            client(server.websocket_url, token=token("ann"), timeout_s=4.0)
        )
        first, gate, last = asyncio.Event(), asyncio.Event(), asyncio.Event()
        subscription = made.new_subscription("news:1", recoverable=True)
        heard: list[int] = []

        @subscription.on_publication
        async def wait(event: Published) -> None:
            first.set()
            await gate.wait()
            heard.append(event.pub.data)
            if len(heard) == count:
                last.set()

        await subscription.subscribe()
        await subscription.ready()
        for number in range(count):
            await hub.publish("news:1", number)
            if number % 100 == 0:
                await asyncio.sleep(0)  # a frame of so many
        await first.wait()
        with pytest.raises(OperationTimeoutError):
            await made.history("news:1")  # its answer is behind what is not read
        assert subscription.position is not None
        assert subscription.position.offset < 2 * EVENTS_MAX
        gate.set()
        async with asyncio.timeout(WAIT_S):
            await last.wait()
        assert heard == list(range(count))


async def test_an_error_says_what_was_tried_and_what_came_back() -> None:
    cases: list[tuple[str, dict[str, str], str]]
    async with live() as (_, server):
        cases = [
            (
                server.url,
                {"Origin": "https://evil.example"},
                "HTTP 403: this origin is not in client.allowed_origins",
            ),
            (f"{server.url}/nowhere", {}, "HTTP 40"),
            (f"http://127.0.0.1:{free_port()}", {}, ""),
        ]
        for url, headers, answer in cases:
            client = Client(url, token=token("ann"), headers=headers)
            failed: asyncio.Future[Error] = asyncio.get_running_loop().create_future()

            @client.on_error
            def note(event: Error, failed: asyncio.Future[Error] = failed) -> None:
                if not failed.done():
                    failed.set_result(event)

            async with client, asyncio.timeout(WAIT_S):
                error = await failed
            assert error.url == f"{url.replace('http', 'ws')}/connection/websocket"
            assert (error.code, error.transport) == (2, "websocket")
            assert answer in error.answer
            assert error.answer
