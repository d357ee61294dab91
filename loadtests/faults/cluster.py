"""Two nodes and their Redis, each a process of its own. The second node reaches a single Redis by a proxy."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import httpx
from support.proxy import Proxy
from support.redis import RedisCluster, RedisServer, Watched
from support.server import Process

from loadtests.faults.clients import SECRET

API_KEY = "key"
HISTORY_SIZE = 50_000
NAMESPACE = "faults"
NEVER_OVERLOADED = {"HUB_SERVER__LAG_MAX_S": "0"}
"""Environment of nodes that refuse nobody because the machine is busy."""

_CONFIG = f"""
[api]
key = "{API_KEY}"
[client]
history_limit_max = {HISTORY_SIZE}
outbox_bytes_max = 16777216
[client.token]
hmac_secret = "{SECRET}"
[client.reconnect]
keys = ["{SECRET}"]
[channels.{NAMESPACE}]
history_size = {HISTORY_SIZE}
history_ttl_s = 3600
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_subscriber = true
"""


@dataclass(frozen=True)
class History:
    """A channel as Redis has it in the end: ids in order, and the position of the last."""

    ids: list[int]
    offset: int
    epoch: str


Redis: TypeAlias = RedisServer | Watched | RedisCluster


def single() -> Redis:
    """One server that keeps what it acknowledged."""
    # With the default, everysec, Redis may answer before it has written.
    return RedisServer("--appendonly", "yes", "--appendfsync", "always")


class Cluster:
    """What a fault is injected into: `async with Cluster() as cluster`.

    Args:
        make: the kind of Redis.
        env: more variables of the nodes' environment.
        config: more of the nodes' configuration, in TOML.
        program: runs a node, as for `Process`.
    """

    def __init__(
        self,
        make: Callable[[], Redis] = single,
        env: Mapping[str, str] | None = None,
        *,
        config: str = "",
        program: Sequence[str] = ("-m", "hub"),
    ) -> None:
        self.redis = make()
        self._env = env
        self._config = _CONFIG + config
        self._program = program
        self.nodes: list[Process] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Cluster:
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-faults-")))
            (folder / "hub.toml").write_text(self._config)
            self._stack.callback(self.redis.__exit__, None, None, None)
            await asyncio.to_thread(self.redis.__enter__)
            urls = [self.redis.url, self.redis.url]
            if isinstance(self.redis, RedisServer):
                self.proxy = await self._stack.enter_async_context(Proxy(self.redis.port))
                urls[1] = f"redis://127.0.0.1:{self.proxy.port}"
            self.nodes = [
                Process(
                    *("--config", str(folder / "hub.toml"), "--redis", url),
                    env=self._env,
                    program=self._program,
                )
                for url in urls
            ]
            for node in self.nodes:
                self._stack.push_async_callback(node.kill)
            await asyncio.gather(*(node.start() for node in self.nodes))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.nodes]

    def history_reads(self) -> int:
        """How often streams were read by the servers that there are, since they began to count."""
        match self.redis:
            case RedisServer():
                servers = [self.redis]
            case Watched():
                servers = [self.redis.master, self.redis.replica]
            case RedisCluster():
                servers = self.redis.servers
        return sum(_reads(server) for server in servers if server.alive)

    async def histories(self, channels: list[str]) -> dict[str, History]:
        """What the second node says that channels hold."""
        async with httpx.AsyncClient(headers={"X-API-Key": API_KEY}, base_url=self.nodes[1].url) as client:
            return {channel: await _history(client, channel) for channel in channels}


def _reads(server: RedisServer) -> int:
    stats = server.call("INFO", "commandstats").decode()
    lines = [line for line in stats.splitlines() if line.startswith("cmdstat_xrange:")]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)


async def _history(client: httpx.AsyncClient, channel: str) -> History:
    response = await client.post("/api/history", json={"channel": channel, "limit": -1})
    result: dict[str, Any] = response.json()["result"]
    ids = [each["data"]["id"] for each in result["publications"]]
    return History(ids, result["offset"], result["epoch"])
