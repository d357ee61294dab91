"""How a handler is called: each value has a slot, slots are filled in order, each call names its slots."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from hub.core.hooks import ClientEvent
from hub.errors import HandlerError
from hub.handlers.conversion import Converter, converter, is_scalar
from hub.handlers.depends import Dependency, dependency_of
from hub.handlers.signature import (
    Handler,
    Hints,
    event_types,
    is_async,
    is_async_generator,
    is_generator,
    is_of_http,
    name_of,
    signature_of,
    state_types,
)
from hub.handlers.threads import in_thread

_EVENT: Final = 0
"""The slot of the event."""

_NO_PAYLOAD: Final = ("disconnect",)
"""Events that have no payload."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A function, and the slots of its arguments.

    Args:
        function: the handler or a dependency.
        positional: slots of arguments that have no name.
        named: slots of the others by name.
    """

    function: Handler
    positional: tuple[int, ...]
    named: tuple[tuple[str, int], ...]

    def arguments(self, values: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        return [values[slot] for slot in self.positional], {name: values[slot] for name, slot in self.named}

    def begin(self, values: list[Any]) -> Any:
        """Invocation the function, in a thread if it is not `async`. Returns an awaitable."""
        positional, named = self.arguments(values)
        if is_async(self.function):
            return self.function(*positional, **named)
        return in_thread(self.function, *positional, **named)

    async def enter(self, values: list[Any], stack: AsyncExitStack) -> Any:
        """Make the value of a dependency. What follows its `yield` runs when the stack is closed."""
        positional, named = self.arguments(values)
        if is_async_generator(self.function):
            return await stack.enter_async_context(asynccontextmanager(self.function)(*positional, **named))
        if is_generator(self.function):
            manager = contextmanager(self.function)(*positional, **named)
            return await stack.enter_async_context(_in_threads(manager))
        return await self.begin(values)


@asynccontextmanager
async def _in_threads(manager: Any) -> Any:
    """A context manager whose two ends run in threads."""
    value = await in_thread(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        if not await in_thread(manager.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await in_thread(manager.__exit__, None, None, None)


@dataclass(frozen=True, slots=True)
class Input:
    """A slot that is filled by what the client sent.

    Args:
        parameter: of the pattern; empty for the payload.
        converter: to the annotated type.
        default: of a payload that is absent; `inspect.Parameter.empty` for none.
    """

    parameter: str
    converter: Converter
    default: Any = inspect.Parameter.empty

    def read(self, event: Any, parameters: Mapping[str, str]) -> Any:
        """The converted value.

        Raises:
            InputFault: what the client sent does not fit.
        """
        if self.parameter:
            return self.converter.from_text(parameters[self.parameter], self.parameter)
        if event.data is None and self.default is not inspect.Parameter.empty:
            return self.default
        return self.converter.from_payload(event.data)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """The order in which the slots of a handler are filled: the event, the inputs, the dependencies.

    Args:
        inputs: what the client sent.
        steps: dependencies, each after those that it needs.
        handler: the handler itself.
        payload: the annotated type of the payload; `inspect.Parameter.empty` for none.
        states: types of the connection's state that the handler and its dependencies name.
    """

    inputs: list[Input]
    steps: list[Invocation]
    handler: Invocation
    payload: Any
    states: set[Any]

    def run(
        self, event: ClientEvent[Any], parameters: Mapping[str, str], finish: Callable[[Any], Any]
    ) -> Any:
        """Invocation the handler for an event. Returns an awaitable of its finished answer.

        Args:
            event: of the client.
            parameters: of the pattern.
            finish: turns what the handler returns into an answer, before dependencies are closed.

        Raises:
            InputFault: what the client sent does not fit.
        """
        values: list[Any] = [event]
        for each in self.inputs:
            values.append(each.read(event, parameters))
        return self._answer(values, finish)

    async def _answer(self, values: list[Any], finish: Callable[[Any], Any]) -> Any:
        if not self.steps:
            return finish(await self.handler.begin(values))
        answered = False
        async with AsyncExitStack() as stack:
            for step in self.steps:
                values.append(await step.enter(values, stack))
            answer = finish(await self.handler.begin(values))
            answered = True
        if not answered:
            raise RuntimeError("a dependency caught an error after its yield and did not raise it again")
        return answer


class Planner:
    """Makes the plan of one handler.

    While it does, slots of inputs are 1, 2, …, and slots of dependencies -1, -2, …: in the plan, inputs come
    first.

    Args:
        hook: name of the event.
        label: how the handler is registered, such as `on_publish("chat:{room}")`, for errors.
        event: class of the event.
        names: parameters of the pattern.
        hints: annotations.
    """

    def __init__(self, hook: str, label: str, event: type, names: tuple[str, ...], hints: Hints) -> None:
        self._hook = hook
        self._label = label
        self._event = event
        self._names = names
        self._hints = hints
        self._inputs: list[Input] = []
        self._steps: list[Invocation] = []
        self._shared: dict[int, int] = {}
        """Slots of dependencies whose value is shared, by the id of the function."""
        self._payload: Any = inspect.Parameter.empty
        self._payload_name = ""
        self._states: set[Any] = set()

    def plan(self, handler: Handler) -> CallPlan:
        """The plan of a handler.

        Raises:
            HandlerError: the handler cannot be called with what its event has.
        """
        if not callable(handler):
            raise HandlerError(f"{self._label} takes a function, not {handler!r}")
        if is_async_generator(handler) or is_generator(handler):
            raise self._wrong(handler, "it has a yield: return the answer")
        call = self._call(handler, ())
        return CallPlan(
            self._inputs,
            [self._settled(step) for step in self._steps],
            self._settled(call),
            self._payload,
            self._states,
        )

    def _settled(self, call: Invocation) -> Invocation:
        """A call with the final numbers of its slots."""

        def settle(slot: int) -> int:
            return len(self._inputs) - slot if slot < 0 else slot

        return Invocation(
            call.function,
            tuple(map(settle, call.positional)),
            tuple((name, settle(slot)) for name, slot in call.named),
        )

    def _call(self, function: Handler, users: tuple[Handler, ...]) -> Invocation:
        """How a function is called.

        Args:
            function: the handler or a dependency.
            users: the functions that need the dependency; empty for the handler.
        """
        signature = signature_of(function)
        if signature is None:
            raise self._wrong(function, "it is built in and has no signature: wrap it in a function")
        try:
            hints = self._hints.of(function)
        except Exception as error:  # an annotation is an expression, which may raise anything
            remedy = "import its names at the top of the module, outside of `if TYPE_CHECKING`"
            raise self._wrong(
                function, f"its annotations cannot be resolved ({_line(error)}): {remedy}"
            ) from None
        positional: list[int] = []
        named: list[tuple[str, int]] = []
        for name, parameter in signature.parameters.items():
            slot = self._slot(function, parameter, hints.get(name, inspect.Parameter.empty), users)
            if slot is None:
                continue
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                positional.append(slot)
            else:
                named.append((name, slot))
        return Invocation(function, tuple(positional), tuple(named))

    def _slot(
        self, function: Handler, parameter: inspect.Parameter, annotation: Any, users: tuple[Handler, ...]
    ) -> int | None:
        """The slot of a parameter; None for one that keeps its default."""
        name = parameter.name
        has_default = parameter.default is not inspect.Parameter.empty
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            if users:
                return None
            stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            raise self._wrong(function, f"its parameter `{stars}{name}` has no name: name each parameter")
        try:
            dependency = dependency_of(parameter.default, annotation)
        except HandlerError as error:
            raise self._wrong(function, f"its parameter `{name}` {error}") from None
        if dependency is not None:
            return self._step(function, name, dependency, users)
        if annotation is inspect.Parameter.empty:
            if users and has_default:
                return None
            raise self._wrong(function, f"its parameter `{name}` has no annotation: annotate it")
        if events := event_types(annotation):
            return self._of_event(function, name, annotation, events)
        if is_of_http(annotation):
            remedy = (
                "take the event, or read what you need in the on_connect handler and keep it in event.state"
            )
            raise self._wrong(
                function, f"its parameter `{name}` is of an HTTP request, and a handler has none: {remedy}"
            )
        if name in self._names:
            return self._input(Input(name, self._converter(function, name, annotation)))
        if users and has_default:
            return None
        if users:
            raise self._wrong(
                function,
                f"its parameter `{name}` is unknown: a dependency takes the event, parameters of the pattern"
                " and other dependencies",
            )
        return self._of_payload(function, parameter, annotation)

    def _step(self, function: Handler, name: str, dependency: Dependency, users: tuple[Handler, ...]) -> int:
        made_by = dependency.function
        if made_by is None or not callable(made_by):
            raise self._wrong(
                function,
                f"its parameter `{name}` depends on {made_by!r}, which is not a function: write"
                " Depends(function), without calling the function",
            )
        if made_by is function or made_by in users:
            raise self._wrong(function, f"its dependency {name_of(made_by)} depends on itself")
        if dependency.use_cache and id(made_by) in self._shared:
            return self._shared[id(made_by)]
        self._steps.append(self._call(made_by, (*users, function)))
        slot = -len(self._steps)
        if dependency.use_cache:
            self._shared[id(made_by)] = slot
        return slot

    def _of_event(self, function: Handler, name: str, annotation: Any, events: tuple[type, ...]) -> int:
        if not any(issubclass(self._event, each) for each in events):
            given = self._event.__name__
            raise self._wrong(
                function,
                f"its parameter `{name}` is a {events[0].__name__}, and the event is a {given}: annotate it"
                f" with {given}, or with ClientEvent",
            )
        self._states |= state_types(annotation)
        return _EVENT

    def _of_payload(self, function: Handler, parameter: inspect.Parameter, annotation: Any) -> int:
        name = parameter.name
        if is_scalar(annotation) and name != "data":
            known = ", ".join(f"`{each}`" for each in self._names)
            pattern = f"not in the pattern, whose parameters are {known}" if known else "unknown"
            raise self._wrong(
                function,
                f"its parameter `{name}` is {pattern}: correct it, or name a payload of this type `data`",
            )
        if self._hook in _NO_PAYLOAD:
            raise self._wrong(function, f"its parameter `{name}` is unknown: the event has no payload")
        if self._payload_name:
            raise self._wrong(
                function,
                f"its parameters `{self._payload_name}` and `{name}` would both be the payload: take one of"
                " them from Depends, or make one model of both",
            )
        self._payload, self._payload_name = annotation, name
        made = Input("", self._converter(function, name, annotation), parameter.default)
        return self._input(made)

    def _input(self, made: Input) -> int:
        self._inputs.append(made)
        return len(self._inputs)

    def _converter(self, function: Handler, name: str, annotation: Any) -> Converter:
        try:
            return converter(annotation)
        except Exception as error:  # a model may raise anything where its schema is made
            remedy = "use a Pydantic model, a msgspec.Struct, a dataclass, a TypedDict or a plain type"
            raise self._wrong(
                function, f"its parameter `{name}` has a type that cannot be read ({_line(error)}): {remedy}"
            ) from None

    def _wrong(self, function: Handler, why: str) -> HandlerError:
        return HandlerError(f"{self._label} cannot call {name_of(function)}: {why}")


def _line(error: Exception) -> str:
    """The first line of an error's text, without its last period."""
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
