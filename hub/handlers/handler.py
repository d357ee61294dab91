"""One function of the app, registered for an event and, if it has one, a pattern."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from hub.core.hooks import (
    HOOKS,
    REPLIES,
    ClientEvent,
    ConnectEvent,
    RPCReply,
)
from hub.core.patterns import Pattern, channels_like, methods_like
from hub.errors import HandlerError
from hub.handlers.conversion import InputFault
from hub.handlers.depends import dependency_of
from hub.handlers.plan import CallPlan, Planner
from hub.handlers.signature import (
    Handler,
    Hints,
    check_bare,
    event_types,
    is_async,
    name_of,
    signature_of,
    state_types,
)
from hub.handlers.threads import in_thread
from hub.protocol.codes import Disconnect, Error, Errors

EVENTS: Final[dict[str, type]] = {name: event for event, name in HOOKS.items()}
"""The class of each event, by its name."""


def decorator_of(hook: str, pattern: str | None = None) -> str:
    """How an app registers a handler of an event, such as `on_publish("chat:{room}")`."""
    if hook == "rpc" and pattern is not None:
        return f'rpc("{pattern}")'
    name = hook if hook.startswith("after_") else f"on_{hook}"
    return name if pattern is None else f'{name}("{pattern}")'


class AppHandler:
    """A function that handles an event.

    Args:
        hook: name of the event, such as `publish`.
        pattern: of the channels or methods that it handles; None for all that no pattern matches.
        function: of the app.
        hints: resolves annotations.

    Raises:
        HandlerError: the function cannot be called with what the event has.
        SetupError: the pattern is malformed.
    """

    def __init__(self, hook: str, pattern: str | None, function: Handler, hints: Hints) -> None:
        self.hook: Final = hook
        self.function: Final = function
        self.hints: Final = hints
        self.label: Final = decorator_of(hook, pattern)
        self.pattern: Final = None if pattern is None else _read(hook, pattern, self.label)
        self.plan: Final = self._plan()
        self.name: Final = name_of(function)
        self._is_async = is_async(function)
        self._state_class = self._find_state_class()

    @property
    def states(self) -> set[Any]:
        """Types of the connection's state that the function and its dependencies name."""
        return self.plan.states if self.plan else set()

    def call(self, event: ClientEvent[Any], parameters: Mapping[str, str]) -> Any:
        """Call the function for an event.

        Args:
            event: of the class of the hook.
            parameters: of the pattern.

        Returns:
            An awaitable of its answer, or error 107 where what the client sent does not fit.
        """
        if self.plan is None:
            return self.function(event) if self._is_async else in_thread(self.function, event)
        if self._state_class is not None and not isinstance(event.state, self._state_class):
            name = self._state_class.__name__
            raise TypeError(
                f"the connection has no state of type {name}: return ConnectReply(state={name}(…)) from the"
                " on_connect handler"
            )
        try:
            return self.plan.run(event, parameters, _reply_to_call if self.hook == "rpc" else _as_it_is)
        except InputFault as fault:
            channel = getattr(event, "channel", "")
            return Errors.BAD_REQUEST.because("bad_request", str(fault), channel)

    def _plan(self) -> CallPlan | None:
        """How the function is called; None for one that takes the event alone."""
        if self.pattern is None and _takes_event_alone(self.function, EVENTS[self.hook], self.hints):
            check_bare(self.label, self.function)
            return None
        names = self.pattern.names if self.pattern else ()
        plan = Planner(self.hook, self.label, EVENTS[self.hook], names, self.hints).plan(self.function)
        self._check_answer()
        return plan

    def _check_answer(self) -> None:
        """Check the annotated type of what the function returns.

        Raises:
            HandlerError: the hub cannot answer with it.
        """
        reply = REPLIES.get(EVENTS[self.hook])
        if reply is None or reply is RPCReply:
            return
        allowed = (reply, Error, Disconnect, NoneType)
        for each in alternatives(self.hints.of(self.function).get("return", Any)):
            part = get_origin(each) or each
            if isinstance(part, type) and part is not object and not issubclass(part, allowed):
                raise HandlerError(
                    f"{self.label} cannot call {name_of(self.function)}: it returns {part.__name__}, and the"
                    f" hub takes {reply.__name__}, Error, Disconnect or None"
                )

    def _find_state_class(self) -> type | None:
        """The class that the connection's state must have; None where any will do."""
        if self.hook == HOOKS[ConnectEvent]:
            return None  # which sets it
        classes = (get_origin(each) or each for each in self.states)
        return next((each for each in classes if isinstance(each, type) and not _is_dict(each)), None)


def _is_dict(kind: type) -> bool:
    """Whether values of a type are dicts, which a TypedDict's are."""
    return issubclass(kind, dict)


def _read(hook: str, pattern: str, label: str) -> Pattern:
    if not isinstance(pattern, str):
        raise HandlerError(f"{label} takes a pattern, which is a string, not {pattern!r}")
    return methods_like(pattern) if hook == "rpc" else channels_like(pattern)


def _takes_event_alone(function: Handler, event: type, hints: Hints) -> bool:
    """Whether a handler without a pattern asks for nothing but its event."""
    signature = signature_of(function) if callable(function) else None
    if signature is None:
        return True
    try:
        annotations = hints.of(function)
    except Exception:
        return True  # such as a name that is imported for type checkers alone
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        annotation = annotations.get(name, inspect.Parameter.empty)
        try:
            if dependency_of(parameter.default, annotation) is not None:
                return False
        except HandlerError:
            return False  # the plan says why
        is_open = annotation in (inspect.Parameter.empty, Any, object) or isinstance(annotation, TypeVar)
        if is_open or parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            continue
        events = event_types(annotation)
        if index > 0 or state_types(annotation) or not any(issubclass(event, each) for each in events):
            return False
    return True


def alternatives(annotation: Any) -> list[Any]:
    """The alternatives of an annotated type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [each for part in get_args(annotation) for each in alternatives(part)]
    return [annotation]


def _as_it_is(answer: Any) -> Any:
    return answer


def _reply_to_call(answer: Any) -> Any:
    """The reply to an RPC: the value that the handler returns is the result."""
    return answer if isinstance(answer, RPCReply | Error | Disconnect | None) else RPCReply(answer)
