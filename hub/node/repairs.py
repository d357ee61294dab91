"""A queue of history reads, which bounds how many are in progress and how long each may take."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

READS_MAX: Final = 16
"""Repairing reads that are in progress at once on a node."""

READS_PER_TURN: Final = 16
"""Reads that begin in one turn of the event loop. In memory, each of them ends at once."""

READ_TIMEOUT_S: Final = 5.0
"""Seconds after which a read counts as failed. A broker gives up sooner; this limit does not depend on it."""

T = TypeVar("T")


def when_done(future: Future[T], done: Callable[[Future[T] | None], None]) -> None:
    """Call back with a future when it is done, or with None after `READ_TIMEOUT_S`."""
    if future.done():
        done(future)
        return

    def ended(future: Future[T]) -> None:
        timer.cancel()
        done(future)

    def expired() -> None:
        future.remove_done_callback(ended)
        future.add_done_callback(failure_of)  # retrieves the exception of a late read
        done(None)

    timer = asyncio.get_running_loop().call_later(READ_TIMEOUT_S, expired)
    future.add_done_callback(ended)


def failure_of(future: Future[Any] | None) -> BaseException | None:
    """Why a read failed: an exception, a cancellation, or, where there is no future, the time limit."""
    if future is None:
        return TimeoutError("the read took too long")
    return asyncio.CancelledError() if future.cancelled() else future.exception()


class RepairQueue(Generic[T]):
    """Reads histories in order, urgent ones first, with at most `READS_MAX` in progress.

    A failure halves the number in progress, and each success adds one, so that a broker that is late gets
    fewer reads.

    Args:
        read: begins the read of a key; returns None if the key needs no read any more.
        done: called with a key and its future; with None after a timeout.
    """

    def __init__(
        self, read: Callable[[T], Future[Any] | None], done: Callable[[T, Future[Any] | None], None]
    ) -> None:
        self._begin_read = read
        self._done = done
        self._urgent: OrderedDict[T, None] = OrderedDict()
        self._others: OrderedDict[T, None] = OrderedDict()
        self._reading: set[T] = set()
        self._limit = READS_MAX
        self._is_pumping = False
        self._turn: asyncio.Handle | None = None
        self._paused: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others) + len(self._reading)

    def add(self, key: T, *, urgent: bool = False) -> None:
        """Read a key when its turn comes. Once is enough while it waits."""
        if urgent:
            self._others.pop(key, None)
            self._urgent[key] = None
        elif key not in self._urgent:
            self._others[key] = None
        self._pump()

    def discard(self, key: T) -> None:
        """Do not read a key."""
        self._urgent.pop(key, None)
        self._others.pop(key, None)

    def pause(self, seconds: float) -> None:
        """Begin no read for some time."""
        if self._paused is None:
            self._paused = asyncio.get_running_loop().call_later(seconds, self._resume)

    def stop(self) -> None:
        """Begin no more reads."""
        self._urgent.clear()
        self._others.clear()
        for handle in (self._turn, self._paused):
            if handle is not None:
                handle.cancel()

    def _resume(self) -> None:
        self._paused = None
        self._pump()

    def _pump(self) -> None:
        if self._is_pumping or self._turn is not None:
            return
        self._is_pumping = True
        try:
            for _ in range(READS_PER_TURN):
                if not self._may_begin():
                    return
                key, _ = (self._urgent or self._others).popitem(last=False)
                future = self._begin_read(key)
                if future is not None:
                    self._reading.add(key)
                    when_done(future, partial(self._ended, key))
        finally:
            self._is_pumping = False
        if self._may_begin():
            self._turn = asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._pump()

    def _may_begin(self) -> bool:
        waits = self._urgent or self._others
        return bool(waits) and len(self._reading) < self._limit and self._paused is None

    def _ended(self, key: T, future: Future[Any] | None) -> None:
        self._reading.discard(key)
        if failure_of(future) is None:
            self._limit = min(self._limit + 1, READS_MAX)
        else:
            self._limit = max(self._limit // 2, 1)
        try:
            self._done(key, future)
        finally:
            self._pump()
