"""No secret appears in what a process writes: canaries in every setting that may hold a secret."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from support.limits import WAIT_S
from support.peer import unconnected
from support.ports import free_port
from support.redis import RedisServer
from support.server import Process

PASSWORDS = ["p@canary", "canary:p", "p/canary", "p%canary", "canary?p", "#canary", "canary p", "@canary@"]
SECRET = "canary-" * 6


def env(redis_url: str, jwks_url: str) -> dict[str, str]:
    return {
        "HUB_REDIS__URL": redis_url,
        "HUB_CLIENT__TOKEN__JWKS_URL": jwks_url,
        "HUB_CLIENT__TOKEN__HMAC_SECRET": SECRET,
        "HUB_CLIENT__RECONNECT__KEYS": SECRET,
        "HUB_API__KEY": SECRET,
    }


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("dev", [False, True], ids=["production", "development"])
async def test_a_hub_whose_servers_are_away(password: str, dev: bool) -> None:
    """Redis and the JWKS do not answer, and clients bring tokens and keys in every place."""
    text = quote(password, safe="")
    redis_url = f"redis://me:{text}@127.0.0.1:{free_port()}/1"
    jwks_url = f"http://me:{text}@127.0.0.1:{free_port()}/keys?apikey={text}&canary"
    async with Process(*(["--dev"] if dev else []), env=env(redis_url, jwks_url)) as hub:
        await hub.line("keys.fetch_failed")
        await hub.line("broker.link")
        for query in ("?token=canary", "?cf_connect=canary", f"?{text}"):
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
            head = f"GET /connection/websocket{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: canary\r\n"
            writer.write(f"{head}Authorization: Bearer canary\r\nConnection: close\r\n\r\n".encode())
            await reader.read()
            writer.close()
        async with unconnected(hub.port) as peer:
            peer.send(json.dumps({"id": 1, "connect": {"token": "eyJcanary.canary.canary"}}))
            await peer.closed()
        assert await hub.stop() == 0
    assert "canary" not in hub.log
    assert text not in hub.log
    if not dev:
        assert [line for line in hub.log.splitlines() if not isinstance(json.loads(line), dict)] == []


@pytest.mark.parametrize("password", PASSWORDS)
async def test_a_start_that_a_wrong_password_ends(password: str) -> None:
    text = quote(password, safe="")
    with RedisServer(password="another") as redis:
        url = f"redis://:{text}@127.0.0.1:{redis.port}"
        code, output = await hub_serve(env(url, f"https://me:{text}@127.0.0.1:1/keys?canary"))
    assert code == 1
    assert "did not start" in output
    assert "canary" not in output
    assert text not in output


@pytest.mark.parametrize("password", PASSWORDS)
async def test_a_password_that_is_not_encoded(password: str) -> None:
    """Whether the URL is valid or not, nothing of the password is shown."""
    code, output = await hub_serve(
        env(f"redis://:{password}@127.0.0.1:1/x", f"ftp://me:{password}@h/keys?canary")
    )
    assert code == 2
    assert "redis.url: " in output
    assert "client.token.jwks_url must begin with" in output
    assert "canary" not in output


async def test_a_traceback_of_an_app_that_shows_its_settings(tmp_path: Path) -> None:
    program = tmp_path / "shows.py"
    program.write_text(
        "import contextlib, sys\nfrom starlette.applications import Starlette\nfrom hub import Hub\n"
        "from hub.server import run\nfrom hub.telemetry import configure_logging\n"
        "configure_logging(dev=False)\nhub = Hub()\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(app):\n"
        "    raise ValueError(f'{hub.settings} {hub.settings.redis.url}')\n    yield\n"
        "app = Starlette(lifespan=lifespan)\nhub.install(app)\nrun(app, hub.settings)\n"
    )
    variables = env("redis://:can@canary@127.0.0.1:1", "https://me:canary@h/keys?canary")
    code, output = await command([sys.executable, str(program)], {**variables, "HUB_PORT": str(free_port())})
    assert code != 0
    assert "did not start" in output
    assert "canary" not in output


async def hub_serve(variables: dict[str, str]) -> tuple[int, str]:
    return await command([sys.executable, "-m", "hub", "serve"], {**variables, "HUB_PORT": str(free_port())})


async def command(words: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Run a command to its end. Returns its exit code and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**_environment(), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(WAIT_S):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("HUB_")}
