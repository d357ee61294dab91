"""The lives of a hub in an app: forks, second lives, two hubs, threads, and who ends first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected, until_gone
from support.ports import free_port
from support.rawws import RawWebSocket
from support.redis import RedisServer
from support.server import running, under_uvicorn

from hub import DisconnectEvent, Hub, NotStartedError
from hub.broker.base import BrokerState
from hub.core.overload import Step
from hub.node import members

PATH = "/live/connection/websocket"


# Two hubs


async def test_both_hubs_of_an_app_drain_at_a_signal(tmp_path: Path) -> None:
    program = tmp_path / "two.py"
    program.write_text(
        "import sys\nfrom starlette.applications import Starlette\nfrom hub import Hub\n"
        "from hub.config import load\nfrom hub.server import run\n"
        "settings = load(overrides={'dev': True, 'server': {'port': int(sys.argv[1]),"
        " 'drain_window_s': 600, 'drain_timeout_s': 600, 'lag_max_s': 0}}, env={}).for_development()\n"
        "app = Starlette()\n"
        "for path in ('/one', '/two'):\n    Hub(settings).install(app, path)\n"
        "run(app, settings)\n"
    )
    async with program_on_a_port(program, "/two/livez") as (port, process):
        sockets = [
            await RawWebSocket.connect(port, f"{path}/connection/websocket") for path in ("/one", "/two")
        ]
        for socket in sockets:
            socket.send_text('{"id":1,"connect":{}}')
            await socket.read_text()
        process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*(_state(port, path) for path in ("/one", "/two")))
        assert answers == ["draining", "draining"]
        process.send_signal(signal.SIGTERM)  # ends the drain, whose window is far longer than the test
        for socket in sockets:
            assert (await socket.closed())[0] == 3001
            socket.writer.close()
        assert await process.wait() == 0


async def _state(port: int, path: str) -> str:
    """What `/readyz` says, once it is not `healthy`."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client, asyncio.timeout(WAIT_S):
        while True:
            state = (await client.get(f"http://127.0.0.1:{port}{path}/readyz")).json()["status"]
            if state != "healthy":
                return str(state)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def program_on_a_port(
    program: Path, path: str, **env: str
) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """A Python program that serves on the port it is given, once it answers a path."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(port), env={**os.environ, **env}
    )
    try:
        async with httpx.AsyncClient(timeout=WAIT_S) as client, asyncio.timeout(WAIT_S):
            while True:
                assert process.returncode is None
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield port, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_signal_ends_an_app_that_does_not_get_started(tmp_path: Path) -> None:
    program = tmp_path / "waits.py"
    program.write_text(
        "import asyncio, contextlib, sys\nfrom starlette.applications import Starlette\n"
        "from hub import Hub\nfrom hub.config import load\nfrom hub.server import run\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(app):\n"
        "    print('waits', flush=True)\n    await asyncio.Event().wait()\n    yield\n"
        "settings = load(overrides={'server': {'port': int(sys.argv[1])}}, env={}).for_development()\n"
        "app = Starlette(lifespan=lifespan)\nHub(settings).install(app)\nrun(app, settings)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(free_port()), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            while await process.stdout.readline() != b"waits\n":
                assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# Who ends first


@pytest.mark.parametrize("own_server", [True, False], ids=["own server", "uvicorn"])
async def test_the_app_closes_nothing_that_a_disconnect_handler_needs(own_server: bool) -> None:
    database_open = False
    seen: list[bool] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        nonlocal database_open
        database_open = True
        yield
        database_open = False

    app = Starlette(lifespan=lifespan)
    hub = Hub(sdk.settings())
    hub.install(app)

    @hub.on_disconnect
    async def left(event: DisconnectEvent) -> None:
        await asyncio.sleep(0.3)
        seen.append(database_open)

    serving: Any = running(app, sdk.settings()) if own_server else under_uvicorn(app)
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving)
        port = served.port if own_server else served
        peers = [await _connected(port, sdk.token(f"user {number}")) for number in range(3)]
        await stack.aclose()  # which ends the server, with the clients still there
        for peer in peers:
            peer.socket.writer.close()
    assert seen == [True, True, True]


async def _connected(port: int, token: str) -> Peer:
    peer = Peer(await RawWebSocket.connect(port, PATH))
    peer.send(json.dumps({"id": 1, "connect": {"token": token}}))
    assert "connect" in await peer.reply()
    return peer


async def test_a_lifespan_of_the_apps_own_closes_what_it_opened_before_the_hub_last() -> None:
    """An app that composes its own lifespan enters the hub's after what the handlers use."""
    order: list[str] = []
    hub = Hub(sdk.settings())

    @hub.on_disconnect
    async def left(event: DisconnectEvent) -> None:
        await asyncio.sleep(0.1)
        order.append("left")

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        try:
            async with hub.lifespan():
                yield
        finally:
            order.append("closed")

    app = Starlette(routes=hub.routes(), lifespan=lifespan)
    async with running(app, sdk.settings()) as server:
        socket = await RawWebSocket.connect(server.port)
        peer = Peer(socket)
        peer.send(json.dumps({"id": 1, "connect": {"token": sdk.token("ann")}}))
        await peer.reply()
    socket.writer.close()
    assert order == ["left", "closed"]


# A second life


@pytest.mark.parametrize("with_redis", [False, True], ids=["memory", "redis"])
async def test_a_hub_lives_and_drains_more_than_once(with_redis: bool) -> None:
    with contextlib.ExitStack() as stack:
        redis = {"url": stack.enter_context(RedisServer()).url} if with_redis else {}
        configured = sdk.settings(redis=redis)
        hub = Hub(configured)
        app = Starlette()
        hub.install(app)
        for life in range(3):
            async with (
                running(app, configured) as server,
                connected(server.port, sdk.token("ann"), PATH) as peer,
            ):
                assert hub.node.is_serving
                position = await hub.publish("chat:a", life)
                assert position.offset == (life + 1 if with_redis else 1)
                await hub.drain(0.0)
                assert (await peer.closed())[0] == 3001
                assert hub.node.state == "draining"
            await until_gone(hub.node)
            with pytest.raises(NotStartedError):
                await hub.publish("chat:a", "between lives")


def test_a_hub_lives_in_one_event_loop_after_another() -> None:
    hub = Hub(sdk.settings())
    ids = []

    async def live() -> None:
        async with hub.lifespan():
            ids.append(hub.node.id)
            assert (await hub.publish("chat:a", "x")).offset == 1
            await hub.drain(0.0)

    for _ in range(3):
        asyncio.run(live())
    assert len(set(ids)) == 3


# Forks


FORKS = """
import asyncio, json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
from support import sdk
from hub import Hub
from hub.protocol.api import InfoRequest
hub = Hub(sdk.settings(redis={"url": sys.argv[1]} if sys.argv[1] else {}))

async def live(number):
    async with hub.lifespan():
        for _ in range(600):
            nodes = (await hub.request("info", InfoRequest())).nodes
            if len(nodes) == 2 or not sys.argv[1]:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # so that the other process sees this node
        return [hub.node.id, len({node.uid for node in nodes})]

children = []
for number in range(2):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, json.dumps(asyncio.run(live(number))).encode())
        os._exit(0)
    os.close(writer)
    children.append((child, reader))
print(json.dumps([json.loads(open(reader, "rb").read()) for _, reader in children]))
"""


@pytest.mark.parametrize("with_redis", [False, True], ids=["memory", "redis"])
async def test_forks_of_a_process_that_built_a_hub_are_different_nodes(with_redis: bool) -> None:
    """As under `gunicorn --preload -w 2`."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(RedisServer()).url if with_redis else ""
        folders = json.dumps([str(Path(__file__).parents[1])])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORKS, url, folders, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    (one, others_of_one), (two, others_of_two) = json.loads(said)
    assert one != two
    assert (others_of_one, others_of_two) == ((2, 2) if with_redis else (1, 1))


# What one life leaves to the next, and what holds up an end


async def test_the_state_of_a_life_is_not_that_of_the_life_before() -> None:
    hub = Hub(sdk.settings())
    async with hub.lifespan():
        hub.node.health.set_step(Step.ADMISSION)
        hub.node.health.set_repairing(True)
        hub.node.health.set_broker(BrokerState.DISCONNECTED, "gone")
        assert not hub.node.is_serving
    async with hub.lifespan():
        assert (hub.node.state, hub.node.health.reason, hub.node.is_serving) == ("healthy", "", True)


async def test_a_handler_that_ignores_its_cancellation_holds_up_no_end() -> None:
    hub = Hub(sdk.settings())
    called, ended = asyncio.Event(), asyncio.Event()

    @hub.on_rpc
    async def stubborn(event: Any) -> None:
        called.set()
        while not ended.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await ended.wait()

    app = Starlette(routes=hub.routes(), lifespan=hub.lifespan)
    app.state.hubs = [hub]
    async with running(app) as server, connected(server.port, sdk.token("ann")) as ann:
        ann.send(command(2, "rpc", method="m"))
        async with asyncio.timeout(WAIT_S):
            await called.wait()
    ended.set()
    assert hub.node.state == "stopped"


async def test_a_node_that_said_goodbye_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "HELLO_PERIOD_S", 0.02)
    with RedisServer() as redis:
        settings = sdk.settings(redis={"url": redis.url})
        one, two = Hub(settings), Hub(settings)
        async with one.lifespan():
            async with two.lifespan():
                async with asyncio.timeout(WAIT_S):
                    while not one.node.members.others:  # noqa: ASYNC110 - the node tells nobody
                        await asyncio.sleep(0.01)
                await two.node.members.stop()
                await asyncio.sleep(0.2)  # it could say more than one hello in this time
                result = await one.disconnect("ann")
            assert (result.confirmed, result.nodes.total) == (True, 1)


async def test_emulated_commands_that_reach_no_node_are_not_taken() -> None:
    with RedisServer() as redis:
        hub = Hub(sdk.settings(redis={"url": redis.url}))
        app = Starlette(routes=hub.routes(), lifespan=hub.lifespan)
        async with running(app) as server, httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            hub.node.members._heard["cut-off"] = hub.node.loop.time()
            body = {"session": "s", "node": "cut-off", "data": json.dumps({"id": 1, "ping": {}})}
            response = await http.post("/emulation", json=body)
            assert response.status_code == 503
            assert "Retry-After" in response.headers
