"""Learning of the signal that ends a server which tells an app nothing of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def at_end_signal(act: Callable[[], object]) -> Generator[None, None, None]:
    """Call a function at SIGINT and SIGTERM, and then the handler that the server has for the signal.

    Nothing is called outside the main thread, and for a signal that the server does not handle.

    Args:
        act: is called in the signal handler.
    """
    chained: list[tuple[int, Callable[..., Any], Callable[..., Any]]] = []
    if threading.current_thread() is threading.main_thread():
        for sig in _SIGNALS:
            before = signal.getsignal(sig)
            if callable(before) and before is not signal.default_int_handler:
                handler = _chain(act, before)
                signal.signal(sig, handler)
                chained.append((sig, handler, before))
    try:
        yield
    finally:
        for number, handler, before in chained:
            if signal.getsignal(number) is handler:
                signal.signal(number, before)


def _chain(
    act: Callable[[], object], before: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], None]:
    def handle(sig: int, frame: FrameType | None) -> None:
        act()
        before(sig, frame)

    return handle
