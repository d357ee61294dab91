"""Running functions that are not `async` in the thread pool of anyio, which Starlette uses too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import Any

import anyio.to_thread


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function in a thread, and return or raise what the function returns or raises.

    What it returns is awaited here if it can be: such a function hands a coroutine on.

    A caller that is cancelled waits for the thread all the same: a thread cannot be stopped, keeps its place
    in the pool until it ends, and may use what its caller closes next. A second cancellation ends the wait.

    Args:
        function: to call with the other arguments.
    """
    work = asyncio.ensure_future(anyio.to_thread.run_sync(_captured, partial(function, *args, **kwargs)))
    try:
        result, error = await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
    if error is not None:
        raise error
    return await result if isawaitable(result) else result


def _captured(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Call a function. An error is returned: SystemExit, raised in a task, would end the event loop."""
    try:
        return function(), None
    except BaseException as error:
        return None, error
