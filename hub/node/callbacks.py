"""The app's handlers, called with a time limit. Whatever a handler raises is the handler's failure alone."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any, Final

from hub.core.hooks import HOOKS, Event, RefusalError, checked
from hub.handlers.handler import AppHandler
from hub.handlers.registry import HandlerTable
from hub.node.tasks import Tasks, known
from hub.protocol.codes import Errors
from hub.telemetry import Metrics, RateLimitedLog, get_logger

HOOK_TIMEOUT_S: Final = 10.0
"""How long a handler of the app may take before the client is told that it failed."""

HOOK_SLOW_S: Final = 1.0
"""How long a handler of the app takes before a line of the log says that it is slow."""

_log = get_logger("hub.node")


class Callbacks:
    """Calls the app's handlers.

    Args:
        handlers: of the app.
        tasks: run the handlers.
        metrics: counts failures.
    """

    def __init__(self, handlers: HandlerTable, tasks: Tasks, metrics: Metrics) -> None:
        self._handlers = handlers
        self._tasks = tasks
        self._metrics = metrics
        self._log = RateLimitedLog(_log)

    def __contains__(self, hook: str) -> bool:
        return hook in self._handlers

    def is_handled(self, hook: str, name: str) -> bool:
        """Whether the app handles an event of a channel or method."""
        return hook in self._handlers and self._handlers.is_handled(hook, name)

    def call(self, event: Event) -> Future[Any]:
        """Call the handler of an event.

        Returns:
            What it answers; error 100 where it raised, was cancelled, or took longer than `HOOK_TIMEOUT_S`;
            error 107 where what the client sent does not fit what the handler takes. None without a handler.
        """
        found = self._handlers.find(event)
        if found is None:
            return known(None)
        handler, parameters = found
        try:
            answer = handler.call(event, parameters)
            if not isawaitable(answer):
                return known(checked(event, answer))
        except BaseException as error:  # a handler may raise anything; none of it is meant for the hub
            return known(self._failed(handler, event, error))
        loop = asyncio.get_running_loop()
        began = loop.time()
        result: Future[Any] = loop.create_future()
        task = self._tasks.spawn(self._answer(handler, event, answer, result), "handler")
        timer = loop.call_later(HOOK_TIMEOUT_S, self._expire, handler, event, result, task)

        def done(_: object) -> None:
            timer.cancel()
            took_s = loop.time() - began
            if took_s >= HOOK_SLOW_S:
                self._slow(handler, event, took_s)
            if result.done():
                return
            if self._tasks.is_stopping:
                result.cancel()
            else:  # the handler cancelled its own task
                result.set_result(self._failed(handler, event, asyncio.CancelledError()))

        task.add_done_callback(done)
        return result

    async def _answer(
        self, handler: AppHandler, event: Event, answer: Awaitable[Any], result: Future[Any]
    ) -> None:
        try:
            outcome = checked(event, await answer)
        except RefusalError as error:
            outcome = error.refusal
        except asyncio.CancelledError as error:
            if self._tasks.is_stopping or result.done():
                raise
            outcome = self._failed(handler, event, error)
        except BaseException as error:  # as above
            if result.done():
                return
            outcome = self._failed(handler, event, error)
        if not result.done():
            result.set_result(outcome)

    def _expire(
        self, handler: AppHandler, event: Event, result: Future[Any], task: asyncio.Task[None]
    ) -> None:
        # The client is answered now: a handler may take its time even to be cancelled.
        if not result.done():
            error = TimeoutError(f"no answer within {HOOK_TIMEOUT_S:g} s")
            result.set_result(self._failed(handler, event, error))
        task.cancel()

    def _failed(self, handler: AppHandler, event: Event, error: BaseException) -> Any:
        self._metrics.boundary_errors.labels("handler").inc()
        self._log.error(
            "hook.failed",
            kind=handler.label,
            hook=HOOKS[type(event)],
            function=handler.name,
            client=event.client,
            user=event.user,
            channel=getattr(event, "channel", ""),
            method=getattr(event, "method", ""),
            exc_info=error,
        )
        return Errors.INTERNAL

    def _slow(self, handler: AppHandler, event: Event, took_s: float) -> None:
        self._log.warning(
            "hook.slow",
            kind=handler.label,
            hook=HOOKS[type(event)],
            function=handler.name,
            client=event.client,
            user=event.user,
            channel=getattr(event, "channel", ""),
            method=getattr(event, "method", ""),
            duration_s=round(took_s, 3),
        )
