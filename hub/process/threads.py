"""Calls of an event loop's work from other threads, which wait for the outcome."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar

from hub.errors import EventLoopError, NotStartedError, RequestError, UnconfirmedError

TIMEOUT_S: Final = 10.0
"""How long a thread waits for the event loop."""

RETRY_FOR_S: Final = 2.0
"""For how long a publication is tried again that the broker did not take. While Redis is away, each waiting
thread is one that serves nobody."""

RETRY_AFTER_S: Final = 0.2

_T = TypeVar("_T")


class LoopCalls:
    """Publishes for threads other than the event loop's.

    Args:
        loop: that runs the hub.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self._process = os.getpid()
        self._waiting: set[Future[Any]] = set()
        self._is_closed = False

    def publish(self, send: Callable[[], Awaitable[_T]], key: str) -> _T:
        """Have the event loop publish, and wait until it has.

        Args:
            send: makes the call, in the event loop's thread. It is made again if it fails for a time: `key`
                lets all of the calls send one publication.
            key: its idempotency key.

        Raises:
            EventLoopError: this is the event loop's thread.
            NotStartedError: the hub stopped, or runs in another process, and nothing was sent.
            RequestError: the hub refused, or did not get to it in `TIMEOUT_S`; nothing was sent.
            UnconfirmedError: the publication may have been sent.
        """
        self._check_thread()
        begun = threading.Lock()  # the event loop takes it to begin, or the thread takes it to give up
        call = self._until_sent(send, key, begun)
        try:
            future = asyncio.run_coroutine_threadsafe(call, self.loop)
        except RuntimeError:  # the event loop is closed
            call.close()
            raise _stopped() from None
        self._waiting.add(future)
        if self._is_closed:  # since before the future was in the set
            future.cancel()
        try:
            return future.result(TIMEOUT_S)
        except (TimeoutError, CancelledError) as error:
            is_stopped = isinstance(error, CancelledError)
            if begun.acquire(blocking=False):
                if is_stopped:
                    raise _stopped() from None
                raise RequestError(
                    0,
                    f"nothing was sent: the hub's event loop was busy for {TIMEOUT_S:g} s;"
                    " does a handler block it?",
                    temporary=True,
                ) from None
            why = "the hub stopped" if is_stopped else f"the hub did not answer in {TIMEOUT_S:g} s"
            raise UnconfirmedError(f"{why}; the publication may have been sent", key) from None
        finally:
            future.cancel()
            self._waiting.discard(future)

    def close(self) -> None:
        """End the calls that wait, and those that come: the hub stopped."""
        self._is_closed = True
        for future in list(self._waiting):
            future.cancel()

    async def _until_sent(self, send: Callable[[], Awaitable[_T]], key: str, begun: threading.Lock) -> _T:
        if not begun.acquire(blocking=False):
            raise asyncio.CancelledError  # the thread gave up
        ends_at = self.loop.time() + RETRY_FOR_S
        failed: RequestError | None = None
        while True:
            try:
                return await send()
            except RequestError as error:
                if not error.temporary:
                    raise
                failed = error
            except NotStartedError:
                if failed is None:
                    raise
                ends_at = 0.0  # the hub stopped between two tries
            if self.loop.time() + RETRY_AFTER_S > ends_at:
                text = f"{failed.message}; the publication may have been sent"
                raise UnconfirmedError(text, key, code=failed.code) from None
            await asyncio.sleep(RETRY_AFTER_S)

    def _check_thread(self) -> None:
        if self._process != os.getpid():
            raise NotStartedError(
                f"the hub runs in process {self._process}, and this is a fork of it: use a Publisher here"
            )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if running is self.loop:
            raise EventLoopError("this is the hub's event loop: await hub.publish(…)")


def _stopped() -> NotStartedError:
    return NotStartedError("the hub stopped, and the publication was not sent")
