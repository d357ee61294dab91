"""Keeps a connection open for as long as it is wanted: connects, and connects again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from hub.broker.background import STEADY_S, BackgroundTasks, backoff_s, cancel
from hub.broker.redis.connection import RedisConnection, RedisConnectionError, Reply, close

OpenConnection: TypeAlias = Callable[[Callable[[Reply], None]], Awaitable[tuple[RedisConnection, bytes]]]
"""Opens a connection that passes its replies to the function given, and tells the server's incarnation."""


class ConnectionSupervisor:
    """One connection, kept open. A subclass says what the connection is for.

    Args:
        open_connection: opens the connection.
        tasks: runs the supervisor.
    """

    def __init__(self, open_connection: OpenConnection, tasks: BackgroundTasks) -> None:
        self._open = open_connection
        self._tasks = tasks
        self.connection: RedisConnection | None = None
        self.incarnation = b""
        """Of the server that the connection leads to, or led to last."""
        self.failure = ""
        """Why there is no connection, once the first attempt to get one failed."""
        self.tried: asyncio.Future[RedisConnectionError | None] = asyncio.get_running_loop().create_future()
        """Done after the first attempt."""
        self._task = tasks.start(self._keep_open)

    async def stop(self) -> None:
        """End the connection."""
        await cancel(self._task)

    def rebuild(self, reason: str) -> None:
        """End the present connection; another one is made."""
        if self.connection is not None:
            self.connection.abort(reason)

    def up(self, connection: RedisConnection, incarnation: bytes) -> None:
        """A connection was made. Called before its first reply."""
        raise NotImplementedError

    def down(self, reason: str) -> None:
        """The connection that was made is lost."""
        raise NotImplementedError

    def failed(self, error: RedisConnectionError) -> None:
        """An attempt to make a connection failed."""

    def receive(self, reply: Reply) -> None:
        """A reply came."""
        raise NotImplementedError

    async def _keep_open(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            try:
                connection, incarnation = await self._open(self.receive)
            except Exception as error:
                failure = error
                if not isinstance(failure, RedisConnectionError):
                    self._tasks.failed(error)
                    failure = RedisConnectionError(repr(error))
                self.failure = str(failure)
                self.failed(failure)
                self._set_tried(failure)
            else:
                began = loop.time()
                await self._serve(connection, incarnation)
                if loop.time() - began > STEADY_S:
                    attempt = 0
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def _serve(self, connection: RedisConnection, incarnation: bytes) -> None:
        self.connection = connection
        self.incarnation = incarnation
        self.failure = ""
        try:
            self.up(connection, incarnation)
            self._set_tried(None)
            reason = await asyncio.shield(connection.lost)
        except BaseException:
            self.connection = None
            await close(connection)
            self.down("the hub stopped")
            raise
        self.connection = None
        self.down(reason)

    def _set_tried(self, error: RedisConnectionError | None) -> None:
        if not self.tried.done():
            self.tried.set_result(error)
