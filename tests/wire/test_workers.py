"""Workers of other servers: several processes with no Redis between them are refused at the start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support.limits import WAIT_S
from support.ports import free_port
from support.redis import RedisServer

REFUSAL = "2 worker processes have no Redis between them: set redis.url, or run one worker"

APP = """
import sys
import uvicorn
from starlette.applications import Starlette
from hub import Hub

app = Starlette()
Hub().install(app)

if __name__ == "__main__":
    uvicorn.run("app:app", port=int(sys.argv[1]), workers=int(sys.argv[2]))
"""

COMMANDS = {
    "uvicorn": "-m uvicorn app:app --port {port} --workers {workers}",
    "uvicorn in code": "app.py {port} {workers}",
    "gunicorn": "-m gunicorn app:app -k asgi -b 127.0.0.1:{port} -w {workers}",
    "gunicorn, preloaded": "-m gunicorn app:app -k asgi -b 127.0.0.1:{port} -w {workers} --preload",
    "hypercorn": "-m hypercorn app:app -b 127.0.0.1:{port} -w {workers}",
    "granian": "-m granian --interface asgi app:app --port {port} --workers {workers}",
}


@contextlib.asynccontextmanager
async def served(folder: Path, command: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command of a server, in a session of its own, with both of its outputs in one pipe."""
    (folder / "app.py").write_text(APP)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HUB_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command.split(),
        cwd=folder,
        env={**clean, "PYTHONPATH": str(folder), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def until(process: asyncio.subprocess.Process, text: str) -> None:
    """Read what a process writes until it holds a text."""
    assert process.stdout is not None
    log = ""
    try:
        async with asyncio.timeout(WAIT_S):
            while text not in log:
                chunk = await process.stdout.read(4096)
                assert chunk, f"the server ended:\n{log}"
                log += chunk.decode(errors="replace")
    except TimeoutError:
        raise AssertionError(f"the server does not write {text!r}:\n{log}") from None


async def serves(port: int) -> None:
    """Wait until a hub answers."""
    async with asyncio.timeout(WAIT_S), httpx.AsyncClient(timeout=WAIT_S) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"http://127.0.0.1:{port}/live/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)  # a server announces itself in no common way


@pytest.mark.parametrize("name", COMMANDS)
async def test_two_workers_without_redis_are_refused(tmp_path: Path, name: str) -> None:
    port = free_port()
    async with served(tmp_path, COMMANDS[name].format(port=port, workers=2)) as process:
        await until(process, REFUSAL)


@pytest.mark.parametrize("name", COMMANDS)
async def test_one_worker_serves(tmp_path: Path, name: str) -> None:
    port = free_port()
    async with served(tmp_path, COMMANDS[name].format(port=port, workers=1)):
        await serves(port)


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn"])
async def test_two_workers_with_redis_serve(tmp_path: Path, name: str) -> None:
    port = free_port()
    with RedisServer() as redis:
        command = COMMANDS[name].format(port=port, workers=2)
        async with served(tmp_path, command, HUB_REDIS__URL=redis.url):
            await serves(port)


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("-m uvicorn app:app --port {port}", {"WEB_CONCURRENCY": "2"}),
        ("-m gunicorn app:app -k asgi -b 127.0.0.1:{port}", {"WEB_CONCURRENCY": "2"}),
        ("-m gunicorn app:app -k asgi -b 127.0.0.1:{port}", {"GUNICORN_CMD_ARGS": "--workers=2"}),
        ("-m granian --interface asgi app:app --port {port}", {"GRANIAN_WORKERS": "2"}),
    ],
)
async def test_workers_of_the_environment_are_refused(
    tmp_path: Path, command: str, variables: dict[str, str]
) -> None:
    port = free_port()
    async with served(tmp_path, command.format(port=port), **variables) as process:
        await until(process, REFUSAL)
