"""Signals of a process: catching them, and what SIGHUP means."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_AT_TERMINAL: Final = os.isatty(2)


def meaning_of(sig: int) -> int:
    """The signal to act on: SIGTERM for a SIGHUP that a closing terminal sent, else the signal itself."""
    return signal.SIGTERM if sig == signal.SIGHUP and _AT_TERMINAL and not os.isatty(2) else sig


def went_to_group(sig: int) -> bool:
    """Whether a signal seems to come from the terminal, which sends SIGINT to all processes of the group."""
    try:
        return sig == signal.SIGINT and os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def catching(handler: Callable[[int, FrameType | None], Any], *signals: int) -> Generator[None, None, None]:
    """Call a handler at signals for as long as the context lasts."""
    before = {sig: signal.signal(sig, handler) for sig in signals}
    try:
        yield
    finally:
        for sig, was in before.items():
            signal.signal(sig, was)
