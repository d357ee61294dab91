"""Futures that may fail with nobody waiting for them."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


def fail(future: Future[Any], error: BaseException) -> None:
    """Fail a future, unless it is done. asyncio does not complain where nobody looks at the failure."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # now it counts as retrieved


def settle(future: Future[None], error: BaseException | None = None) -> None:
    """End a future, unless it is done: with success, or with an error."""
    if error is not None:
        fail(future, error)
    elif not future.done():
        future.set_result(None)


def merge(futures: Sequence[Future[Mapping[_K, _V]]]) -> Future[dict[_K, _V]]:
    """One future for mappings that several futures bring. The first failure makes it fail."""
    merged: Future[dict[_K, _V]] = asyncio.get_running_loop().create_future()
    result: dict[_K, _V] = {}
    left = len(futures)

    def arrived(done: Future[Mapping[_K, _V]]) -> None:
        nonlocal left
        left -= 1
        if done.cancelled():
            merged.cancel()
        elif error := done.exception():
            fail(merged, error)
        elif not merged.done():
            result.update(done.result())
            if not left:
                merged.set_result(result)

    if not futures:
        merged.set_result(result)
    for future in futures:
        future.add_done_callback(arrived)
    return merged
