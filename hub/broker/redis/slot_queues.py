"""Order over servers that change places: the calls of a slot are with one server at a time, in their order.

A server that answers a call with a redirection, or is given up with calls unanswered, gives them back. Calls
made meanwhile wait behind them, so that no call of a slot overtakes an older one.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from hub.broker.redis._redis_py import key_slot
from hub.broker.redis.commands import CallLimits, CommandConnection, RedisCall
from hub.broker.redis.futures import fail
from hub.errors import BrokerError

EXPIRE_INTERVAL_S: Final = 0.1


class _SlotQueue:
    """The calls of a slot: how many are with `commands`, and those that wait, the ones given back first."""

    __slots__ = ("commands", "given_back", "in_doubt", "made", "out")

    def __init__(self) -> None:
        self.commands: CommandConnection | None = None
        self.out = 0
        self.given_back: deque[RedisCall] = deque()
        self.made: deque[RedisCall] = deque()
        self.in_doubt = False
        """Whether a server gave a call back since the places of servers were learnt last."""

    @property
    def is_waiting(self) -> bool:
        return bool(self.given_back or self.made)

    def lend(self, call: RedisCall, commands: CommandConnection) -> None:
        """Count a call that goes to a server."""
        self.commands = commands
        self.out += 1
        call.is_out = True


class SlotQueues:
    """The way of calls to the servers of a cluster.

    Args:
        locate: finds the connection to the server of a name, as far as is known.
        limits: of calls; what waits here is bounded by them, too.
    """

    def __init__(self, locate: Callable[[bytes], CommandConnection], limits: CallLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._locate = locate
        self._limits = limits
        self._queues: dict[int, _SlotQueue] = {}
        self._waiting: set[int] = set()
        self._waiting_bytes = 0
        self._timer: TimerHandle | None = None

    def call(self, call: RedisCall) -> Future[Any]:
        """Begin a call, or let it wait for those before it. Its future fails with `BrokerError`."""
        slot = key_slot(call.slot_key)
        queue = self._queues.get(slot)
        if queue is None:
            queue = self._queues[slot] = _SlotQueue()
        commands = self._locate(call.slot_key)
        if not queue.is_waiting and (commands is queue.commands or not queue.out):
            queue.lend(call, commands)
            future = commands.call(call)
        else:
            future = call.future = self._loop.create_future()
            if self._waiting_bytes + call.size > self._limits.pending_bytes_max:
                fail(future, BrokerError("Redis is behind: too many calls wait for it"))
                return future
            call.deadline = self._loop.time() + self._limits.budget_s
            self._wait(slot, queue.made, call)
        future.add_done_callback(partial(self._ended, slot, call))
        return future

    def give_back(self, call: RedisCall) -> None:
        """A server did not run a call that it had. To be called in the order in which they were made."""
        slot = key_slot(call.slot_key)
        queue = self._queues[slot]
        queue.out -= 1
        call.is_out = False
        queue.in_doubt = True
        self._wait(slot, queue.given_back, call)

    def go_on(self) -> None:
        """Try again what was given back: servers may have changed places."""
        for slot in list(self._waiting):
            queue = self._queues[slot]
            queue.in_doubt = False
            self._advance(slot, queue)

    @property
    def in_doubt(self) -> bool:
        """Whether calls wait for the servers' places to be learnt."""
        return any(self._queues[slot].in_doubt for slot in self._waiting)

    def stop(self) -> None:
        """Fail what waits."""
        if self._timer is not None:
            self._timer.cancel()
        for slot in self._waiting:
            for call in (*self._queues[slot].given_back, *self._queues[slot].made):
                call.fail("the hub stopped")

    def _ended(self, slot: int, call: RedisCall, _: Future[Any]) -> None:
        if call.is_out:
            call.is_out = False
            queue = self._queues[slot]
            queue.out -= 1
            if queue.is_waiting:
                self._advance(slot, queue)

    def _wait(self, slot: int, calls: deque[RedisCall], call: RedisCall) -> None:
        calls.append(call)
        self._waiting.add(slot)
        self._waiting_bytes += call.size
        if self._timer is None:
            self._timer = self._loop.call_later(EXPIRE_INTERVAL_S, self._expire)

    def _advance(self, slot: int, queue: _SlotQueue) -> None:
        """Send what waits, as far as nothing older is with another server."""
        if queue.in_doubt:
            return
        for calls in (queue.given_back, queue.made):
            while calls:
                commands = self._locate(calls[0].slot_key)
                if queue.out and commands is not queue.commands:
                    return
                call = calls.popleft()
                self._waiting_bytes -= call.size
                if not call.future.done():
                    queue.lend(call, commands)
                    commands.adopt(call)
        self._waiting.discard(slot)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for slot in list(self._waiting):
            queue = self._queues[slot]
            for calls in (queue.given_back, queue.made):
                while calls and (calls[0].deadline <= now or calls[0].future.done()):
                    call = calls.popleft()
                    self._waiting_bytes -= call.size
                    call.fail("Redis moves the channel to another server, and was not done in time")
            if not queue.is_waiting:
                queue.in_doubt = False
                self._waiting.discard(slot)
        if self._waiting:
            self._timer = self._loop.call_later(EXPIRE_INTERVAL_S, self._expire)
