"""Background tasks of brokers: a task that raises is reported and started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0

STEADY_S: Final = 5.0
"""After a run of at least so long, the next back-off is the shortest again."""

CANCEL_INTERVAL_S: Final = 0.1
"""How long a task that was cancelled may take before it is cancelled again."""


def backoff_s(attempt: int) -> float:
    """Seconds to wait before an attempt, counted from 0: exponential, bounded, with full jitter."""
    return random.uniform(0, _bound_s(attempt))  # noqa: S311


def retry_s(attempt: int) -> float:
    """Like `backoff_s`, but never less than half of the bound: for work that a busy server could not do."""
    return random.uniform(0.5, 1) * _bound_s(attempt)  # noqa: S311


def _bound_s(attempt: int) -> float:
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 16))


async def cancel(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks, and wait until they are over."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        # redis-py waits by asyncio.wait_for, which before Python 3.12 forgets a cancellation that comes in
        # the same turn as what it waits for.
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_INTERVAL_S)
    await asyncio.gather(*tasks, return_exceptions=True)


class BackgroundTasks:
    """Runs tasks until they return, and starts those again that raise, after a back-off.

    Args:
        failed: called with what a task raised. It does not raise.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self.failed: Final = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run a coroutine function; it is called again after it raises."""
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel every task that still runs, and wait until it is over."""
        await cancel(*self._tasks)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        attempt = 0
        while True:
            began = loop.time()
            try:
                return await work()
            except asyncio.CancelledError as error:
                if task.cancelling():
                    raise
                self.failed(error)  # something that the work awaited was cancelled, and not the work
            except Exception as error:
                self.failed(error)
            attempt = 0 if loop.time() - began > STEADY_S else attempt + 1
            await asyncio.sleep(backoff_s(attempt))
