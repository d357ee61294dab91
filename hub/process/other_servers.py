"""A server under an app that is not the hub's own: how many processes it runs, and how it replaces them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

from hub.process import program


def worker_processes() -> int:
    """Return how many processes the server under the app runs, of which this is one; 1 where nothing tells.

    The hub's own workers are not counted: the settings refuse them without Redis.
    """
    return max(_count(getattr(_worker_config(), "workers", None)), _of_forking(), 1)


def find_restart(drain: Callable[[Callable[[], None]], None]) -> Callable[[], None] | None:
    """Return what replaces the processes of the server under the lifespan that calls this.

    - gunicorn, and uvicorn with several workers: the parent of the workers replaces all of them at SIGHUP.
    - uvicorn with one process: it ends, and its program starts again in the same process.

    Args:
        drain: asks the clients to reconnect, and then calls a function, which ends the server for a restart.

    Returns:
        None where the server is another one, or would go on with the code that it has: `gunicorn --preload`.
    """
    config = _worker_config()
    if _is_of(config, "uvicorn.config") and _count(config.workers) > 1 and not config.should_reload:
        return partial(_hang_up, os.getppid())
    for caller in _callers():
        if _is_of(caller, "gunicorn.arbiter"):
            return None if caller.cfg.preload_app else partial(_hang_up, os.getppid())
        if _is_of(caller, "uvicorn.server") and program.can_restart():
            return partial(_end_and_restart, caller, drain)
    return None


def _hang_up(parent: int) -> None:
    if os.getppid() == parent:  # else it is gone, and what is left of the server ends
        os.kill(parent, signal.SIGHUP)


def _end_and_restart(server: Any, drain: Callable[[Callable[[], None]], None]) -> None:
    if not server.should_exit:
        atexit.register(program.restart)
        drain(partial(setattr, server, "should_exit", True))


def cancel_restart() -> None:
    """Let a server that ends for a restart end for good: a signal came meanwhile."""
    atexit.unregister(program.restart)


def _worker_config() -> Any:
    """The configuration that uvicorn and Hypercorn pass to each worker process; None in another process."""
    return getattr(multiprocessing.current_process(), "_kwargs", {}).get("config")


def _of_forking() -> int:
    """The workers of gunicorn or Granian, which fork in a method of the object with the configuration."""
    for caller in _callers():
        if _is_of(caller, "gunicorn.arbiter") or _is_of(caller, "granian.server."):
            config = getattr(caller, "cfg", caller)
            if (workers := getattr(config, "workers", None)) is not None:
                return _count(workers)
    return 1


def _callers() -> Iterator[Any]:
    """The objects whose methods have called this, the latest first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame.f_locals.get("self")
        frame = frame.f_back


def _is_of(caller: object, module: str) -> bool:
    """Whether an object's class, or a base of it, is of a module whose name begins so."""
    return any(base.__module__.startswith(module) for base in type(caller).__mro__)


def _count(workers: object) -> int:
    return workers if isinstance(workers, int) else 1
