"""The program that this process runs, and starting that program again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from typing import Final

_PROCESS_ID: Final = os.getpid()
"""The process that imported this module: a fork of the process has another id."""


def command() -> list[str]:
    """Return the command line that started this process's program."""
    return [sys.executable, *sys.orig_argv[1:]]


def can_restart() -> bool:
    """Whether the command line starts what this process runs.

    It does in the main thread of a script or a module, and not in a child of `multiprocessing` or in a fork.
    """
    return (
        hasattr(sys.modules["__main__"], "__file__")
        and multiprocessing.parent_process() is None
        and os.getpid() == _PROCESS_ID
        and threading.current_thread() is threading.main_thread()
    )


def restart() -> None:
    """Start the program again in this process, so that the process's parent notices nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new program handles it
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, command())  # noqa: S606 - its own command line
