"""A roll of two nodes behind each proxy of docs/proxies, with clients that must miss nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import sdk
from support.certificate import Certificate
from support.limits import WAIT_S
from support.redis import RedisServer
from support.reverse_proxy import APPS, HUBS, ReverseProxy
from support.server import Process
from websockets.exceptions import InvalidStatus

from hub.cli.main import main
from hub.client import Client, Disconnected, Error, Published, Subscribed

CLIENTS = 50
CHANNELS = 5

CONFIG = """
[server]
drain_window_s = 1.0
[api]
key = "{api_key}"
[client.token]
hmac_secret = "{secret}"
[client.reconnect]
keys = ["signs-the-reconnect-tokens-of-the-tests"]
[redis]
url = "{redis}"
[channels.news]
history_size = 10000
history_ttl_s = 600
force_recovery = true
allow_subscribe_for_client = true
"""

APP = """
import sys
from starlette.applications import Starlette
from hub import Hub
from hub.config import load
from hub.server import run

hub = Hub(load(overrides={"server": {"port": int(sys.argv[sys.argv.index("--port") + 1])}}))
app = Starlette()
hub.install(app, "/live")
run(app, hub.settings)
"""


class Reader:
    """A client in one channel, and what happened to it.

    Args:
        proxy: that it connects through.
        number: which client it is.
    """

    def __init__(self, proxy: ReverseProxy, number: int) -> None:
        self.client = Client(
            proxy.url + proxy.prefix,
            token=sdk.token(f"user {number}"),
            ssl_context=proxy.certificate.trust,
            proxy=None,
            timeout_s=20.0,
        )
        self.channel = f"news:{number % CHANNELS}"
        self.read: list[int] = []
        self.subscribed: list[Subscribed] = []
        self.errors: list[Exception] = []
        self.has_stopped = False
        self._subscription = self.client.new_subscription(self.channel, recoverable=True)
        self._subscription.on_publication(self._on_publication)
        self._subscription.on_subscribed(self.subscribed.append)
        self._subscription.on_error(self._on_error)
        self.client.on_error(self._on_error)
        self.client.on_disconnected(self._on_disconnected)

    async def start(self) -> None:
        """Connect, and subscribe."""
        await self._subscription.subscribe()
        await self.client.connect()
        await self._subscription.ready()

    def _on_publication(self, event: Published) -> None:
        self.read.append(event.pub.data)

    def _on_error(self, event: Error) -> None:
        self.errors.append(event.error)

    def _on_disconnected(self, event: Disconnected) -> None:
        self.has_stopped = True


@contextlib.asynccontextmanager
async def two_nodes(name: str, folder: Path) -> AsyncIterator[list[Process]]:
    """Two nodes over a Redis, each in an app where the proxy's configuration is for an app."""
    with RedisServer() as redis:
        (folder / "hub.toml").write_text(
            CONFIG.format(api_key=sdk.API_KEY, secret=sdk.SECRET, redis=redis.url)
        )
        (folder / "app.py").write_text(APP)
        program: dict[str, Any] = (
            {"program": [str(folder / "app.py")], "prefix": "/live"} if name in APPS else {}
        )
        nodes = [Process(env={"HUB_CONFIG": str(folder / "hub.toml")}, **program) for _ in range(2)]
        async with nodes[0], nodes[1]:
            yield nodes


async def publish_until(
    is_over: asyncio.Event, nodes: list[Process], published: dict[str, list[int]]
) -> None:
    """Publish numbers to the channels in turn, each exactly once."""
    async with httpx.AsyncClient(headers={"X-API-Key": sdk.API_KEY}, timeout=WAIT_S) as http:
        for number in itertools.count():
            if is_over.is_set():
                return
            channel = f"news:{number % CHANNELS}"
            request = {"channel": channel, "data": number, "idempotency_key": str(number)}
            published[channel].append(number)
            for node in itertools.cycle(nodes):
                with contextlib.suppress(httpx.HTTPError):
                    if "result" in (await http.post(f"{node.url}/api/publish", json=request)).json():
                        break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)


async def ask_until(is_over: asyncio.Event, proxy: ReverseProxy, statuses: set[int]) -> None:
    """Ask for `/readyz`, over and over."""
    while not is_over.is_set():
        status, _ = await proxy.ask(f"{proxy.prefix}/readyz")
        statuses.add(status)
        await asyncio.sleep(0.05)


def hub_roll(*arguments: str) -> Any:
    """Run `hub roll`, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["roll", *arguments])
    return ended.value.code


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*HUBS, *APPS])
async def test_a_roll_loses_no_client(name: str, tmp_path: Path, certificate: Certificate) -> None:
    # Caddy passes the refusal of a node on, in the second that it takes to notice a drain.
    allowed = {200, 503} if "Caddy" in name else {200}
    statuses: set[int] = set()
    is_over = asyncio.Event()
    published: dict[str, list[int]] = {f"news:{number}": [] for number in range(CHANNELS)}
    async with (
        two_nodes(name, tmp_path) as nodes,
        ReverseProxy(name, certificate, [node.port for node in nodes]) as proxy,
        contextlib.AsyncExitStack() as stack,
    ):
        readers = [Reader(proxy, number) for number in range(CLIENTS)]
        for reader in readers:
            stack.push_async_callback(reader.client.disconnect)
        await asyncio.gather(*(reader.start() for reader in readers))
        tasks = [
            asyncio.create_task(publish_until(is_over, nodes, published)),
            asyncio.create_task(ask_until(is_over, proxy, statuses)),
        ]
        urls = [node.url for node in nodes]
        code = await asyncio.to_thread(hub_roll, *urls, "--config", str(tmp_path / "hub.toml"))
        assert not code
        newcomers = [Reader(proxy, number) for number in range(CLIENTS)]
        for reader in newcomers:
            stack.push_async_callback(reader.client.disconnect)
        await asyncio.gather(*(reader.start() for reader in newcomers))
        is_over.set()
        await asyncio.gather(*tasks)
        async with asyncio.timeout(WAIT_S):
            for reader in readers:
                while len(reader.read) < len(published[reader.channel]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # until the last publication has arrived

        assert statuses <= allowed
        for reader in readers:
            assert not reader.has_stopped
            assert reader.read == published[reader.channel]
            assert all(event.recovered for event in reader.subscribed[1:])
        assert sum(len(reader.subscribed) - 1 for reader in readers) >= CLIENTS
        errors = [error for reader in readers + newcomers for error in reader.errors]
        assert {status_of(error) for error in errors} <= allowed - {200}, errors


def status_of(error: Exception) -> int:
    """The status that a handshake was answered with; 0 for another error."""
    return error.response.status_code if isinstance(error, InvalidStatus) else 0
