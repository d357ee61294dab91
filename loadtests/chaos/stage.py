"""What the faults of a chaos run act on, and what they note for the verdict."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from support.redis import RedisServer

from loadtests.chaos.clients import Asking, Bystander, CarefulPublisher, Exile, HonestSubscriber
from loadtests.faults.cluster import API_KEY, Cluster

REDIS_TIMEOUT_S = 15.0
API_TIMEOUT_S = 30.0

SOUND = "faults"
"""Namespace of the channels that nothing is done to: the namespace of the fault runs."""
VICTIM = "victim"
"""Namespace of the channels whose keys and messages are vandalised."""
FLOOD = "flood"
"""Namespace of a channel with a large history."""
PEOPLE = "people:all"
"""Channel with presence, where the users are who are revoked."""

CONFIG = f"""
[channels.{VICTIM}]
history_size = 100
history_ttl_s = 600
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_subscriber = true
[channels.{FLOOD}]
history_size = 100
history_ttl_s = 3600
allow_subscribe_for_client = true
allow_history_for_client = true
[channels.people]
presence = true
join_leave = true
force_push_join_leave = true
allow_presence_for_client = true
allow_subscribe_for_client = true
[channels.odd]
allow_subscribe_for_client = true
allow_publish_for_client = true
"""


@dataclass
class Stage:
    """The scene of a run.

    Args:
        honest: subscribers of the sound channels, which must lose nothing.
        publishers: that publish into the sound channels, one on each node.
        exiles: connections of users that may be revoked, by user.
        bystanders: subscribers of the channels that are vandalised.
        asking: clients of handlers that fail, and of what is refused.
    """

    cluster: Cluster
    chance: random.Random
    honest: Sequence[HonestSubscriber]
    publishers: Sequence[CarefulPublisher]
    exiles: dict[str, list[Exile]]
    bystanders: Sequence[Bystander]
    asking: Sequence[Asking]
    began: float = field(default_factory=time.monotonic)
    outages: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of each time in which Redis, a link or a node was away."""
    injected: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """What a fault itself found wrong, such as a command without an answer."""
    unconfirmed: list[str] = field(default_factory=list)
    """Users whose revocation the hub answered without a confirmation from all nodes."""
    numbers: Any = field(default_factory=itertools.count)

    @property
    def redis(self) -> RedisServer:
        """The Redis between the nodes."""
        assert isinstance(self.cluster.redis, RedisServer)
        return self.cluster.redis

    def say(self, text: str) -> None:
        """Print a line with the time since the run began."""
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def fail(self, text: str) -> None:
        """Note and print a failure."""
        self.failures.append(text)
        self.say(f"FAILED {text}")

    @asynccontextmanager
    async def outage(self) -> Any:
        """Note that something between the nodes is away for as long as the block lasts."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.outages.append((began, time.monotonic()))

    def is_outage(self, at: float, margin_s: float) -> bool:
        """Whether something was away at a monotonic time, or so many seconds before."""
        return any(begin <= at <= end + margin_s for begin, end in self.outages)

    async def call(self, *words: str | int | bytes) -> Any:
        """Run a command of Redis, again while Redis is away."""
        [reply] = await self.calls([words])
        return reply

    async def calls(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Any]:
        """Run commands of Redis over one connection, again while Redis is away."""
        deadline = time.monotonic() + REDIS_TIMEOUT_S
        while True:
            try:
                return await asyncio.to_thread(self.redis.calls, commands)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def api(self, node: int, method: str, **request: Any) -> dict[str, Any]:
        """Call the server API of a node. Returns the reply; an error where no answer came."""
        url = f"{self.cluster.nodes[node].url}/api/{method}"
        try:
            async with httpx.AsyncClient(headers={"X-API-Key": API_KEY}, timeout=API_TIMEOUT_S) as client:
                reply: dict[str, Any] = (await client.post(url, json=request)).json()
        except httpx.HTTPError as exc:
            return {"error": {"code": 0, "message": repr(exc)}}
        return reply

    def victims(self) -> list[str]:
        """The channels that are vandalised."""
        return sorted({bystander.channel for bystander in self.bystanders})
