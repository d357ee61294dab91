"""The app's handlers, asked in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from hub.core.hooks import HOOKS, Event, checked
from hub.protocol.codes import Errors
from hub.telemetry import get_logger

HOOK_TIMEOUT_S: Final = 10.0
"""How long a handler of the app may take before the client is told that it failed."""

Handler: TypeAlias = Callable[[Any], Any]
"""A function of one event, `async` or not; one that is not must not block."""

_log = get_logger("hub.node")


async def ask(handlers: Mapping[str, Handler], event: Event) -> Any:
    """What the app's handler answers. One that fails, or takes too long, is answered for with error 100."""
    name = HOOKS[type(event)]
    try:
        async with asyncio.timeout(HOOK_TIMEOUT_S):
            answer = handlers[name](event)
            return checked(event, await answer if isawaitable(answer) else answer)
    except Exception:  # an app's handler may raise anything
        _log.exception("hook.failed", hook=name)
        return Errors.INTERNAL
