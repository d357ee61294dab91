"""What the generator runs against: the floor, a hub, or two with their Redis. Each run has a new one."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import jwt
from support.redis import RedisServer
from support.server import Process

from loadtests.bench import programs

_SECRET: Final = "signs-the-tokens-of-the-benchmark"  # noqa: S105 - of nothing else
_CONFIG: Final = """
[server]
lag_max_s = 0
[client]
insecure = true
[client.token]
hmac_secret = "{secret}"
[channels.bench]
slow_reader = "{slow_reader}"
"""

CHANNELS: Final = ("bench:room", "bench:hall")
"""Who is measured in turns has one of them. The generator uses the first where it is not told."""


def token(channel: str = CHANNELS[0]) -> str:
    """Who connects with it is subscribed by it, as no command can come from a client on a stream."""
    return jwt.encode({"sub": "bench", "channels": [channel]}, _SECRET, "HS256")


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        ports: that clients may connect to.
        pids: all its processes.
    """

    ports: list[int]
    pids: list[int]


Kind: TypeAlias = Callable[[], AbstractAsyncContextManager[Server]]


@contextlib.asynccontextmanager
async def floor() -> AsyncIterator[Server]:
    """The floor."""
    async with programs.floor() as (port, pid):
        yield Server([port], [pid])


@contextlib.asynccontextmanager
async def hub(slow_reader: str = "disconnect") -> AsyncIterator[Server]:
    """One hub as `hub serve` runs it, on a channel without history.

    Args:
        slow_reader: the channel's policy.
    """
    async with AsyncExitStack() as stack:
        [node] = await _nodes(stack, _config(slow_reader))
        yield Server([node.port], [node.pid])


@contextlib.asynccontextmanager
async def two_nodes() -> AsyncIterator[Server]:
    """Two hubs, and the Redis between them."""
    async with AsyncExitStack() as stack:
        redis = RedisServer()
        stack.callback(redis.stop)
        await asyncio.to_thread(redis.start)
        config = _config("disconnect")
        nodes = await _nodes(stack, config, *(["--redis", redis.url] for _ in range(2)))
        yield Server([node.port for node in nodes], [redis.pid, *(node.pid for node in nodes)])


def _config(slow_reader: str) -> str:
    return _CONFIG.format(secret=_SECRET, slow_reader=slow_reader)


async def _nodes(stack: AsyncExitStack, config: str, *arguments: list[str]) -> list[Process]:
    """Hubs with one configuration, one for each list of more arguments."""
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-bench-"))) / "hub.toml"
    path.write_text(config)
    nodes = [Process("--config", str(path), *more) for more in arguments or [[]]]
    for node in nodes:
        await node.start()
        stack.push_async_callback(node.kill)
    return nodes
