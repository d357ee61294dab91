"""How a hub ends: at SIGTERM over its drain window, at Ctrl+C at once, and at a second signal right then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from typing import Any

import httpx
import pytest
from support import nodes, sdk
from support.edge import AttachingApp
from support.limits import WAIT_S
from support.peer import command, connected, unconnected
from support.rawws import HandshakeError, RawWebSocket
from support.redis import RedisServer
from support.server import Process, running

from hub.config import load
from hub.node.connection import Connection
from hub.node.drain import STEP_MAX, farewell

CONNECT = '{"id":1,"connect":{}}'
LONG_DRAIN = {"HUB_SERVER__DRAIN_WINDOW_S": "600", "HUB_SERVER__DRAIN_TIMEOUT_S": "600"}
"""A drain that no test waits for."""


async def _connect(hub: Process, count: int) -> list[RawWebSocket]:
    clients = [await RawWebSocket.connect(hub.port) for _ in range(count)]
    for client in clients:
        client.send_text(CONNECT)
        assert "connect" in json.loads(await client.read_text())
    return clients


async def _closed_after(client: RawWebSocket, started: float) -> tuple[int, float]:
    code, _ = await client.closed()
    client.writer.close()
    return code, time.monotonic() - started


async def test_sigterm_asks_clients_to_leave_over_the_window_and_exits_cleanly() -> None:
    window_s = 5.0
    async with Process("--dev", env={"HUB_SERVER__DRAIN_WINDOW_S": str(window_s)}) as hub:
        clients = await _connect(hub, 40)
        started = time.monotonic()
        hub.signal(signal.SIGTERM)
        ends = await asyncio.gather(*(_closed_after(client, started) for client in clients))
        assert await hub.wait() == 0
    assert {code for code, _ in ends} == {3001}
    times = sorted(seconds for _, seconds in ends)
    # A busy machine makes a client late, never early.
    assert times[20] > window_s / 5, "half of them were gone at once: no spread"
    assert times[-1] > window_s / 2


async def test_a_draining_hub_says_that_others_should_be_asked() -> None:
    async with Process("--dev", env={"HUB_SERVER__DRAIN_WINDOW_S": "20"}) as hub:
        clients = await _connect(hub, 20)
        hub.signal(signal.SIGTERM)
        waiting = [asyncio.ensure_future(client.closed()) for client in clients]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
        async with httpx.AsyncClient(base_url=hub.url, timeout=WAIT_S) as client:
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            assert 1 <= int(ready.headers["retry-after"]) <= 5
            assert ready.headers["access-control-allow-origin"] == "*"  # a page may see it
            assert ready.headers["access-control-expose-headers"] == "Retry-After"
            assert (await client.get("/livez")).status_code == 200
            with pytest.raises(HandshakeError, match="503") as refused:
                await RawWebSocket.connect(hub.port)
            assert "retry-after: " in refused.value.head.lower()
            metrics = (await client.get("/metrics")).text
        assert 'hub_state{hub_state="draining"} 1.0' in metrics
        assert 'hub_refusals_total{reason="draining"} 1.0' in metrics
        hub.signal(signal.SIGTERM)
        await asyncio.gather(*waiting)
        for each in clients:
            each.writer.close()


async def test_who_connects_while_it_begins_is_sent_away_with_the_others() -> None:
    async with sdk.live() as (hub, server), unconnected(server.port) as peer:
        hub.node.begin_draining()
        peer.send(command(1, "connect", token=sdk.token("ann")))
        assert (await peer.closed())[0] == 3001


async def test_what_waits_for_a_slow_reader_goes_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.node.drain.random.uniform", lambda *_: 0.0)  # everybody's moment is the first
    async with sdk.live() as (hub, server), unconnected(server.port, receive_buffer_bytes=4096) as slow:
        await slow.ask(command(1, "connect", token=sdk.token("ann", channels=["own:news"])))
        [connection] = hub.node.connections
        count = 0
        while not connection.waiting_bytes:
            await hub.publish("own:news", "x" * 50_000)
            await asyncio.sleep(0)  # it leaves at the end of the turn
            count += 1
        drained = asyncio.ensure_future(hub.drain(600.0))
        for _ in range(count):
            assert "pub" in (await slow.reply())["push"]
        assert (await slow.closed())[0] == 3001
        await drained


async def test_the_drain_happens_once_and_may_be_hurried() -> None:
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        first = asyncio.ensure_future(hub.drain(600.0))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(hub.drain(0.0))
        assert (await peer.closed())[0] == 3001
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(first, second)
        await hub.drain(600.0)


async def test_a_large_batch_leaves_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sdk.live() as (hub, server), contextlib.AsyncExitStack() as stack:
        count = 3 * STEP_MAX
        for _ in range(count):
            await stack.enter_async_context(unconnected(server.port))
        in_a_turn = [0]

        async def turn() -> None:
            while True:
                await asyncio.sleep(0)
                in_a_turn.append(0)

        def leave(connection: Connection, now: float) -> None:
            in_a_turn[-1] += 1
            farewell(connection, now)

        monkeypatch.setattr("hub.node.drain.farewell", leave)
        turning = asyncio.ensure_future(turn())
        await hub.drain(0.0)
        turning.cancel()
        assert sum(in_a_turn) == count
        assert max(in_a_turn) == STEP_MAX


# Asked for by a backend


DONE = {"result": {"confirmed": True, "nodes": {"confirmed": 1, "total": 1}}}


class Backend:
    """Calls the server API of a hub."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers={"X-API-Key": sdk.API_KEY}, timeout=WAIT_S)

    async def __aenter__(self) -> Backend:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def drain(self, **request: Any) -> Any:
        return (await self._client.post("/api/drain", json=request)).json()

    async def knows(self, node: str) -> None:
        """Wait until the hub's node has heard of another one."""
        async with asyncio.timeout(WAIT_S):
            while node not in (await self._client.post("/api/info", json={})).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # nodes announce themselves by nothing that a client hears

    async def ready(self) -> int:
        return (await self._client.get("/readyz")).status_code


async def test_a_backend_drains_the_node_that_it_calls() -> None:
    configured = sdk.settings(server={"drain_window_s": 0.0})
    async with sdk.live(configured) as (_, server), Backend(server.url) as backend:
        async with connected(server.port, sdk.token("ann")) as peer:
            assert await backend.drain() == DONE
            assert (await peer.closed())[0] == 3001
        assert await backend.ready() == 503
        assert await backend.drain() == DONE


async def test_a_backend_drains_another_node_by_its_id() -> None:
    with RedisServer() as redis:
        configured = sdk.settings(redis={"url": redis.url}, server={"drain_window_s": 0.0})
        async with (
            sdk.live(configured) as (_, one),
            sdk.live(configured) as (other, two),
            Backend(one.url) as backend,
            connected(one.port, sdk.token("ann")) as stays,
            connected(two.port, sdk.token("ben")) as leaves,
        ):
            await backend.knows(other.node.id)
            assert await backend.drain(node=other.node.id) == DONE
            assert (await leaves.closed())[0] == 3001
            assert await backend.ready() == 200
            assert "ping" in (await stays.ask(command(2, "ping")))[0]
            assert (await backend.drain(node="nobody"))["error"]["code"] == 107


async def test_a_drain_that_another_node_does_not_confirm_says_so() -> None:
    async with nodes.two_nodes() as pair, Backend(pair.first.url) as backend:
        await backend.knows(pair.two.node.id)
        await pair.break_link("silent")
        reply = await backend.drain(node=pair.two.node.id)
        assert reply == {"result": {"confirmed": False, "nodes": {"confirmed": 0, "total": 1}}}


async def test_a_process_that_cannot_restart_itself_says_what_to_do() -> None:
    async with sdk.live() as (hub, server), Backend(server.url) as backend:
        error = (await backend.drain(restart=True))["error"]
        assert error["code"] == 108
        assert "start the app with hub.server.run" in error["message"]
        assert hub.node.is_serving


async def test_another_node_restarts_or_says_what_to_do() -> None:
    async with nodes.two_nodes() as pair, Backend(pair.first.url) as backend:
        other = pair.two.node.id
        await backend.knows(other)
        error = (await backend.drain(node=other, restart=True))["error"]
        assert error["code"] == 108
        assert "start the app with hub.server.run" in error["message"]
        assert pair.two.node.is_serving

        restarted = asyncio.Event()
        pair.two.served_by_hub(restarted.set)
        assert await backend.drain(node=other, restart=True) == DONE
        assert restarted.is_set()


async def test_the_signal_joins_the_drain_that_a_backend_began() -> None:
    env = {"HUB_SERVER__DRAIN_WINDOW_S": "1", "HUB_API__KEY": sdk.API_KEY}
    async with Process("--dev", env=env) as hub, Backend(hub.url) as backend:
        clients = await _connect(hub, 5)
        await backend.drain()
        ends = [await client.closed() for client in clients]
        assert {code for code, _ in ends} == {3001}
        assert await backend.ready() == 503
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
        assert hub.log.count("drain.started") == 1
        for client in clients:
            client.writer.close()


# Signals


async def test_a_drain_logs_no_warning() -> None:
    with RedisServer() as redis:
        env = {
            "HUB_SERVER__DRAIN_WINDOW_S": "0.5",
            "HUB_REDIS__URL": redis.url,
            "HUB_CLIENT__RECONNECT__KEYS": json.dumps(["k" * 32]),
            "HUB_CLIENT__TOKEN__HMAC_SECRET": sdk.SECRET,
            "HUB_CLIENT__USER_PERSONAL_CHANNEL": "{user}",
        }
        async with Process(env=env) as hub:
            sockets = [await RawWebSocket.connect(hub.port) for _ in range(10)]
            for number, socket in enumerate(sockets):
                socket.send_text(command(1, "connect", token=sdk.token(f"user {number}")))
                assert "connect" in json.loads(await socket.read_text())
            hub.signal(signal.SIGTERM)
            for socket in sockets:
                assert (await socket.closed())[0] == 3001
                socket.writer.close()
            assert await hub.wait() == 0
        lines = [json.loads(line) for line in hub.log.splitlines()]
        assert [line for line in lines if line["level"] not in ("info", "debug")] == []


async def test_ctrl_c_sends_everybody_away_at_once() -> None:
    async with Process("--dev", env=LONG_DRAIN) as hub:
        clients = await _connect(hub, 20)
        hub.signal(signal.SIGINT)
        ends = await asyncio.gather(*(client.closed() for client in clients))
        assert await hub.wait() == 0
        assert {code for code, _ in ends} == {3001}
        for client in clients:
            client.writer.close()


async def test_a_second_signal_ends_the_drain() -> None:
    async with Process("--dev", env=LONG_DRAIN) as hub:
        clients = await _connect(hub, 20)
        hub.signal(signal.SIGTERM)
        await hub.line("drain.started")
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
        for client in clients:
            client.writer.close()


async def test_who_does_not_leave_holds_nothing_up() -> None:
    env = {"HUB_SERVER__DRAIN_WINDOW_S": "0.5", "HUB_SERVER__DRAIN_TIMEOUT_S": "1"}
    async with Process("--dev", env=env) as hub:
        clients = await _connect(hub, 5)
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
        for client in clients:
            client.writer.transport.abort()


@pytest.mark.parametrize("failure", ["late", "raises"])
async def test_a_drain_that_goes_wrong_ends_all_the_same(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[float] = []

    async def drain(window_s: float) -> None:
        asked.append(window_s)
        if failure == "raises":
            raise RuntimeError("the app's fault")
        await asyncio.Event().wait()

    settings = load(overrides={"server": {"drain_window_s": 0.1, "drain_timeout_s": 0.2}}, env={})
    app = AttachingApp()
    async with running(app, settings, drain=drain) as hub:
        client = await RawWebSocket.connect(hub.port, "/")
        hub.server.handle_exit(signal.SIGTERM, None)
        assert (await client.closed())[0] == 3001
        client.writer.close()
        await (await app.accepted()).wait_closed()
    assert asked == [0.1]
    assert "drain.failed" in caplog.text


async def test_an_interrupt_asks_for_no_window() -> None:
    asked: list[float] = []

    async def drain(window_s: float) -> None:
        asked.append(window_s)

    app = AttachingApp()
    async with running(app, drain=drain) as hub:
        client = await RawWebSocket.connect(hub.port, "/")
        hub.server.handle_exit(signal.SIGINT, None)
        await client.closed()
        client.writer.close()
    assert asked == [0.0]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_a_normal_drain_over_redis_alerts_nobody(sig: signal.Signals) -> None:
    options = {"PRESENCE": "true", "JOIN_LEAVE": "true", "HISTORY_SIZE": "10", "HISTORY_TTL_S": "60"}
    env = {f"HUB_CHANNELS__CHAT__{name}": value for name, value in options.items()}
    with RedisServer() as redis:
        env |= {
            **{"HUB_CLIENT__INSECURE": "true", "HUB_SERVER__DRAIN_WINDOW_S": "0.2"},
            **{"HUB_REDIS__URL": redis.url, "HUB_CLIENT__RECONNECT__KEYS": "k" * 40},
        }
        async with Process(env=env) as hub:
            clients = await _connect(hub, 60)
            for client in clients:
                client.send_text(
                    "\n".join(command(2 + n, "subscribe", channel=f"chat:{n}") for n in range(20))
                )
                await client.read_text()
            hub.signal(sig)
            for client in clients:
                await client.closed()
                client.writer.close()
            assert await hub.wait() == 0
        lines = [json.loads(line) for line in hub.log.splitlines() if line.startswith("{")]
    alerts = [line for line in lines if line["level"] in ("warning", "error", "critical")]
    assert [line["event"] for line in alerts] == ["hub.insecure"], alerts
