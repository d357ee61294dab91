"""The hub that is fuzzed, its Redis, and what must not grow in it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import psutil
from support.redis import RedisServer
from support.server import Process

from loadtests.chaos.app import LEVELS
from loadtests.chaos.levels import Levels
from loadtests.fuzz.wire import Answer, ask

API_KEY = "key"
SECRET = "signs-the-tokens-of-clients-of-a-hub-that-is-fuzzed"  # noqa: S105 - of these runs alone
PING_INTERVAL_S = 5.0
HONEST = "honest"
"""Namespace of the honest client's channel, which no case names."""

CONFIG = f"""
[api]
key = "{API_KEY}"
[server]
lag_max_s = 0
[client]
ping_interval_s = {PING_INTERVAL_S}
pong_timeout_s = 4.5
[client.token]
hmac_secret = "{SECRET}"
[client.reconnect]
keys = ["{SECRET}"]
presence_grace_s = 1
[channels.{HONEST}]
history_size = 10
history_ttl_s = 600
allow_subscribe_for_client = true
allow_publish_for_client = true
[channels.fuzz]
history_size = 20
history_ttl_s = 60
presence = true
join_leave = true
allowed_delta_types = ["fossil"]
allow_tags_filter = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
allow_presence_for_client = true
"""

SETTLE_S = 75.0
"""How long the levels may take to be back: other nodes that a case invented are forgotten after a minute."""


class Stage:
    """A hub in a process of its own: `async with Stage() as stage`."""

    def __init__(self) -> None:
        self.redis = RedisServer()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Stage:
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-fuzz-")))
            (folder / "hub.toml").write_text(CONFIG)
            self._stack.callback(self.redis.stop)
            await asyncio.to_thread(self.redis.start)
            arguments = ("--config", str(folder / "hub.toml"), "--redis", self.redis.url)
            self.hub = Process(*arguments, program=("-m", "loadtests.fuzz.app"))
            self._stack.push_async_callback(self.hub.kill)
            await self.hub.start()
            nodes = json.loads((await self.api("info", b"{}")).body)["result"]["nodes"]
            self.node: str = nodes[0]["uid"]
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def port(self) -> int:
        return self.hub.port

    def token(self, user: str) -> str:
        """Return a connection token."""
        return jwt.encode({"sub": user}, SECRET, "HS256")

    async def api(self, method: str, body: bytes) -> Answer:
        """Call the server API."""
        fields = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
        return await ask(self.port, "POST", f"/api/{method}", fields, body)

    async def call(self, *words: str | int | bytes) -> Any:
        """Run a command of Redis."""
        return await asyncio.to_thread(self.redis.call, *words)

    def memory(self) -> int:
        """Resident bytes of the hub."""
        return int(psutil.Process(self.hub.pid).memory_info().rss)

    async def levels(self) -> Levels:
        """Count what must not grow."""
        answer = json.loads((await ask(self.port, "GET", LEVELS, {}, b"")).body)
        channels = await self.call("PUBSUB", "CHANNELS")
        clients = (await self.call("CLIENT", "LIST")).decode().splitlines()
        return Levels(
            Counter(answer["tasks"]),
            Counter(answer["timers"]),
            answer["descriptors"],
            sum((await self.call("PUBSUB", "NUMSUB", *channels))[1::2]) if channels else 0,
            sum("cmd=client" not in each for each in clients),
        )

    async def settled(self) -> Levels:
        """Count what is held when nobody is there: the lowest of a few counts."""
        seen = []
        for _ in range(5):
            seen.append(await self.levels())
            await asyncio.sleep(0.5)
        return min(seen, key=lambda each: each.tasks.total() + each.timers.total() + each.descriptors)

    async def above(self, start: Levels) -> dict[str, str]:
        """Wait until all is back at the levels of the start. Returns what stays above."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_S
        while True:
            above = (await self.levels()).above(start)
            if not above or loop.time() > deadline:
                return above
            await asyncio.sleep(1.0)

    def errors(self) -> Counter[str]:
        """What the hub logged at level error or above, by event, place and exception."""
        found: Counter[str] = Counter()
        for line in self.hub.log.splitlines():
            try:
                entry = json.loads(line)
                level = entry.get("level", "")
            except (ValueError, AttributeError):
                if line.strip():
                    found[f"a line that is no JSON: {line[:60]}"] += 1
                continue
            if level in ("error", "critical"):
                raised = entry.get("exception", "").strip().rpartition("\n")[2].partition(":")[0]
                found[" ".join(filter(None, (entry["event"].strip(), entry.get("place"), raised)))] += 1
        return found
