"""Reads of history that meet: those that wait for the same channel share one."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from hub.broker.base import Stream

Run: TypeAlias = Callable[[bytes, int | None, int, bool], Future[Stream]]
_Key: TypeAlias = tuple[Any, ...]
_Asked: TypeAlias = list[tuple[int | None, int, Future[Stream]]]


class Reads:
    """Runs one read of a kind at a time, and the next for all who asked meanwhile.

    Who asks while a read is on its way is not served by it: it may have happened before a publication that
    the asker must see. Reads of all that follows an offset, or of the position alone, are one kind for a
    channel, whatever the offset; others share only with their like.

    Args:
        run: makes a read, of a channel's name on the wire, since, limit and reverse.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: dict[_Key, _Asked] = {}
        """Those who wait for the read after the one on its way."""

    def read(self, name: bytes, since: int | None, limit: int, reverse: bool) -> Future[Stream]:
        """Ask for a read."""
        future: Future[Stream] = asyncio.get_running_loop().create_future()
        key = (name, since, limit, reverse) if reverse or limit > 0 else (name,)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = []
            self._start(key, [(since, limit, future)])
        else:
            waiting.append((since, limit, future))
        return future

    def _start(self, key: _Key, asked: _Asked) -> None:
        if len(key) > 1:
            done = self._run(*key)
        else:
            offsets = [since or 0 for since, limit, _ in asked if limit]
            done = self._run(key[0], min(offsets, default=0) or None, -1 if offsets else 0, False)
        done.add_done_callback(partial(self._landed, key, asked))

    def _landed(self, key: _Key, asked: _Asked, done: Future[Stream]) -> None:
        waiting = self._waiting.pop(key)
        if waiting:
            self._waiting[key] = []
            self._start(key, waiting)
        failure = done.exception()
        for since, limit, future in asked:
            if future.done():
                continue
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(done.result() if len(key) > 1 else _part(done.result(), since, limit))


def _part(stream: Stream, since: int | None, limit: int) -> Stream:
    """What one asker wants of a read that serves several."""
    if limit == 0:
        return Stream([], stream.top)
    publications = stream.publications
    if not publications or publications[0].offset > (since or 0):
        return stream
    return Stream([each for each in publications if each.offset > (since or 0)], stream.top)
