"""Two nodes of one hub over a real Redis, one of them behind a link that a test breaks and restores."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from support import sdk
from support.faults import serving, until
from support.peer import Peer, command, unconnected
from support.proxy import Proxy
from support.redis import RedisServer
from support.server import Running

from hub import Hub
from hub.protocol import api
from hub.settings import Settings

KEY = "signs-the-reconnect-tokens-of-the-fault-tests"


def settings(url: str = "", *, grace_s: float = 0.0, client: dict[str, Any] | None = None) -> Settings:
    """Settings of a node that hands out reconnect tokens.

    Args:
        url: of the Redis; empty for a hub of one process.
        grace_s: the grace of presence after a disconnect.
        client: more of the `client` section.
    """
    redis = {"redis": {"url": url}} if url else {}
    return sdk.settings(
        {"reconnect": {"keys": [KEY], "presence_grace_s": grace_s}, **(client or {})}, **redis
    )


class Nodes:
    """Two nodes of one hub over a real Redis. The link of the second node can fail.

    Args:
        redis: the Redis between them.
        link: the proxy between Redis and the second node.
        one: the first hub, and `first` its server.
        two: the second hub, and `second` its server.
    """

    def __init__(
        self, redis: RedisServer, link: Proxy, one: Hub, first: Running, two: Hub, second: Running
    ) -> None:
        self.redis = redis
        self.link = link
        self.one = one
        self.first = first
        self.two = two
        self.second = second

    async def break_link(self, kind: str = "refused") -> None:
        """Break the second node's link.

        Args:
            kind: `refused`: connections break, and new ones are refused. `silent`: nothing that Redis sends
                arrives, and neither side is told.
        """
        if kind == "silent":
            self.link.half_open()
            return
        self.link.go_down()
        await until(lambda: self.two.node.state == "degraded", "the second node notices")

    async def restore_link(self) -> None:
        """Restore the second node's link, and wait until the node is healthy."""
        self.link.come_up()
        await until(lambda: self.two.node.state == "healthy", "the second node is healthy again")


@contextlib.asynccontextmanager
async def two_nodes(**options: Any) -> AsyncIterator[Nodes]:
    """Start both nodes.

    Args:
        options: of `settings`.
    """
    with RedisServer() as redis:
        async with (
            Proxy(redis.port) as link,
            serving(settings(redis.url, **options)) as (one, first),
            serving(settings(f"redis://127.0.0.1:{link.port}", **options)) as (two, second),
        ):
            yield Nodes(redis, link, one, first, two, second)


@contextlib.asynccontextmanager
async def client(port: int, user: str = "ann", **claims: Any) -> AsyncIterator[tuple[Peer, dict[str, Any]]]:
    """A connected client, and its connect result."""
    async with unconnected(port) as peer:
        [reply] = await peer.ask(command(1, "connect", token=sdk.token(user, **claims)))
        yield peer, reply["connect"]


async def call(hub: Hub, method: str, **fields: Any) -> dict[str, Any]:
    """Run a method of the server API in the app, and return its result as JSON shows it."""
    request_type, _ = api.METHODS[method]
    result = await hub.request(method, msgspec.convert(fields, request_type))
    built: dict[str, Any] = msgspec.to_builtins(result)
    return built
