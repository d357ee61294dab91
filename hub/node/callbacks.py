"""The app's handlers, called with a time limit. Whatever a handler raises is the handler's failure alone."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from hub.core.hooks import HOOKS, Event, checked
from hub.node.tasks import Tasks, known
from hub.protocol.codes import Errors
from hub.telemetry import Metrics, RateLimitedLog, get_logger

HOOK_TIMEOUT_S: Final = 10.0
"""How long a handler of the app may take before the client is told that it failed."""

Handler: TypeAlias = Callable[[Any], Any]
"""A function of one event, `async` or not; a function that is not async must not block."""

_log = get_logger("hub.node")


def name_of(handler: Handler) -> str:
    """The full name of a handler's function, or of its class where the handler is an object."""
    while isinstance(handler, partial):
        handler = handler.func
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


def check_handler(event: str, handler: Handler) -> None:
    """Check that a handler can be called with one event.

    Args:
        event: what it handles, such as `subscribe`.
        handler: of the app.

    Raises:
        TypeError: it cannot.
    """
    if not callable(handler):
        raise TypeError(f"on_{event} takes a function of one event, not {handler!r}")
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return  # a built-in function that does not tell
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"on_{event} calls its handler with one event, and {name_of(handler)}{signature} cannot be called"
            f" so: {error}"
        ) from None


class Callbacks:
    """Calls the app's handlers.

    Args:
        handlers: by event: connect, subscribe, publish, rpc, message, disconnect.
        tasks: runs handlers that are async.
        metrics: counts failures.
    """

    def __init__(self, handlers: Mapping[str, Handler], tasks: Tasks, metrics: Metrics) -> None:
        self._handlers = handlers
        self._tasks = tasks
        self._metrics = metrics
        self._log = RateLimitedLog(_log)

    def __contains__(self, event: str) -> bool:
        return event in self._handlers

    def call(self, event: Event) -> Future[Any]:
        """Call the handler of an event.

        Returns:
            What it answers; error 100 where it raised, was cancelled, or took longer than `HOOK_TIMEOUT_S`.
        """
        try:
            answer = self._handlers[HOOKS[type(event)]](event)
            if not isawaitable(answer):
                return known(checked(event, answer))
        except BaseException as error:  # a handler may raise anything; none of it is meant for the hub
            return known(self._failed(event, error))
        loop = asyncio.get_running_loop()
        result: Future[Any] = loop.create_future()
        task = self._tasks.spawn(self._answer(event, answer, result), "handler")
        timer = loop.call_later(HOOK_TIMEOUT_S, self._expire, event, result, task)

        def done(_: object) -> None:
            timer.cancel()
            if result.done():
                return
            if self._tasks.is_stopping:
                result.cancel()
            else:  # the handler cancelled its own task
                result.set_result(self._failed(event, asyncio.CancelledError()))

        task.add_done_callback(done)
        return result

    async def _answer(self, event: Event, answer: Awaitable[Any], result: Future[Any]) -> None:
        try:
            outcome = checked(event, await answer)
        except asyncio.CancelledError as error:
            if self._tasks.is_stopping or result.done():
                raise
            outcome = self._failed(event, error)
        except BaseException as error:  # as above
            if result.done():
                return
            outcome = self._failed(event, error)
        if not result.done():
            result.set_result(outcome)

    def _expire(self, event: Event, result: Future[Any], task: asyncio.Task[None]) -> None:
        # The client is answered now: a handler may take its time even to be cancelled.
        if not result.done():
            result.set_result(self._failed(event, TimeoutError(f"no answer within {HOOK_TIMEOUT_S:g} s")))
        task.cancel()

    def _failed(self, event: Event, error: BaseException) -> Any:
        name = HOOKS[type(event)]
        handler = self._handlers[name]
        self._metrics.boundary_errors.labels("handler").inc()
        self._log.error(
            "hook.failed",
            kind=name,
            hook=name,
            function=name_of(handler),
            client=event.client,
            user=event.user,
            channel=getattr(event, "channel", ""),
            method=getattr(event, "method", ""),
            exc_info=error,
        )
        return Errors.INTERNAL
