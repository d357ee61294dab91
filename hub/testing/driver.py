"""Runs a client's state machine in a test: over links in memory, with the time of the test."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from hub.client import effects as e
from hub.client import values
from hub.client.machine import ClientMachine
from hub.client.state import ClientState
from hub.errors import RequestError
from hub.testing.clock import ManualClock
from hub.testing.link import CUT_OFF, MemoryLink


class MachineDriver:
    """Carries out what a machine decides, in the event loop of the test.

    Args:
        machine: of the client.
        clock: of the test.
        open_link: asks the hub for a WebSocket. Returns why it was refused, empty where the link is open.
        on_event: gets every event of the client.
    """

    def __init__(
        self,
        machine: ClientMachine,
        clock: ManualClock,
        open_link: Callable[[MemoryLink], Awaitable[str]],
        on_event: Callable[[values.Event], None],
    ) -> None:
        self.machine: Final = machine
        self.is_away = False
        """Whether the link was dropped, so that the client opens no other."""
        self._clock = clock
        self._open_link = open_link
        self._on_event = on_event
        self._link: MemoryLink | None = None
        self._held: int | None = None
        """The link that the machine asked for while the client was away."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancel: Callable[[], None] | None = None
        self._due = math.inf
        self._changed = asyncio.Event()

    @property
    def now(self) -> float:
        """The time of the test, in monotonic seconds."""
        return self._clock.now()

    @property
    def has_link(self) -> bool:
        """Whether there is a link to the hub."""
        return self._link is not None

    def drop(self) -> Awaitable[None]:
        """Break the link, and open no other until `come_back`. What is returned may be awaited."""
        assert self._link is not None, "only a link that there is can be dropped"
        self.is_away = True
        link, self._link = self._link, None
        link.drop()
        self.do(self.machine.lost(self.machine.link, CUT_OFF, "", self.now))
        return self._spawn(self._clock.settle())

    def come_back(self) -> None:
        """Open a link now, unless there is one."""
        self.is_away = False
        held, self._held = self._held, None
        if self.machine.state is ClientState.DISCONNECTED:
            self.do(self.machine.connect(self.now))
        elif held == self.machine.link:
            self.do([e.OpenSocket(held)])
        else:
            self.do(self.machine.hurry(self.now))

    def leave(self) -> None:
        """Close the link, and open no other until `come_back`."""
        self.do(self.machine.disconnect(self.now))

    async def call(self, request: Any) -> Any:
        """Ask the hub, and wait for the answer.

        Raises:
            RequestError: the hub refused.
        """
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.do(self.machine.call(outcome, request, self.now))
        return await outcome

    async def until(self, is_over: Callable[[], bool]) -> None:
        """Wait until something is so, which is looked at whenever anything happens to the client."""
        while not is_over():
            await self._changed.wait()

    async def close(self) -> None:
        """Leave, and end every task."""
        self.leave()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def do(self, effects: list[e.Effect]) -> None:
        """Carry out what the machine decided."""
        for effect in effects:
            match effect:
                case e.Emit(event):
                    self._on_event(event)
                case e.Write(data):
                    if self._link is not None:
                        self._link.send(data)
                case e.Settle(future, outcome):
                    _settle(future, outcome)
                case e.OpenSocket(number):
                    if self.is_away:
                        self._held = number
                    else:
                        self._spawn(self._open(number))
                case e.CloseSocket():
                    if self._link is not None:
                        self._link.leave()
                        self._link = None
        self._schedule()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _open(self, number: int) -> None:
        machine, clock = self.machine, self._clock
        link = MemoryLink(
            lambda data: self.do(machine.received(number, data, clock.now())),
            lambda code, reason: self._on_end(number, link, code, reason),
            clock.moved,
        )
        refusal: Exception | None = None
        try:
            if answer := await self._open_link(link):
                refusal = RequestError(0, answer)
        except Exception as error:  # of the app, such as of a middleware
            refusal = error
        clock.moved()
        if refusal is not None:
            self.do(machine.refused(number, refusal, 0.0, clock.now()))
        elif number != machine.link or self.is_away:
            link.leave()
        else:
            self._link = link
            self.do(machine.opened(number, clock.now()))

    def _on_end(self, number: int, link: MemoryLink, code: int, reason: str) -> None:
        if self._link is link:
            self._link = None
        self.do(self.machine.lost(number, code, reason, self.now))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _schedule(self) -> None:
        due = self.machine.deadline
        if due == self._due:
            return
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        self._due = due
        if due != math.inf:
            self._cancel = self._clock.call_at(due, self._tick)

    def _tick(self) -> None:
        self._due, self._cancel = math.inf, None
        self.do(self.machine.tick(self.now))


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return  # the test gave up waiting
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
