"""`hub roll` and SIGHUP: a hub ends, and the same process serves with a new node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected
from support.redis import RedisServer
from support.server import Process, under_uvicorn

from hub import Hub
from hub.cli.main import main

APP = """
import contextlib, multiprocessing, os, sys
from starlette.applications import Starlette
from hub import Hub
from hub.config import load
from hub.server import run

@contextlib.asynccontextmanager
async def lifespan(app):
    print("opened by", os.getpid())
    yield
    print("closed by", os.getpid())

def main():
    app = Starlette(lifespan=lifespan)
    hub = Hub(load(overrides={"server": {"port": int(sys.argv[sys.argv.index("--port") + 1])}}))
    hub.install(app, "/live")
    run(app, hub.settings)
    print("ended")

if __name__ == "__main__":
"""

IN_THE_PROGRAM = APP + "    main()\n"
IN_A_CHILD = APP + (
    "    child = multiprocessing.get_context('spawn').Process(target=main)\n"
    "    child.start()\n    print('child', child.pid, flush=True)\n    child.join()\n"
)
IN_A_FORK = APP + (
    "    if child := os.fork():\n        print('child', child, flush=True)\n        os.wait()\n"
    "    else:\n        main()\n"
)
IN_A_THREAD = APP + (
    "    import signal, threading\n    signal.signal = lambda *_: None\n"
    "    thread = threading.Thread(target=main)\n    thread.start()\n    thread.join()\n"
)

ENV = {
    "HUB_API__KEY": sdk.API_KEY,
    "HUB_CLIENT__ANONYMOUS": "true",
    "HUB_SERVER__DRAIN_WINDOW_S": "0.2",
}


class EmbeddedHub(Process):
    """A program whose app has a hub under `/live`."""

    def __init__(self, folder: Path, program: str, **env: str) -> None:
        file = folder / "program.py"
        file.write_text(program)
        super().__init__(env=ENV | env, program=[str(file)], prefix="/live")

    async def call(self, method: str, **request: Any) -> Any:
        async with httpx.AsyncClient(headers={"X-API-Key": sdk.API_KEY}, timeout=WAIT_S) as client:
            return (await client.post(f"{self.url}/api/{method}", json=request)).json()

    async def node(self) -> str:
        """The id of its node."""
        [node] = (await self.call("info"))["result"]["nodes"]
        return str(node["uid"])

    async def terminate(self) -> None:
        """End it by SIGTERM: at SIGINT gunicorn ends its workers without the end of their lifespan."""
        self.signal(signal.SIGTERM)
        await self.wait()

    async def nodes(self, count: int) -> set[str]:
        """Wait until there are so many nodes, and return their ids."""
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if len(found := (await self.call("info"))["result"]["nodes"]) == count:
                        return {node["uid"] for node in found}
                await asyncio.sleep(0.05)  # of other processes

    async def replaced(self, node: str) -> None:
        """Wait until another node serves in its place."""
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if await self.node() != node:
                        return
                await asyncio.sleep(0.05)  # a process that starts announces itself by nothing else


@contextlib.asynccontextmanager
async def embedded(folder: Path, program: str = IN_THE_PROGRAM, **env: str) -> AsyncIterator[EmbeddedHub]:
    hub = EmbeddedHub(folder, program, **env)
    async with hub:
        yield hub


async def test_a_roll_brings_an_app_back_that_run_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with embedded(tmp_path) as hub:
        node, pid = await hub.node(), hub.pid
        async with connected(hub.port, path="/live/connection/websocket") as peer:
            rolling = asyncio.create_task(hub_roll(hub.url))
            assert (await peer.closed())[0] == 3001
        assert await rolling == 0
        assert capsys.readouterr().out == f"{hub.url} serves again, with 1 new node\n"
        assert await hub.node() != node
        assert hub.pid == pid
        assert await hub.stop() == 0
    # What the app printed before it was replaced is not lost.
    assert [line for line in hub.log.splitlines() if line.startswith(("opened", "closed", "ended"))] == [
        f"opened by {pid}",
        f"closed by {pid}",
        f"opened by {pid}",
        f"closed by {pid}",
        "ended",
    ]


async def test_sighup_brings_an_app_back_that_run_serves(tmp_path: Path) -> None:
    async with embedded(tmp_path) as hub:
        for _ in range(2):
            node = await hub.node()
            hub.signal(signal.SIGHUP)
            await hub.replaced(node)


async def test_an_app_whose_settings_became_faulty_goes_on_at_sighup(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text("[client]\nanonymous = true\n")
    async with embedded(tmp_path, HUB_CONFIG=str(config)) as hub:
        node = await hub.node()
        async with connected(hub.port, path="/live/connection/websocket") as peer:
            config.write_text("[client]\nanonymuos = true\n[client.token]\nhmac_secret = 'canary'\n")
            hub.signal(signal.SIGHUP)
            line = await hub.line("restart.refused")
            assert "client.anonymuos: is not a setting; did you mean anonymous?" in line
            assert "canary" not in hub.log
            error = (await hub.call("drain", restart=True))["error"]
            assert error["code"] == 108
            assert "client.anonymuos: is not a setting" in error["message"]
            assert await hub.node() == node
            assert await peer.error(command(2, "rpc", method="x")) == 108
        config.write_text("[client]\nanonymous = true\n")
        hub.signal(signal.SIGHUP)
        await hub.replaced(node)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[client]\nping_interval_s = 'x'", "client.ping_interval_s: must be a valid number"),
        ("[redis]\nurl = 'redis://a,b'", "redis.url: names 2 hosts"),
        ("[client.token]\npublic_key = '-----BEGIN x'", "client.token.public_key must be a public key"),
        ("[client", "is not valid TOML"),
    ],
)
async def test_a_hub_whose_settings_became_faulty_goes_on_at_sighup(
    tmp_path: Path, text: str, reason: str
) -> None:
    config = tmp_path / "hub.toml"
    config.write_text("[client]\nanonymous = true\n")
    async with Process("--config", str(config)) as hub, connected(hub.port) as peer:
        config.write_text(text)
        hub.signal(signal.SIGHUP)
        assert reason in json.loads(await hub.line("restart.refused"))["reason"]
        assert await peer.error(command(2, "rpc", method="x")) == 108
        assert "drain.started" not in hub.log


@pytest.mark.parametrize("program", [IN_A_CHILD, IN_A_FORK, IN_A_THREAD], ids=["child", "fork", "thread"])
async def test_an_app_is_not_restarted_where_that_would_start_another_program(
    tmp_path: Path, program: str
) -> None:
    async with embedded(tmp_path, program) as hub:
        node = await hub.node()
        error = (await hub.call("drain", restart=True))["error"]
        assert error["code"] == 108
        assert "start the app with hub.server.run in the main thread" in error["message"]
        assert "restart.unavailable: this process cannot restart itself; start the app with" in hub.log
        assert await hub.node() == node
        if program is IN_A_THREAD:
            await hub.kill()
        else:
            child = int(hub.log.partition("child ")[2].split()[0])
            os.kill(child, signal.SIGHUP)
            assert await hub.wait() == 0
            assert "ended\n" in hub.log


async def test_a_roll_replaces_the_workers_of_an_app_that_run_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RedisServer() as redis:
        async with embedded(tmp_path, HUB_REDIS__URL=redis.url, HUB_SERVER__WORKERS="2") as hub:
            before, pid = await hub.nodes(2), hub.pid
            async with connected(hub.port, path="/live/connection/websocket") as peer:
                rolling = asyncio.create_task(hub_roll(hub.url))
                assert (await peer.closed())[0] == 3001
            assert await rolling == 0
            assert capsys.readouterr().out == f"{hub.url} serves again, with 2 new nodes\n"
            assert before.isdisjoint(await hub.nodes(2))
            assert hub.pid == pid
            assert await hub.stop() == 0
    opened = {line.split()[-1] for line in hub.log.splitlines() if line.startswith("opened by ")}
    assert len(opened) == 4
    assert str(pid) not in opened
    assert hub.log.count("closed by ") == 4


WITHOUT_REDIS = """
from starlette.applications import Starlette
from hub import Hub, Settings
from hub.config import load
from hub.server import run

app = Starlette()
Hub(Settings()).install(app, "/live")
run(app, load())
"""


async def test_workers_are_refused_where_a_hub_has_no_redis(tmp_path: Path) -> None:
    env = {"HUB_REDIS__URL": "redis://127.0.0.1:1", "HUB_SERVER__WORKERS": "2"}
    with pytest.raises(AssertionError, match="2 worker processes have no Redis between them"):
        await EmbeddedHub(tmp_path, WITHOUT_REDIS, **env).start()


@pytest.mark.parametrize("program", [IN_A_CHILD, IN_A_FORK, IN_A_THREAD], ids=["child", "fork", "thread"])
async def test_workers_are_refused_where_a_worker_would_be_another_program(
    tmp_path: Path, program: str
) -> None:
    with RedisServer() as redis:
        hub = EmbeddedHub(tmp_path, program, HUB_REDIS__URL=redis.url, HUB_SERVER__WORKERS="2")
        with pytest.raises(AssertionError, match=r"server\.workers = 2: a worker starts this program again"):
            await hub.start()


SHOP = """
import sys
from starlette.applications import Starlette
from hub import Hub

app = Starlette()
hub = Hub()
hub.install(app, "/live")
"""

UNDER_A_SERVER = """
import os, sys
os.chdir(os.path.dirname(os.path.abspath(__file__)))
command = {command!r}.format(port=sys.argv[sys.argv.index("--port") + 1])
os.execv(sys.executable, [sys.executable, *command.split()])
"""

ROLLING_SERVERS = {
    "uvicorn": ("-m uvicorn shop:app --port {port}", 1),
    "uvicorn-workers": ("-m uvicorn shop:app --port {port} --workers 2", 2),
    "gunicorn": ("-m gunicorn shop:app -k asgi -b 127.0.0.1:{port}", 1),
    "gunicorn-workers": ("-m gunicorn shop:app -k asgi -b 127.0.0.1:{port} --workers 2", 2),
}

OTHER_SERVERS = {
    "hypercorn": "-m hypercorn shop:app -b 127.0.0.1:{port}",
    "granian": "-m granian --interface asgi shop:app --port {port}",
    "gunicorn-preload": "-m gunicorn shop:app -k asgi -b 127.0.0.1:{port} --preload",
    "uvicorn-reload": "-m uvicorn shop:app --port {port} --reload",
}


def under(folder: Path, command: str) -> str:
    """A program that becomes the command of a server, which serves an app with a hub."""
    (folder / "shop.py").write_text(SHOP)
    return UNDER_A_SERVER.format(command=command)


@pytest.mark.parametrize("name", ROLLING_SERVERS)
async def test_a_roll_brings_an_app_back_under_other_servers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    command, count = ROLLING_SERVERS[name]
    with RedisServer() as redis:
        async with embedded(tmp_path, under(tmp_path, command), HUB_REDIS__URL=redis.url) as hub:
            before, pid = await hub.nodes(count), hub.pid
            for number in (1, 2):
                async with connected(hub.port, path="/live/connection/websocket") as peer:
                    rolling = asyncio.create_task(hub_roll(hub.url))
                    assert (await peer.closed())[0] == 3001
                assert await rolling == 0, capsys.readouterr().err
                after = await hub.nodes(count)
                assert before.isdisjoint(after), number
                before = after
            assert hub.pid == pid
            assert "restart.unavailable" not in hub.log
            await hub.terminate()


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn-workers", "gunicorn-workers"])
async def test_an_app_under_other_servers_goes_on_where_its_settings_became_faulty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    command, count = ROLLING_SERVERS[name]
    config = tmp_path / "hub.toml"
    config.write_text("[client]\nanonymous = true\n")
    with RedisServer() as redis:
        program = under(tmp_path, command)
        env = {"HUB_REDIS__URL": redis.url, "HUB_CONFIG": str(config)}
        async with embedded(tmp_path, program, **env) as hub:
            before = await hub.nodes(count)
            config.write_text("[client]\nanonymuos = true\n")
            assert await hub_roll(hub.url) == 1
            assert "client.anonymuos: is not a setting; did you mean anonymous?" in capsys.readouterr().err
            assert await hub.nodes(count) == before
            await hub.terminate()


LINGERING_SHOP = """
import asyncio, contextlib, os
from starlette.applications import Starlette
from hub import Hub

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    print("closing", flush=True)
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)

app = Starlette(lifespan=lifespan)
Hub().install(app, "/live")
"""


async def test_an_app_that_ends_for_a_restart_ends_for_good_at_a_signal(tmp_path: Path) -> None:
    program = under(tmp_path, ROLLING_SERVERS["uvicorn"][0])
    (tmp_path / "shop.py").write_text(LINGERING_SHOP)
    async with embedded(tmp_path, program) as hub:
        await hub.call("drain", restart=True)
        await hub.line("closing")
        hub.signal(signal.SIGINT)
        (tmp_path / "go").touch()
        await hub.wait()
        assert hub.log.count("closing") == 1


@pytest.mark.parametrize("name", OTHER_SERVERS)
async def test_a_server_that_cannot_roll_says_so_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    async with embedded(tmp_path, under(tmp_path, OTHER_SERVERS[name])) as hub:
        line = await hub.line("restart.unavailable")
        assert "restart.unavailable: this process cannot restart itself; start the app with" in line
        assert await hub_roll(hub.url) == 1
        assert "this process cannot restart itself" in capsys.readouterr().err
        await hub.terminate()


async def test_a_roll_says_what_to_do_where_another_server_runs_the_app(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = Starlette()
    Hub(sdk.settings()).install(app)
    async with under_uvicorn(app) as port:
        assert await hub_roll(f"http://127.0.0.1:{port}/live") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("hub: not available: this process cannot restart itself; start the app with ")


def test_a_roll_pauses_between_hubs_and_not_after_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    happened: list[Any] = []

    def roll_hub(url: str, *_: Any) -> int:
        happened.append(url)
        return 1

    monkeypatch.setattr("hub.cli.roll.roll_hub", roll_hub)
    monkeypatch.setattr("hub.cli.roll.time.sleep", happened.append)
    config = tmp_path / "hub.toml"
    config.write_text("[server]\nroll_pause_s = 7.5\n")
    with pytest.raises(SystemExit):
        main(["roll", "http://one", "http://two", "http://three", "--key", "k", "--config", str(config)])
    assert happened == ["http://one", 7.5, "http://two", 7.5, "http://three"]


async def hub_roll(url: str) -> int:
    """Run `hub roll` on a hub, and return its exit code."""

    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            main(["roll", url, "--key", sdk.API_KEY])
        return int(ended.value.code or 0)

    return await asyncio.to_thread(run)
