"""What a handler asks for, as its signature says, found once where the handler is registered."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from functools import partial
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from starlette.requests import HTTPConnection
from starlette.responses import Response

from hub.core.hooks import ClientEvent
from hub.errors import HandlerError

Handler: TypeAlias = Callable[..., Any]
"""A function of the app that handles an event. One that is not `async` runs in a thread."""

_OWN: Final = ("hub.app", "hub.handlers")
"""Modules whose frames lie between the app's decorator and the analysis of its function."""


def name_of(handler: Handler) -> str:
    """The full name of a handler's function, or of its class where the handler is an object."""
    handler = _unwrapped(handler)
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


def is_async(handler: Handler) -> bool:
    """Whether calling a handler makes a coroutine, so that it must not run in a thread."""
    return inspect.iscoroutinefunction(_code_of(handler))


def is_async_generator(handler: Handler) -> bool:
    """Whether a function is `async` and has a `yield`."""
    return inspect.isasyncgenfunction(_code_of(handler))


def is_generator(handler: Handler) -> bool:
    """Whether a function is not `async` and has a `yield`."""
    return inspect.isgeneratorfunction(_code_of(handler))


def _unwrapped(handler: Handler) -> Handler:
    while isinstance(handler, partial):
        handler = handler.func
    return handler


def _code_of(handler: Handler) -> Any:
    """The function that is called: of an object, its `__call__`."""
    handler = _unwrapped(handler)
    if inspect.isroutine(handler) or inspect.isclass(handler):
        return handler
    return getattr(type(handler), "__call__", handler)  # noqa: B004 - the method itself is wanted


def signature_of(handler: Handler) -> inspect.Signature | None:
    """The signature of a handler; None for a built-in function that does not tell."""
    try:
        return inspect.signature(handler)
    except ValueError:
        return None


class Hints:
    """The annotations of functions, resolved. Names are looked up where the handler is defined, too.

    A model that is defined in a function, as in a test, is a local name there, which `typing` does not know.
    """

    def __init__(self) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OWN):
            frame = frame.f_back
        self._names: Mapping[str, Any] | None = frame.f_locals
        self._known: dict[int, Mapping[str, Any]] = {}
        """By the id of the function, which may not be hashable."""

    def close(self) -> None:
        """Let go of the local names. What was resolved stays known."""
        self._names = None

    def of(self, handler: Handler) -> Mapping[str, Any]:
        """The annotations of a function by parameter, with `return`.

        Raises:
            NameError, TypeError, AttributeError: an annotation cannot be resolved.
        """
        if id(handler) not in self._known:
            self._known[id(handler)] = self._resolve(handler)
        return self._known[id(handler)]

    def _resolve(self, handler: Handler) -> Mapping[str, Any]:
        function = _unwrapped(handler)
        if inspect.isclass(function):
            function = function.__init__
        elif not inspect.isroutine(function):
            function = type(function).__call__
        try:
            return typing.get_type_hints(function, include_extras=True)
        except NameError:
            names = self._names
            if names is None:
                raise
            return typing.get_type_hints(function, localns=dict(names), include_extras=True)


def event_types(annotation: Any) -> tuple[type, ...]:
    """The classes of events that an annotation names; empty if it is of something else.

    `SubscribeEvent[Cart] | PublishEvent[Cart]` gives both classes.
    """
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        found = [event_types(each) for each in get_args(annotation)]
        return tuple(each for part in found for each in part) if all(found) else ()
    plain = get_origin(annotation) or annotation
    return (plain,) if isinstance(plain, type) and issubclass(plain, ClientEvent) else ()


def state_types(annotation: Any) -> set[Any]:
    """The types of the connection's state in an annotation of events: `Cart` of `SubscribeEvent[Cart]`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return set[Any]().union(*map(state_types, get_args(annotation)))
    return set(get_args(annotation)) if event_types(annotation) else set()


def is_of_http(annotation: Any) -> bool:
    """Whether an annotation names a part of an HTTP request, which a handler has not."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if not isinstance(plain, type):
        return False
    return issubclass(plain, HTTPConnection | Response) or plain.__module__.startswith(
        ("fastapi.background", "fastapi.security", "starlette.background")
    )


def check_bare(decorator: str, handler: Handler) -> None:
    """Check that a handler can be called with one event.

    Args:
        decorator: such as `on_subscribe`, for the error.
        handler: of the app.

    Raises:
        HandlerError: it cannot.
    """
    if not callable(handler):
        raise HandlerError(f"{decorator} takes a function of one event, not {handler!r}")
    signature = signature_of(handler)
    try:
        if signature is not None:
            signature.bind(None)
    except TypeError as error:
        raise HandlerError(
            f"{decorator} calls its handler with one event, and {name_of(handler)}{signature} cannot be"
            f" called so: {error}"
        ) from None
