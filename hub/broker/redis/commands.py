"""The way into one server: calls that meet in a turn of the loop leave together, and end in order."""

from __future__ import annotations

import asyncio
import enum
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import hiredis
import msgspec

from hub.broker.breaker import Breaker
from hub.broker.redis.connection import Connection, RedisConnectionError, Reply, pack
from hub.broker.redis.connection_supervisor import ConnectionSupervisor, Open
from hub.broker.redis.scripts import Script
from hub.errors import BrokerError

_REDIRECTIONS: Final = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")
_ELSEWHERE: Final = ("READONLY ", "LOADING ", "MASTERDOWN ")


class Kind(enum.Enum):
    """Kinds of calls, each with a breaker of its own: one may fail where the others do not."""

    STORE = "store"
    """Publications that are kept: they fail where the memory of Redis is full."""
    SEND = "send"
    READ = "read"
    PRESENCE = "presence"
    SESSION = "resume"


@dataclass(frozen=True, slots=True)
class Limits:
    """What calls may take.

    Args:
        timeout_s: seconds of silence after which the link is given up.
        budget_s: seconds from a call to its end, with all repetitions.
        pending_bytes_max: bytes of calls that may wait, sent or not.
    """

    timeout_s: float = 1.0
    budget_s: float = 2.0
    pending_bytes_max: int = 67_108_864


class Call:
    """A command on its way.

    Args:
        parts: its words; of a script those after the script's name.
        decode: makes the future's result of the reply.
        kind: the breaker it goes through; None goes through none.
        script: the script that it calls, if it does.
        repeatable: whether to send it again where it is not known whether the server has run it.
        slot_key: by which a cluster finds the server.
    """

    __slots__ = (
        "asking",
        "deadline",
        "decode",
        "future",
        "is_out",
        "kind",
        "parts",
        "repeatable",
        "script",
        "size",
        "slot_key",
        "whole",
    )
    future: Future[Any]
    deadline: float

    def __init__(
        self,
        parts: Sequence[bytes],
        decode: Callable[[Reply], Any],
        kind: Kind | None,
        *,
        script: Script | None = None,
        repeatable: bool = True,
        slot_key: bytes = b"",
        size: int = 256,
    ) -> None:
        self.parts = parts
        self.decode = decode
        self.kind = kind
        self.script = script
        self.repeatable = repeatable
        self.slot_key = slot_key
        self.size = size
        self.whole = False
        self.asking = False
        self.is_out = False

    def fail(self, reason: str) -> None:
        """End it, if it has not ended."""
        if not self.future.done():
            self.future.set_exception(BrokerError(reason))

    def pack(self, incarnation: bytes) -> bytes:
        """The bytes to send to a server."""
        script = self.script
        if script is None:
            packed = pack(self.parts)
        else:
            head = (b"EVAL", script.source) if self.whole else (b"EVALSHA", script.sha)
            packed = pack((*head, *self.parts, incarnation) if script.stamped else (*head, *self.parts))
        return _ASKING + packed if self.asking else packed


_ASKING: Final = pack((b"ASKING",))


class CommandConnection(ConnectionSupervisor):
    """The calls to one server.

    A call waits while there is no link, and is repeated over the next one where that is safe, in the order of
    the calls, until its time is over. While Redis is known to be away, or the breaker of its kind is open, it
    fails at once.

    Args:
        open_connection: makes the link.
        limits: of time and memory.
        on_up: called with the server's incarnation when a link was made.
        on_redirect: takes a call that another server is to run, with what this one said.
    """

    def __init__(
        self,
        open_connection: Open,
        limits: Limits,
        on_up: Callable[[bytes], None],
        on_redirect: Callable[[Call, str], None],
    ) -> None:
        super().__init__(open_connection)
        self.breakers: Final = {kind: Breaker() for kind in Kind}
        self.answers = False
        """Whether the server answers, as far as is known."""
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._on_up = on_up
        self._on_redirect = on_redirect
        self._waiting: deque[Call] = deque()
        self._sent: deque[Call] = deque()
        self._pending_bytes = 0
        self._progress = 0.0
        self._gathers = False

    async def stop(self) -> None:
        for call in self.give_up():
            call.fail("the hub stopped")
        await super().stop()

    def call(self, call: Call) -> Future[Any]:
        """Begin a call. Its future fails with `BrokerError`."""
        future = call.future = self._loop.create_future()
        now = self._loop.time()
        if self._pending_bytes + call.size > self._limits.pending_bytes_max:
            future.set_exception(BrokerError("Redis is behind: too many calls wait for it"))
        elif call.kind is not None and not self.answers:
            future.set_exception(BrokerError(f"Redis is away: {self.failure}"))
        elif call.kind is not None and not self.breakers[call.kind].allows(now):
            future.set_exception(BrokerError(f"Redis refuses to {call.kind.value}: it is tried again soon"))
        else:
            call.deadline = now + self._limits.budget_s
            self._enqueue(call)
        return future

    def adopt(self, call: Call) -> None:
        """Take over a call that began with another server."""
        self._enqueue(call)

    def give_up(self) -> list[Call]:
        """End for good. Returns the calls that are still to be done, or to be repeated, in their order."""
        self._task.cancel()
        self.rebuild("another server has its place")
        self.down("another server has its place")
        calls, self._waiting = list(self._waiting), deque()
        self._pending_bytes = 0
        return calls

    def _enqueue(self, call: Call) -> None:
        self._pending_bytes += call.size
        self._waiting.append(call)
        if not self._gathers:
            self._gathers = True
            self._loop.call_soon(self._gathered)

    def _gathered(self) -> None:
        self._gathers = False
        self.flush()

    def flush(self) -> None:
        """Let the calls that wait leave, where there is a link. They do in the next turn of the loop, too."""
        if self.link is None or not self._waiting:
            return
        if not self._sent:
            self._progress = self._loop.time()
        calls, self._waiting = self._waiting, deque()
        incarnation = self.incarnation
        self._sent.extend(calls)
        self.link.write(b"".join([call.pack(incarnation) for call in calls]))

    # The link

    def up(self, link: Connection, incarnation: bytes) -> None:
        self.answers = True
        for breaker in self.breakers.values():
            breaker.succeeded()
        self._on_up(incarnation)
        self.flush()

    def down(self, reason: str) -> None:
        lost, self._sent = self._sent, deque()
        for call in reversed(lost):
            call.asking = False
            if call.repeatable and not call.future.done():
                self._waiting.appendleft(call)
            else:
                self._pending_bytes -= call.size
                call.fail(f"the link to Redis broke: {reason}")

    def failed(self, error: RedisConnectionError) -> None:
        self.answers = False

    def receive(self, reply: Reply) -> None:
        if self._sent[0].asking:
            self._sent[0].asking = False
            return
        call = self._sent.popleft()
        self._pending_bytes -= call.size
        self._progress = self._loop.time()
        if isinstance(reply, hiredis.ReplyError):
            self._refused(call, str(reply))
            return
        if call.kind is not None:
            self.breakers[call.kind].succeeded()
        if call.future.done():
            return
        try:
            call.future.set_result(call.decode(reply))
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            call.fail(f"Redis holds what the hub did not write: {error}")

    def _refused(self, call: Call, error: str) -> None:
        if error.startswith("NOSCRIPT"):
            # Those behind it fail alike until it arrives anew with its text: their order stays.
            call.whole = True
            self._enqueue(call)
            return
        if error.startswith(_REDIRECTIONS):
            self._on_redirect(call, error)
            return
        if error.startswith(_ELSEWHERE):
            self._pending_bytes += call.size
            self._sent.appendleft(call)  # first among those that the next link repeats
            self.rebuild(error)
            return
        if call.kind is not None:
            self.breakers[call.kind].failed(self._loop.time())
        call.fail(f"Redis refused: {error}")

    def watch(self, now: float, lag_s: float) -> None:
        """Give up a link that is silent, and calls whose time is over. To be called often.

        Args:
            lag_s: for how long this process, not the server, has done nothing.
        """
        self._progress += lag_s
        if self._sent and self.link is not None and now - self._progress > self._limits.timeout_s:
            self.answers = False
            self.failure = f"no answer within {self._limits.timeout_s:g} s"
            self.rebuild(self.failure)
        for call in self._sent:
            if call.deadline > now:
                break
            call.fail("Redis gave no answer in time")
        while self._waiting and self._waiting[0].deadline <= now:
            call = self._waiting.popleft()
            self._pending_bytes -= call.size
            call.fail(f"Redis is away: {self.failure or 'the link is being made anew'}")
