"""How a hub ends: at SIGTERM over its drain window, at Ctrl+C at once, and at a second signal right then."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import pytest
from support.edge import AttachingApp
from support.rawws import RawWebSocket
from support.server import Process, running

from hub.config import load

CONNECT = '{"id":1,"connect":{}}'


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
    async with Process("--dev", env={"HUB_SERVER__DRAIN_WINDOW_S": "2"}) as hub:
        clients = await _connect(hub, 40)
        started = time.monotonic()
        hub.signal(signal.SIGTERM)
        ends = await asyncio.gather(*(_closed_after(client, started) for client in clients))
        assert await hub.wait() == 0
        took = time.monotonic() - started
    assert {code for code, _ in ends} == {3001}
    times = sorted(seconds for _, seconds in ends)
    assert times[-1] < 3
    assert times[20] > 0.4, "half of them were gone at once: no spread"
    assert times[-1] - times[0] > 1
    assert took < 5


async def test_a_draining_hub_accepts_nobody() -> None:
    async with Process("--dev", env={"HUB_SERVER__DRAIN_WINDOW_S": "3"}) as hub:
        clients = await _connect(hub, 20)
        hub.signal(signal.SIGTERM)
        first = [asyncio.ensure_future(client.closed()) for client in clients]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", hub.port)
        hub.signal(signal.SIGTERM)
        await asyncio.gather(*first)
        for client in clients:
            client.writer.close()


async def test_ctrl_c_sends_everybody_away_at_once() -> None:
    async with Process("--dev", env={"HUB_SERVER__DRAIN_WINDOW_S": "20"}) as hub:
        clients = await _connect(hub, 20)
        started = time.monotonic()
        hub.signal(signal.SIGINT)
        ends = await asyncio.gather(*(_closed_after(client, started) for client in clients))
        assert await hub.wait() == 0
        assert {code for code, _ in ends} == {3001}
        assert max(seconds for _, seconds in ends) < 1.5


async def test_a_second_signal_ends_the_drain() -> None:
    async with Process("--dev", env={"HUB_SERVER__DRAIN_WINDOW_S": "20"}) as hub:
        clients = await _connect(hub, 20)
        started = time.monotonic()
        hub.signal(signal.SIGTERM)
        await asyncio.wait(
            [asyncio.ensure_future(client.closed()) for client in clients],
            return_when=asyncio.FIRST_COMPLETED,
            timeout=5,
        )
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
        assert time.monotonic() - started < 9
        for client in clients:
            client.writer.close()


async def test_who_does_not_leave_holds_nothing_up() -> None:
    env = {"HUB_SERVER__DRAIN_WINDOW_S": "0.5", "HUB_SERVER__DRAIN_TIMEOUT_S": "1"}
    async with Process("--dev", env=env) as hub:
        clients = await _connect(hub, 5)
        started = time.monotonic()
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
        assert time.monotonic() - started < 5
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
