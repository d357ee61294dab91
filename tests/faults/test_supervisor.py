"""Supervisor and workers, when the other is killed or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest
from support import sdk
from support.limits import WAIT_S
from support.rawws import RawWebSocket
from support.redis import RedisServer
from support.server import Process

import hub as hub_package
from hub.server.lifeline import BEAT, READY, ROLL
from hub.server.supervisor import HUNG_AFTER_S, WorkerProcess


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis server."""
    with RedisServer() as server:
        yield server


@contextlib.asynccontextmanager
async def supervised(redis: RedisServer, hub: Process) -> AsyncIterator[list[psutil.Process]]:
    """The worker processes of a hub, once both serve. They are killed at the end, where they still run."""
    workers: list[psutil.Process] = []
    try:
        workers = await _workers(hub)
        yield workers
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


async def _workers(hub: Process) -> list[psutil.Process]:
    """Wait until two nodes serve, and return their processes."""
    async with asyncio.timeout(WAIT_S):
        while await _nodes(hub) != 2:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.1)
    return psutil.Process(hub.pid).children()


async def _nodes(hub: Process) -> int:
    """How many nodes a worker knows of; 0 where the worker that was asked does not answer."""
    headers = {"X-API-Key": sdk.API_KEY}
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(headers=headers, timeout=5.0) as client:
            reply = (await client.post(f"{hub.url}/api/info", json={})).json()
            return len(reply["result"]["nodes"])
    return 0


def env(redis: RedisServer, **more: str) -> dict[str, str]:
    """The environment of a hub with two workers."""
    return {
        "HUB_REDIS__URL": redis.url,
        "HUB_SERVER__WORKERS": "2",
        "HUB_SERVER__DRAIN_WINDOW_S": "0.2",
        "HUB_API__KEY": sdk.API_KEY,
        **more,
    }


def impatient(folder: Path) -> list[str]:
    """The program of a hub whose supervisor soon takes a silent worker for one that hangs."""
    path = folder / "impatient.py"
    path.write_text(
        "from hub.server import supervisor\nfrom hub.cli.main import main\n"
        "if __name__ == '__main__':\n    supervisor.HUNG_AFTER_S = 5.0\n    main()\n"
    )
    return [str(path)]


async def gone(processes: list[psutil.Process]) -> None:
    """Wait until processes have ended."""
    async with asyncio.timeout(WAIT_S):
        while any(map(_runs, processes)):  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_workers_end_when_their_supervisor_is_killed(redis: RedisServer) -> None:
    async with Process("--dev", env=env(redis)) as hub, supervised(redis, hub) as workers:
        assert len(workers) == 2
        async with await RawWebSocket.connect(hub.port) as client:
            client.send_text('{"id":1,"connect":{}}')
            await client.read_text()
            await hub.kill()
            assert (await client.closed())[0] == 3001
        await gone(workers)


async def test_the_port_of_a_killed_supervisor_is_free_before_the_workers_have_drained(
    redis: RedisServer,
) -> None:
    slow = env(redis, HUB_SERVER__DRAIN_WINDOW_S="10", HUB_SERVER__DRAIN_TIMEOUT_S="10")
    async with Process("--dev", env=slow) as hub, supervised(redis, hub) as workers:
        clients = [await RawWebSocket.connect(hub.port) for _ in range(20)]
        await hub.kill()
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    socket.create_server(("127.0.0.1", hub.port)).close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        assert any(worker.is_running() for worker in workers)
        for client in clients:
            client.writer.transport.abort()
        await gone(workers)


async def test_a_worker_that_hangs_is_replaced(redis: RedisServer, tmp_path: Path) -> None:
    async with (
        Process("--dev", env=env(redis), program=impatient(tmp_path)) as hub,
        supervised(redis, hub) as workers,
    ):
        victim = workers[0]
        victim.suspend()
        await gone([victim])
        async with asyncio.timeout(WAIT_S):
            while len(now := await _workers(hub)) < 2:  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(0.1)
        assert victim.pid not in {worker.pid for worker in now}
        assert hub.log.count("worker.hung") == 1
        assert hub.log.count("worker.died") == 1


async def test_a_supervisor_ends_although_a_worker_hangs(redis: RedisServer, tmp_path: Path) -> None:
    async with (
        Process("--dev", env=env(redis), program=impatient(tmp_path)) as hub,
        supervised(redis, hub) as workers,
    ):
        workers[0].suspend()
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
        await gone(workers)


async def test_new_workers_run_the_code_and_the_settings_of_now(redis: RedisServer, tmp_path: Path) -> None:
    code = tmp_path / "hub"
    shutil.copytree(Path(hub_package.__file__).parent, code)
    config = tmp_path / "hub.toml"
    config.write_text("[client]\nanonymous = true\n")
    # The program `-m hub` is the package in the folder where it runs.
    new = env(redis, HUB_CONFIG=str(config))
    async with Process(env=new, cwd=tmp_path) as hub, supervised(redis, hub) as workers:
        settings = code / "settings.py"
        field = "class ClientSettings(Section):\n"
        assert field in settings.read_text()
        settings.write_text(
            settings.read_text().replace(field, field + '    """C"""\n    brand_new: int = 0\n    """N"""\n')
        )
        config.write_text("[client]\nanonymous = true\nbrand_new = 1\n")
        hub.signal(signal.SIGHUP)
        await hub.line("worker.rolled", 2)
        assert "roll.failed" not in hub.log
        await gone(workers)
        assert len(await _workers(hub)) == 2


async def test_workers_stay_where_the_settings_became_faulty(redis: RedisServer, tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text("[client]\nanonymous = true\n")
    async with (
        Process(env=env(redis, HUB_CONFIG=str(config))) as hub,
        supervised(redis, hub) as workers,
        await RawWebSocket.connect(hub.port) as client,
    ):
        client.send_text('{"id":1,"connect":{}}')
        await client.read_text()
        config.write_text("[client]\nanonymuos = true\nuser_personal_channel = 'canary'\n")
        hub.signal(signal.SIGHUP)
        line = json.loads(await hub.line("worker.failed"))
        assert line["reason"].startswith("client.anonymuos: is not a setting; did you mean anonymous?")
        await hub.line("roll.failed")
        assert all(map(_runs, workers))
        client.send_text('{"id":2,"rpc":{"method":"x"}}')
        assert '"code":108' in await client.read_text()
        assert "Traceback" not in hub.log
        assert "drain.started" not in hub.log


class FakeProcess:
    """A process that notes whether it was killed."""

    def __init__(self) -> None:
        self.killed = 0

    def poll(self) -> int | None:
        return -signal.SIGKILL if self.killed else None

    def kill(self) -> None:
        self.killed += 1


def test_a_worker_is_killed_once_it_is_silent_for_too_long() -> None:
    link, theirs = socket.socketpair()
    with theirs:
        fake = FakeProcess()
        worker = WorkerProcess(cast(Any, fake), link, now=0.0)
        worker.look(1, HUNG_AFTER_S)
        theirs.send(BEAT * 3 + READY)
        worker.look(1, HUNG_AFTER_S + 5)
        assert worker.is_ready
        assert not worker.wants_roll
        worker.look(1, 2 * HUNG_AFTER_S)
        theirs.send(ROLL)
        worker.look(1, 2 * HUNG_AFTER_S + 10)
        assert worker.wants_roll
        assert not fake.killed
        worker.look(1, 3 * HUNG_AFTER_S + 11)
        assert fake.killed == 1
        worker.look(1, 9 * HUNG_AFTER_S)
        assert fake.killed == 1
        worker.close()


def test_a_supervisor_that_was_stopped_itself_kills_no_worker() -> None:
    link, theirs = socket.socketpair()
    with theirs:
        fake = FakeProcess()
        worker = WorkerProcess(cast(Any, fake), link, now=0.0)
        theirs.send(BEAT)
        worker.look(1, 100 * HUNG_AFTER_S)
        assert not fake.killed
        worker.close()
