"""A hub on this machine to be loaded: nodes, a Redis between several, and the faults that may befall them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

from support.redis import RedisServer
from support.server import Process

CONFIG: Final = Path(__file__).parents[1] / "hub.toml"
FREEZE_S: Final = 5.0


class LocalHub:
    """`async with LocalHub(nodes) as hub`.

    Args:
        count: of nodes. Several have Redis between them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = AsyncExitStack()
        self.redis: RedisServer | None = None
        self.nodes: list[Process] = []

    async def __aenter__(self) -> LocalHub:
        try:
            arguments = ["--config", str(CONFIG)]
            if self._count > 1:
                self.redis = RedisServer("--appendonly", "yes", "--appendfsync", "always")
                self._stack.callback(self.redis.__exit__, None, None, None)
                await asyncio.to_thread(self.redis.start)
                arguments += ["--redis", self.redis.url]
            self.nodes = [Process(*arguments) for _ in range(self._count)]
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
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]


async def kill_node(hub: LocalHub) -> None:
    """The last node is gone at once, and comes back after two seconds."""
    await hub.nodes[-1].kill()
    await asyncio.sleep(2.0)
    await hub.nodes[-1].start()


async def roll(hub: LocalHub) -> None:
    """Each node drains and begins anew, one after the other."""
    for node in hub.nodes:
        node.signal(signal.SIGTERM)
        await node.wait()
        await node.start()


async def restart_redis(hub: LocalHub) -> None:
    """Redis is killed, and comes back with its data after two seconds."""
    assert hub.redis
    hub.redis.kill()
    await asyncio.sleep(2.0)
    await asyncio.to_thread(hub.redis.start)


async def freeze_redis(hub: LocalHub) -> None:
    """Redis stands still for five seconds."""
    assert hub.redis
    hub.redis.signal(signal.SIGSTOP)
    await asyncio.sleep(FREEZE_S)
    hub.redis.signal(signal.SIGCONT)


FAULTS: Final[dict[str, Callable[[LocalHub], Awaitable[None]]]] = {
    "kill-node": kill_node,
    "roll": roll,
    "restart-redis": restart_redis,
    "freeze-redis": freeze_redis,
}
"""By the name that `--at` takes."""

NEED_REDIS: Final = {"restart-redis", "freeze-redis"}
