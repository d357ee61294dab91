"""Order over servers that change places: the calls of a slot are with one server at a time, in their order.

A server that answers a call with a redirection, or is given up with calls unanswered, gives them back. Those
made meanwhile line up behind them, so that no call of a slot overtakes an older one.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from redis.crc import key_slot

from hub.broker.redis.commands import Call, CommandConnection, Limits
from hub.errors import BrokerError

EXPIRE_INTERVAL_S: Final = 0.1


class _SlotQueue:
    """The calls of a slot: how many are with `publisher`, and those that wait, the ones given back first."""

    __slots__ = ("given_back", "in_doubt", "made", "out", "publisher")

    def __init__(self) -> None:
        self.publisher: CommandConnection | None = None
        self.out = 0
        self.given_back: deque[Call] = deque()
        self.made: deque[Call] = deque()
        self.in_doubt = False
        """Whether a server gave a call back since the places of servers were learnt last."""

    @property
    def waits(self) -> bool:
        return bool(self.given_back or self.made)


class SlotQueues:
    """The way of calls to the servers of a cluster.

    Args:
        locate: the server of a name, as far as is known.
        limits: of calls; what waits here is bounded by them too.
    """

    def __init__(self, locate: Callable[[bytes], CommandConnection], limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        self._locate = locate
        self._limits = limits
        self._lines: dict[int, _SlotQueue] = {}
        self._waiting: set[int] = set()
        self._waiting_bytes = 0
        self._timer: TimerHandle | None = None

    def call(self, call: Call) -> Future[Any]:
        """Begin a call, or have it wait for those before it. Its future fails with `BrokerError`."""
        slot = key_slot(call.slot_key)
        line = self._lines.get(slot)
        if line is None:
            line = self._lines[slot] = _SlotQueue()
        publisher = self._locate(call.slot_key)
        if not line.waits and (publisher is line.publisher or not line.out):
            self._leaves(line, publisher, call)
            future = publisher.call(call)
        else:
            future = call.future = self._loop.create_future()
            if self._waiting_bytes + call.size > self._limits.pending_bytes_max:
                future.set_exception(BrokerError("Redis is behind: too many calls wait for it"))
                return future
            call.deadline = self._loop.time() + self._limits.budget_s
            self._wait(slot, line.made, call)
        future.add_done_callback(partial(self._ended, slot, call))
        return future

    def give_back(self, call: Call) -> None:
        """A server did not run a call that it had. To be called in the order in which they were made."""
        slot = key_slot(call.slot_key)
        line = self._lines[slot]
        line.out -= 1
        call.is_out = False
        line.in_doubt = True
        self._wait(slot, line.given_back, call)

    def go_on(self) -> None:
        """Servers may have changed places: try again what was given back."""
        for slot in list(self._waiting):
            line = self._lines[slot]
            line.in_doubt = False
            self._advance(slot, line)

    @property
    def in_doubt(self) -> bool:
        """Whether calls wait for the servers' places to be learnt."""
        return any(self._lines[slot].in_doubt for slot in self._waiting)

    def stop(self) -> None:
        """Fail what waits."""
        if self._timer is not None:
            self._timer.cancel()
        for slot in self._waiting:
            for call in (*self._lines[slot].given_back, *self._lines[slot].made):
                call.fail("the hub stopped")

    def _leaves(self, line: _SlotQueue, publisher: CommandConnection, call: Call) -> None:
        line.publisher = publisher
        line.out += 1
        call.is_out = True

    def _ended(self, slot: int, call: Call, _: Future[Any]) -> None:
        if call.is_out:
            call.is_out = False
            line = self._lines[slot]
            line.out -= 1
            self._advance(slot, line)

    def _wait(self, slot: int, queue: deque[Call], call: Call) -> None:
        queue.append(call)
        self._waiting.add(slot)
        self._waiting_bytes += call.size
        if self._timer is None:
            self._timer = self._loop.call_later(EXPIRE_INTERVAL_S, self._expire)

    def _advance(self, slot: int, line: _SlotQueue) -> None:
        """Send what waits, as far as nothing older is with another server."""
        if line.in_doubt:
            return
        for queue in (line.given_back, line.made):
            while queue:
                publisher = self._locate(queue[0].slot_key)
                if line.out and publisher is not line.publisher:
                    return
                call = queue.popleft()
                self._waiting_bytes -= call.size
                if not call.future.done():
                    self._leaves(line, publisher, call)
                    publisher.adopt(call)
        self._waiting.discard(slot)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for slot in list(self._waiting):
            line = self._lines[slot]
            for queue in (line.given_back, line.made):
                while queue and (queue[0].deadline <= now or queue[0].future.done()):
                    call = queue.popleft()
                    self._waiting_bytes -= call.size
                    call.fail("Redis moves the channel to another server, and was not done in time")
            if not line.waits:
                line.in_doubt = False
                self._waiting.discard(slot)
        if self._waiting:
            self._timer = self._loop.call_later(EXPIRE_INTERVAL_S, self._expire)
