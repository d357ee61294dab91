"""Keeps a link open for as long as it is wanted: connects, and connects again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from hub.broker.redis.connection import Connection, RedisConnectionError, Reply, closed

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
STEADY_S: Final = 5.0
"""A link that lived this long was a good one: the next back-off begins anew."""

CANCEL_INTERVAL_S: Final = 0.1
"""How long a task that was cancelled may take before it is cancelled again."""

Open: TypeAlias = Callable[[Callable[[Reply], None]], Awaitable[tuple[Connection, bytes]]]
"""Makes a link that hands its replies to the function given, and tells the server's incarnation."""


def backoff_s(attempt: int) -> float:
    """Seconds to wait before an attempt, counted from 0: exponential, bounded, with full jitter."""
    return random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempt, 16)))  # noqa: S311


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks, and wait until they are over."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        # redis-py waits by asyncio.wait_for, which before Python 3.12 forgets a cancellation that comes in
        # the same turn as what it waits for.
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_INTERVAL_S)
    await asyncio.gather(*tasks, return_exceptions=True)


class ConnectionSupervisor:
    """One link, kept open. What it is for is in the subclass.

    Args:
        open_connection: makes the link.
    """

    def __init__(self, open_connection: Open) -> None:
        self._open = open_connection
        self.link: Connection | None = None
        self.incarnation = b""
        """Of the server that the link leads to, or led to last."""
        self.failure = ""
        """Why there is no link, after the first attempt to get one failed."""
        self.tried: asyncio.Future[RedisConnectionError | None] = asyncio.get_running_loop().create_future()
        """Done after the first attempt."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the link."""
        await cancelled(self._task)

    def rebuild(self, reason: str) -> None:
        """End the link that there is; another one is made."""
        if self.link is not None:
            self.link.abort(reason)

    def up(self, link: Connection, incarnation: bytes) -> None:
        """A link was made. Called before its first reply."""
        raise NotImplementedError

    def down(self, reason: str) -> None:
        """The link that was made is lost."""
        raise NotImplementedError

    def failed(self, error: RedisConnectionError) -> None:
        """An attempt to make a link failed."""

    def receive(self, reply: Reply) -> None:
        """A reply came."""
        raise NotImplementedError

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            try:
                link, incarnation = await self._open(self.receive)
            except RedisConnectionError as error:
                self.failure = str(error)
                self.failed(error)
                self._have_tried(error)
            else:
                began = loop.time()
                await self._serve(link, incarnation)
                if loop.time() - began > STEADY_S:
                    attempt = 0
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def _serve(self, link: Connection, incarnation: bytes) -> None:
        self.link = link
        self.incarnation = incarnation
        self.failure = ""
        try:
            self.up(link, incarnation)
            self._have_tried(None)
            reason = await asyncio.shield(link.lost)
        except asyncio.CancelledError:
            self.link = None
            await closed(link)
            self.down("the hub stopped")
            raise
        self.link = None
        self.down(reason)

    def _have_tried(self, error: RedisConnectionError | None) -> None:
        if not self.tried.done():
            self.tried.set_result(error)
