"""All handlers of an app, by event and pattern."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from hub.core.hooks import HOOKS, Event
from hub.core.patterns import PatternTable
from hub.errors import SetupError
from hub.handlers.conversion import Converter, converter
from hub.handlers.handler import AppHandler, decorator_of
from hub.handlers.signature import Handler

_NAMED_BY: Final = {"subscribe": "channel", "publish": "channel", "after_publish": "channel", "rpc": "method"}
"""The attribute of an event that patterns are compared with. Other events have no patterns."""


class HandlerTable:
    """The table of an app's handlers, which a node asks for each event."""

    def __init__(self) -> None:
        self._tables: dict[str, PatternTable[AppHandler]] = {}
        self._state: Converter | None = None
        self._state_owner: AppHandler | None = None

    def __contains__(self, hook: object) -> bool:
        """Whether an event has any handler."""
        return hook in self._tables

    def __iter__(self) -> Iterator[str]:
        """The names of the events that have handlers."""
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def all(self) -> Iterator[AppHandler]:
        """Every handler."""
        for table in self._tables.values():
            yield from table

    def add(self, handler: AppHandler) -> None:
        """Add a handler.

        Raises:
            SetupError: another handler is for the same channels or methods, or names another type of state.
        """
        table = self._tables.get(handler.hook) or PatternTable[AppHandler]()
        rival = table.rival(handler.pattern)
        if rival is not None:
            raise SetupError(_rivalry(handler, rival))
        self._check_state(handler)
        table.add(handler.pattern, handler)
        self._tables[handler.hook] = table

    def discard(self, function: Handler) -> None:
        """Forget a function that is registered without a pattern. It is no error if it is not."""
        for hook, table in list(self._tables.items()):
            other = table.rival(None)
            if other is not None and other.function is function:
                table.discard_other()
                if not table:
                    del self._tables[hook]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Forget, after the context, the handlers that were added within it."""
        handlers = list(self.all())
        try:
            yield
        finally:
            self._tables, self._state, self._state_owner = {}, None, None
            for handler in handlers:
                self.add(handler)

    def is_handled(self, hook: str, name: str) -> bool:
        """Whether a handler is for a channel or method.

        Args:
            hook: name of an event that has patterns, and has handlers.
            name: of the channel or method.
        """
        return self._tables[hook].find(name) is not None

    def find(self, event: Event) -> tuple[AppHandler, Mapping[str, str]] | None:
        """The handler of an event, and the parameters of its pattern; None if the app does not handle it."""
        hook = HOOKS[type(event)]
        table = self._tables.get(hook)
        return None if table is None else table.find(getattr(event, _NAMED_BY.get(hook, ""), ""))

    def doubts(self, namespaces: Collection[str]) -> Iterator[str]:
        """What is doubtful in the patterns: a line for each handler that no channel can reach.

        Args:
            namespaces: the configured ones.
        """
        for handler in self.all():
            if handler.pattern is None or handler.hook == "rpc":
                continue
            namespace, colon, _ = handler.pattern.tokens[0][1].partition(":")
            if colon and namespace not in namespaces:
                yield (
                    f"channels.{namespace} is not configured, so {handler.label} never calls {handler.name}:"
                    " add the table, or correct the pattern"
                )

    def read_state(self, state: bytes) -> Any:
        """Read a connection's state from its JSON, as the type that the handlers name.

        Raises:
            Exception: the JSON does not fit the type.
        """
        value = msgspec.json.decode(state)
        return value if self._state is None else self._state.from_payload(value)

    def _check_state(self, handler: AppHandler) -> None:
        states = handler.states
        if not states:
            return
        known = self._state_owner
        every = states if known is None else states | known.states
        if len(every) > 1:
            names = " and ".join(sorted(getattr(each, "__name__", str(each)) for each in every))
            raise SetupError(
                f"{handler.label} cannot call {handler.name}: handlers name the states {names}, and all"
                " connections have a state of one type"
            )
        if known is None:
            self._state_owner = handler
            self._state = converter(next(iter(states)))


def _rivalry(handler: AppHandler, rival: AppHandler) -> str:
    """Why a handler cannot be added beside another."""
    if handler.pattern is None:
        return (
            f"{decorator_of(handler.hook)} has a handler already, {rival.name}: call both from one function,"
            " or give one of them a pattern"
        )
    if rival.pattern is not None and handler.pattern.tokens == rival.pattern.tokens:
        return f"{handler.label} has a handler already, {rival.name}: remove one, or correct its pattern"
    return (
        f"{handler.label} and {rival.label} of {rival.name} match the same names, and neither is more"
        " specific: end their first parameters with the same character"
    )
