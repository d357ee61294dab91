"""Reads of history that meet: callers that wait for the same channel share one."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from hub.broker.base import Stream
from hub.broker.redis.futures import fail


class HistoryRead(NamedTuple):
    """A read of one channel.

    Args:
        name: of the channel in Redis.
        since: offset after which to read; None for all.
        limit: publications at the most; 0 for the position alone, -1 for all.
        reverse: from the newest to the oldest.
        bytes_max: size after which to stop; 0 for no bound.
    """

    name: bytes
    since: int | None
    limit: int
    reverse: bool
    bytes_max: int = 0


_Callers: TypeAlias = list[tuple[HistoryRead, Future[Stream]]]


class SharedReads:
    """Runs one read of a kind at a time, and the next for all callers that asked meanwhile.

    A caller that asks while a read is under way is not served by that one: it may have happened before a
    publication that the caller must see. Reads of all that follows an offset, or of the position alone, are
    one kind for a channel, whatever the offset; any other read shares only with its like.

    Args:
        run: makes a read.
    """

    def __init__(self, run: Callable[[HistoryRead], Future[Stream]]) -> None:
        self._run = run
        self._waiting: dict[HistoryRead | bytes, _Callers] = {}
        """Callers that wait for the read after the one under way."""

    def read(self, read: HistoryRead) -> Future[Stream]:
        """Ask for a read."""
        future: Future[Stream] = asyncio.get_running_loop().create_future()
        kind = read if read.reverse or read.limit > 0 or (read.bytes_max and read.limit) else read.name
        waiting = self._waiting.get(kind)
        if waiting is None:
            self._waiting[kind] = []
            self._start(kind, [(read, future)])
        else:
            waiting.append((read, future))
        return future

    def _start(self, kind: HistoryRead | bytes, callers: _Callers) -> None:
        if isinstance(kind, HistoryRead):
            done = self._run(kind)
        else:
            offsets = [read.since or 0 for read, _ in callers if read.limit]
            since = min(offsets, default=0) or None
            done = self._run(HistoryRead(kind, since, -1 if offsets else 0, False))
        done.add_done_callback(partial(self._landed, kind, callers))

    def _landed(self, kind: HistoryRead | bytes, callers: _Callers, done: Future[Stream]) -> None:
        waiting = self._waiting.pop(kind)
        if waiting:
            self._waiting[kind] = []
            self._start(kind, waiting)
        failure = done.exception()
        for read, future in callers:
            if failure is not None:
                fail(future, failure)
            elif not future.done():
                shared = done.result()
                future.set_result(shared if isinstance(kind, HistoryRead) else _part(shared, read))


def _part(stream: Stream, read: HistoryRead) -> Stream:
    """What one caller wants of a read that serves several."""
    if read.limit == 0:
        return Stream([], stream.top)
    since = read.since or 0
    publications = stream.publications
    if not publications or publications[0].offset > since:
        return stream
    return Stream([each for each in publications if each.offset > since], stream.top)
