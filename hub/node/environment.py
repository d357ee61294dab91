"""What one life of a node takes from outside: its broker and its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from hub.broker.base import Broker


class Clock:
    """The time of a node: that of the running event loop and of the system.

    Attributes:
        now: returns monotonic seconds.
        unix: returns Unix seconds.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self._loop.time
        self.unix: Callable[[], float] = time.time

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function at a time, in monotonic seconds. Returns a function that cancels the call."""
        return self._loop.call_at(when, callback).cancel

    async def sleep(self, seconds: float) -> None:
        """Wait for so long."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Environment:
    """What one life of a node takes from outside.

    Args:
        make_broker: makes the broker of a life.
        make_clock: makes the clock of a life.
        token_secret: HMAC secret of login tokens, where the settings have none; empty for none.
    """

    make_broker: Callable[[], Broker]
    make_clock: Callable[[], Clock] = Clock
    token_secret: str = ""
