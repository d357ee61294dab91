"""Running functions that are not `async` in the thread pool of anyio, which Starlette uses too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import Any, Final

import anyio.to_thread

_running: Final[set[asyncio.Task[Any]]] = set()


def in_threads() -> list[asyncio.Task[Any]]:
    """The functions that `in_thread` runs now for this event loop. A test waits for them."""
    loop = asyncio.get_running_loop()
    return [work for work in _running if work.get_loop() is loop]


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function in a thread, and return or raise what the function returns or raises.

    What it returns is awaited here if it can be: such a function hands a coroutine on.

    A caller that is cancelled waits for the thread all the same: a thread cannot be stopped, keeps its place
    in the pool until it ends, and may use what its caller closes next. A second cancellation ends the wait.

    Args:
        function: to call with the other arguments.
    """
    call = partial(function, *args, **kwargs)
    work = asyncio.get_running_loop().create_task(anyio.to_thread.run_sync(_captured, call))
    _running.add(work)
    work.add_done_callback(_running.discard)
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
