"""The background work of a node: every task and every future that nobody awaits has its owner here."""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from hub.errors import BrokerError
from hub.node.boundary import Boundary
from hub.protocol.codes import Errors
from hub.telemetry import Metrics, RateLimitedLog, get_logger

RESTART_MIN_S: Final = 0.5
RESTART_MAX_S: Final = 30.0
"""A supervised task that dies is restarted after this long at the most, doubled from `RESTART_MIN_S` on."""

STEADY_S: Final = 60.0
"""A task that ran for this long is restarted as if it had never died."""

LAST_S: Final = 15.0
"""What a node that ends waits for `last` work at the most: a handler of the app has 10 s."""

CANCEL_S: Final = 2.0
"""What a node that ends waits for tasks that were cancelled: a handler of the app may not end at all."""

_T = TypeVar("_T")
_log = get_logger("hub.node")


class Tasks:
    """Starts, supervises and ends the tasks of a node.

    Args:
        boundary: records what tasks raise.
        metrics: counts the broker's failures.
    """

    def __init__(self, boundary: Boundary, metrics: Metrics) -> None:
        self._loop = asyncio.get_running_loop()
        self._boundary = boundary
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last: set[Future[Any]] = set()
        self._log = RateLimitedLog(_log)
        self.is_stopping = False
        """Whether the node ends, so that a cancellation is meant."""

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, _T], place: str = "task") -> asyncio.Task[_T]:
        """Run work once. A failure is recorded, and is also in the task that is returned."""
        task = self._loop.create_task(work, name=place)
        self._tasks.add(task)

        def done(task: asyncio.Task[_T]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                if isinstance(error, BrokerError):
                    self.broker_failed(str(error))
                else:
                    self._boundary.failed(place, error)

        task.add_done_callback(done)
        return task

    def supervise(self, place: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run work that has no end, until the node stops. Work that dies is restarted, with back-off."""
        self.spawn(self._supervise(place, work), place)

    def last(self, future: Future[Any]) -> None:
        """Have a node that stops wait for this: a client's leave, or the app's disconnect handler."""
        if not future.done():
            self._last.add(future)
            future.add_done_callback(self._last.discard)

    def forget(self, future: Future[Any]) -> None:
        """Let an operation of the broker go on whose outcome nobody waits for; a failure is logged.

        A node that stops waits for it, so that the operation does not fail because of the stop.
        """
        if future.done():
            self.outcome(future)
        else:
            self.last(future)
            future.add_done_callback(self.outcome)

    def outcome(self, done: Future[Any]) -> Any:
        """What a session is told of an operation that is over: its result, or an error to answer with."""
        if done.cancelled():
            return Errors.INTERNAL
        failure = done.exception()
        if failure is None:
            return done.result()
        if isinstance(failure, BrokerError):
            self.broker_failed(str(failure))
        else:
            self._boundary.failed("operation", failure)
        return Errors.INTERNAL

    def broker_failed(self, reason: str) -> None:
        """Count what the broker could not do, and log it now and then.

        A node that stops ends its connections to the broker itself: what is under way then did not fail.
        """
        if self.is_stopping:
            return
        self._metrics.broker_errors.inc()
        self._log.warning("broker.failed", reason=reason)

    async def finish(self) -> None:
        """Wait for what is `last`, for a bounded time."""
        ends_at = self._loop.time() + LAST_S
        while self._last and (left_s := ends_at - self._loop.time()) > 0:
            await asyncio.wait(self._last, timeout=left_s)

    async def stop(self) -> None:
        """Wait for what is `last`, for a bounded time, and cancel the rest."""
        await self.finish()
        self.is_stopping = True
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_S)
        if self._tasks:
            _log.warning("tasks.left", tasks=[task.get_name() for task in self._tasks])

    async def _supervise(self, place: str, work: Callable[[], Awaitable[None]]) -> None:
        deaths = 0
        while True:
            began = self._loop.time()
            try:
                await work()
                return
            except asyncio.CancelledError as error:
                if self.is_stopping:
                    raise
                self._boundary.failed(place, error)
            except Exception as error:
                self._boundary.failed(place, error)
            deaths = 1 if self._loop.time() - began > STEADY_S else deaths + 1
            wait_s = min(RESTART_MAX_S, RESTART_MIN_S * 2 ** min(deaths - 1, 10))
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter


def known(result: _T) -> Future[_T]:
    """A future whose result is known already."""
    future: Future[_T] = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future
