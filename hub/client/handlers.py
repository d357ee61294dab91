"""Who is told of what: the handlers of a client's events."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hub.client import values

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])


class Handlers(Generic[T]):
    """The handlers of one kind of event: `@client.on_connected` adds one.

    A handler takes the event. It may be async; the next event waits for it.
    """

    def __init__(self) -> None:
        self._handlers: list[Callable[[T], Any]] = []

    def __call__(self, handler: H) -> H:
        self._handlers.append(handler)
        return handler

    async def handle(self, event: T) -> None:
        """Call the handlers. The event loop is told of one that raises; the client goes on."""
        for handler in self._handlers:
            try:
                result = handler(event)
                if inspect.isawaitable(result):
                    await result
            except Exception as exc:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a handler of {type(event).__name__} raised", "exception": exc}
                )


class SubscriptionEvents:
    """The events that subscriptions have, client-side and server-side ones alike.

    Attributes:
        handlers: by kind of event.
    """

    def __init__(self) -> None:
        self.on_subscribing: Handlers[values.Subscribing] = Handlers()
        self.on_subscribed: Handlers[values.Subscribed] = Handlers()
        self.on_unsubscribed: Handlers[values.Unsubscribed] = Handlers()
        self.on_publication: Handlers[values.Published] = Handlers()
        self.on_join: Handlers[values.Joined] = Handlers()
        self.on_leave: Handlers[values.Left] = Handlers()
        self.on_error: Handlers[values.Error] = Handlers()
        self.handlers: dict[type, Handlers[Any]] = {
            values.Subscribing: self.on_subscribing,
            values.Subscribed: self.on_subscribed,
            values.Unsubscribed: self.on_unsubscribed,
            values.Published: self.on_publication,
            values.Joined: self.on_join,
            values.Left: self.on_leave,
            values.Error: self.on_error,
        }
