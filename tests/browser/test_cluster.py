"""Two windows, each on a node of its own, with Redis between them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest
from browser.conftest import OpenWindow
from playwright.async_api import expect
from support.limits import WAIT_S
from support.ports import free_port
from support.redis import RedisServer
from support.server import Process

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parent.parent.parent


async def test_a_chat_across_two_nodes_lives_through_a_restart_of_redis(open_window: OpenWindow) -> None:
    with RedisServer("--appendonly", "yes") as redis:
        async with (
            Process("--dev", "--redis", redis.url) as one,
            Process("--dev", "--redis", redis.url) as two,
        ):
            ada = await open_window(one.url)
            await ada.enter("Ada")
            zoe = await open_window(two.url)
            await zoe.enter("Zoe")
            await ada.shows_people("Ada", "Zoe")
            await zoe.shows_people("Zoe", "Ada")
            await ada.say("hello")
            await zoe.shows("hello")
            redis.kill()
            redis.start()
            for node in (one, two):
                await _healthy(node)
            await zoe.say("good day")
            await ada.shows("hello", "good day")
            await zoe.shows("hello", "good day")
            await expect(ada.page.locator("#state-spoken")).to_have_text("Connected")


async def _healthy(node: Process) -> None:
    async with asyncio.timeout(WAIT_S), httpx.AsyncClient(timeout=WAIT_S) as client:
        status = ""
        while status != "healthy":
            await asyncio.sleep(0.1)  # it is another process that says it, to who asks
            status = (await client.get(f"{node.url}/readyz")).json()["status"]


async def test_the_procfile_starts_two_nodes_that_are_one_hub() -> None:
    ports = {"PORT_ONE": free_port(), "PORT_TWO": free_port(), "REDIS_PORT": free_port()}
    # The Procfile names the commands of the project's own environment.
    command = (ROOT / "Procfile").read_text().replace(".venv/bin/hub", f"{sys.executable} -m hub")
    file = ROOT / "build" / "Procfile.test"
    file.parent.mkdir(exist_ok=True)
    file.write_text(command)
    env = {**os.environ, **{name: str(port) for name, port in ports.items()}}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "honcho",
        "-f",
        str(file),
        "-d",
        str(ROOT),
        "start",
        env=env,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        headers = {"X-API-Key": "dev"}
        url = f"http://127.0.0.1:{ports['PORT_ONE']}/api/info"
        async with asyncio.timeout(WAIT_S), httpx.AsyncClient(headers=headers, timeout=WAIT_S) as client:
            nodes = 0
            while nodes != 2:
                await asyncio.sleep(0.2)
                try:
                    nodes = len((await client.post(url, json={})).json()["result"]["nodes"])
                except httpx.TransportError:
                    continue
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
