"""Who is let in: limits by address, by user and by rate, and what one who is not is told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from centrifuge import ClientState  # type: ignore[import-untyped]
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected, until_gone
from support.rawws import HandshakeError, RawWebSocket, handshake
from support.server import Running, running

from hub import Hub
from hub.app import create_app
from hub.core.overload import Step
from hub.server.http import HubHTTPProtocol

FROM = "X-Forwarded-For"


async def refused(server: Running, **headers: str) -> HandshakeError:
    """A handshake that is answered with 503 and a time to come again."""
    with pytest.raises(HandshakeError) as error:
        await RawWebSocket.connect(server.port, headers=headers)
    assert error.value.status == 503
    assert 1 <= int(error.value.head.lower().partition("retry-after: ")[2].partition("\r\n")[0]) <= 5
    return error.value


def metric(hub: Hub, name: str) -> str:
    """What a metric is at."""
    text = hub.metrics.render()[0].decode()
    return next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name))


async def test_an_address_behind_a_proxy_has_so_many_connections() -> None:
    configured = sdk.settings(server={"connections_per_address_max": 2})
    async with sdk.live(configured) as (hub, server), contextlib.AsyncExitStack() as stack:

        async def come(address: str) -> RawWebSocket:
            socket = await RawWebSocket.connect(server.port, headers={FROM: address})
            return await stack.enter_async_context(socket)

        first = await come("203.0.113.1, 198.51.100.7")
        await come("198.51.100.7")
        assert b"connections_per_address_max" in (await refused(server, **{FROM: "198.51.100.7"})).body
        assert metric(hub, 'hub_refusals_total{reason="connections_per_address_max"}') == "1.0"
        for _ in range(3):
            await come("127.0.0.1")  # the proxy itself
        await come("198.51.100.8")
        first.writer.transport.abort()
        async with asyncio.timeout(WAIT_S):
            while len(hub.node.connections) > 5:  # noqa: ASYNC110 - a socket's end is announced to the node alone
                await asyncio.sleep(0.01)
        await come("198.51.100.7")
        await stack.aclose()
        await until_gone(hub.node)
        assert hub.node.admission._counts == {}


async def test_who_is_no_proxy_cannot_say_where_it_comes_from() -> None:
    limits = {"connections_per_address_max": 1, "trusted_proxies": ["192.0.2.1"]}
    async with (
        sdk.live(sdk.settings(server=limits)) as (_, server),
        await RawWebSocket.connect(server.port, headers={FROM: "198.51.100.7"}),
    ):
        await refused(server, **{FROM: "198.51.100.8"})


async def test_so_many_handshakes_in_a_second() -> None:
    async with (
        sdk.live(sdk.settings(server={"accepts_per_s": 0.001})) as (hub, server),
        await RawWebSocket.connect(server.port),
    ):
        await refused(server)
        assert metric(hub, 'hub_refusals_total{reason="accepts_per_s"}') == "1.0"


@pytest.mark.parametrize("step", ["accept", "on_authenticated"])
async def test_a_crowd_goes_through_one_at_a_time(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sdk.live() as (hub, server), contextlib.AsyncExitStack() as stack:
        in_a_turn = [0]
        owner = hub.node.connections if step == "accept" else hub.node.sessions
        taken = getattr(owner, step)

        async def turn() -> None:
            while True:
                await asyncio.sleep(0)
                in_a_turn.append(0)

        def count(*arguments: Any, **named: Any) -> Any:
            in_a_turn[-1] += 1
            return taken(*arguments, **named)

        monkeypatch.setattr(owner, step, count)
        turning = asyncio.ensure_future(turn())
        crowd = 20

        async def come() -> Peer:
            return await stack.enter_async_context(unconnected(server.port))

        peers = await asyncio.gather(*(come() for _ in range(crowd)))
        for peer in peers:
            peer.send(command(1, "connect", token=sdk.token("ann")))
        for peer in peers:
            assert "connect" in await peer.reply()
        turning.cancel()
        assert sum(in_a_turn) == crowd
        # Who waited goes on one turn after those who did not.
        assert max(in_a_turn) <= (2 if step == "on_authenticated" else 1)


async def test_one_more_than_may_wait_is_refused() -> None:
    async with sdk.live(sdk.settings(server={"handshakes_max": 1})) as (hub, server):
        crowd = 20
        came = await asyncio.gather(
            *(RawWebSocket.connect(server.port) for _ in range(crowd)), return_exceptions=True
        )
        through = [each for each in came if isinstance(each, RawWebSocket)]
        told = [each for each in came if isinstance(each, HandshakeError)]
        assert len(through) >= 1
        assert len(told) == crowd - len(through) > 0
        assert {each.status for each in told} == {503}
        for socket in through:
            socket.writer.transport.abort()
        await until_gone(hub.node)
        async with await RawWebSocket.connect(server.port):
            pass


async def answered(port: int, parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> str:
    """The head of the answer to a request of which the server reads one part at a time."""
    read = asyncio.Event()
    received = HubHTTPProtocol.data_received

    def data_received(protocol: HubHTTPProtocol, data: bytes) -> None:
        received(protocol, data)
        read.set()

    with monkeypatch.context() as patched:
        patched.setattr(HubHTTPProtocol, "data_received", data_received)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(WAIT_S):
            for part in parts:
                read.clear()
                writer.write(part)
                await read.wait()
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    return answer.decode()


async def test_who_comes_while_nobody_is_let_in_is_told_however_the_request_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sdk.live() as (hub, server):
        monkeypatch.setattr(hub.node.admission.turns.handshakes, "should_reject", lambda now: True)
        head = handshake(server.port, "/connection/websocket", {})
        half = len(head) // 2
        for parts in ([head], [head[:half], head[half:]]):
            answer = await answered(server.port, parts, monkeypatch)
            assert answer.startswith("HTTP/1.1 503 "), parts
            assert "\r\nRetry-After: " in answer
        assert metric(hub, 'hub_refusals_total{reason="handshakes_max"}') == "2.0"
        assert metric(hub, "hub_connects_total") == "0.0"


async def test_what_a_request_carries_is_no_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sdk.live() as (hub, server):
        monkeypatch.setattr(hub.node.admission.turns.handshakes, "should_reject", lambda now: True)
        body = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
        head = b"POST /emulation HTTP/1.1\r\nHost: hub\r\nContent-Length: %d\r\n" % len(body)
        for parts in ([head + b"\r\n", body], [head, b"\r\n", body], [head + b"\r\n" + body]):
            answer = await answered(server.port, parts, monkeypatch)
            assert answer.startswith("HTTP/1.1 400 "), answer


async def test_a_user_has_so_many_connections() -> None:
    configured = sdk.settings({"connections_per_user_and_node_max": 2})
    async with sdk.live(configured) as (hub, server):
        ann = sdk.token("ann", channels=["own:news"])
        async with connected(server.port, ann), connected(server.port, sdk.token("ben")):
            async with connected(server.port, ann), unconnected(server.port) as third:
                third.send(command(1, "connect", token=ann))
                assert await third.closed() == (3504, "connection limit")
                assert hub.node.registry.channels["own:news"].subscribers == 2
            async with asyncio.timeout(WAIT_S):
                while len(hub.node.registry.clients) > 2:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            async with connected(server.port, ann):
                pass


async def test_the_limit_of_a_user_is_one_of_each_node(redis_url: str) -> None:
    redis = {"url": redis_url, "prefix": "user-limit"}
    configured = sdk.settings({"connections_per_user_and_node_max": 1}, redis=redis)
    ann = sdk.token("ann")
    async with (
        sdk.live(configured) as (_, one),
        sdk.live(configured) as (_, other),
        connected(one.port, ann),
        connected(other.port, ann),
    ):
        for server in (one, other):
            async with unconnected(server.port) as second:
                second.send(command(1, "connect", token=ann))
                assert await second.closed() == (3504, "connection limit")


async def test_of_many_that_come_at_once_a_user_gets_no_more() -> None:
    configured = sdk.settings({"connections_per_user_and_node_max": 3})
    async with sdk.live(configured) as (hub, server), contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(unconnected(server.port)) for _ in range(20)]
        for peer in peers:
            peer.send(command(1, "connect", token=sdk.token("ann")))
        ends = [asyncio.ensure_future(peer.closed()) for peer in peers]
        for number, end in enumerate(asyncio.as_completed(ends), 1):
            assert (await end)[0] == 3504
            if number == 17:
                break
        assert len(hub.node.registry.users["ann"]) == 3
        for late in ends:
            late.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_an_sdk_that_is_one_too_many_stops() -> None:
    async with sdk.live(sdk.settings({"connections_per_user_and_node_max": 1})) as (_, server):
        token = sdk.token("ann")
        async with (
            connected(server.port, token),
            sdk.client(server.websocket_url, token=token) as (made, events),
        ):
            context = await events.next("disconnected")
            assert context.code == 3504
            assert made.state is ClientState.DISCONNECTED


async def test_who_is_inside_when_too_many_wait_may_come_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        sdk.live(sdk.settings(server={"handshakes_max": 1})) as (hub, server),
        unconnected(server.port) as first,
        unconnected(server.port) as second,
    ):
        monkeypatch.setattr(hub.node.admission.turns, "take", lambda: False)
        first.send(command(1, "connect", token=sdk.token("ann")))
        async with asyncio.timeout(WAIT_S):
            while not hub.node.admission.turns.connects._waiting:  # noqa: ASYNC110 - the node tells nobody
                await asyncio.sleep(0.01)
        second.send(command(1, "connect", token=sdk.token("ben")))
        assert await second.closed() == (3013, "too many requests")
        assert metric(hub, 'hub_refusals_total{reason="handshakes_max"}') == "1.0"
        monkeypatch.undo()
        hub.node.admission.turns._turn()
        assert "connect" in await first.reply()


async def test_who_is_inside_when_the_node_is_overloaded_may_come_again_later() -> None:
    async with sdk.live() as (hub, server), unconnected(server.port) as peer:
        hub.node.health.step = Step.ADMISSION
        peer.send(command(1, "connect", token=sdk.token("ann")))
        assert await peer.closed() == (3013, "too many requests")


async def test_under_another_server_too_the_address_counts() -> None:
    app = create_app(sdk.settings(server={"connections_per_address_max": 1, "trusted_proxies": []}))

    async def stranger(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            scope = {**scope, "client": ("198.51.100.7", 1), "extensions": {"websocket.http.response": {}}}
        await app(scope, receive, send)

    async with running(stranger) as server, await RawWebSocket.connect(server.port):
        await refused(server)
