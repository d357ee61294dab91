"""Mistakes in the settings, and at the start of a hub."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import sdk
from support.limits import WAIT_S
from support.ports import free_port
from support.redis import RedisServer

from hub import Hub, StartupError
from hub.cli.main import main
from hub.settings import Settings

Start = Callable[..., str]


@pytest.fixture
def start(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Run `hub serve`, or another command, with faulty settings in a file. Returns its errors."""
    for name in os.environ:
        if name.startswith("HUB_"):
            monkeypatch.delenv(name)

    def run(text: str = "", *arguments: str, command: str = "serve", code: int = 2) -> str:
        path = tmp_path / "hub.toml"
        path.write_text(text)
        with pytest.raises(SystemExit) as ended:
            main([command, *arguments, *([] if "--config" in arguments else ["--config", str(path)])])
        assert ended.value.code == code
        return capsys.readouterr().err

    return run


def test_misspelt_key(start: Start, says: Any) -> None:
    says(start("[client]\nping_intreval_s = 30"))


def test_misspelt_table(start: Start, says: Any) -> None:
    says(start("[clinet]\nanonymous = true"))


def test_wrong_type(start: Start, says: Any) -> None:
    says(start("[server]\nport = 'eighty'"))


def test_wrong_toml(start: Start, says: Any) -> None:
    says(start("[server]\nport: 8000"))


def test_missing_file(start: Start, says: Any) -> None:
    says(start("", "--config", "/nowhere/hub.toml"))


def test_one_underscore(start: Start, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_CLIENT_PING_INTERVAL_S", "30")
    says(start())


async def test_ignored_variables(says: Any, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_CLIENT__ANONYMOUS", "true")
    async with Hub(Settings()).lifespan():
        says(log)


def test_short_secret(start: Start, says: Any) -> None:
    says(start("[client.token]\nhmac_secret = 'secret'"))


def test_history_without_time(start: Start, says: Any) -> None:
    says(start("[channels.chat]\nhistory_size = 100"))


def test_origin_with_path(start: Start, says: Any) -> None:
    says(start("[client]\nallowed_origins = ['https://shop.example/']"))


def test_closed_namespace(start: Start, says: Any) -> None:
    says(start("[channels.chat]\npresence = true", command="config", code=0))


async def started(*arguments: str) -> str:
    """What `hub serve` writes in a process of its own, which ends though its settings are right."""
    command = (sys.executable, "-m", "hub", "serve", *arguments)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(WAIT_S):
        _, errors = await process.communicate()
    assert process.returncode == 1
    return errors.decode()


async def test_port_taken(says: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        says(await started("--port", str(other.getsockname()[1])))


async def test_foreign_host(says: Any) -> None:
    says(await started("--host", "192.0.2.1"))


def test_redis_without_scheme(start: Start, says: Any) -> None:
    says(start("", "--redis", "localhost:6379"))


async def test_absent_redis(says: Any, log: Any) -> None:
    async with Hub(sdk.settings(redis={"url": f"redis://127.0.0.1:{free_port()}"})).lifespan():
        says(log)
    assert "broker.link" in log.events


async def test_wrong_redis_password(says: Any) -> None:
    with RedisServer(password="right") as redis:
        hub = Hub(sdk.settings(redis={"url": f"redis://:wrong@127.0.0.1:{redis.port}"}))
        with pytest.raises(StartupError) as refused:
            async with hub.lifespan():
                pass
    says(refused.value)


def test_workers_without_redis(start: Start, says: Any) -> None:
    says(start("", "--workers", "2"))


APP = """
from fastapi import FastAPI
from hub import Hub, Settings

app = FastAPI()
Hub(Settings()).install(app)
"""


async def test_other_workers_without_redis(says: Any, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    command = ("-m", "uvicorn", "shop:app", "--app-dir", str(tmp_path), "--workers", "2", "--port")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, str(free_port()), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    log = b""
    try:
        async with asyncio.timeout(WAIT_S):
            while b"worker processes" not in log or not log.endswith(b"\n"):
                line = await process.stderr.readline()
                assert line, log.decode()
                log += line
    finally:
        process.terminate()
        await process.communicate()
    says(log.decode())
