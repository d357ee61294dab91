"""Tasks that go on after an app has ended: stopped, and named."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any, Final

FINISH_S: Final = 1.0
"""Real seconds that tasks have to end by themselves."""

CANCEL_S: Final = 2.0
"""Real seconds that tasks have to end once they were cancelled."""

_PORTAL: Final = "BlockingPortal._call_func"
"""A call from another thread, such as one of Starlette's `TestClient`."""


async def stop_leaked(before: Set[asyncio.Task[Any]]) -> list[str]:
    """End the tasks that were not there before, other than the present one.

    Args:
        before: the tasks that were there before the app started.

    Returns:
        What ran in each task that did not end by itself.
    """
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not _is_portal(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=FINISH_S)
    if not left:
        return []
    names = sorted(_name(task) for task in left)
    for task in left:
        task.cancel()
    await asyncio.wait(left, timeout=CANCEL_S)
    return names


def _name(task: asyncio.Task[Any]) -> str:
    work = task.get_coro()
    frame = getattr(work, "cr_frame", None)
    place = f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
    return f"{getattr(work, '__qualname__', task.get_name())}{place}"


def _is_portal(task: asyncio.Task[Any]) -> bool:
    return task.get_name().endswith(_PORTAL)  # anyio names a task by its function
