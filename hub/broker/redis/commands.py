"""The calls to one server: those made in one turn of the loop leave together, and end in order."""

from __future__ import annotations

import asyncio
import enum
from asyncio import Future
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import hiredis

from hub.broker.background import BackgroundTasks
from hub.broker.breaker import Breaker, BreakerState
from hub.broker.redis.connection import RedisConnection, RedisConnectionError, Reply, pack
from hub.broker.redis.connection_supervisor import ConnectionSupervisor, OpenConnection
from hub.broker.redis.futures import fail
from hub.broker.redis.scripts import Script
from hub.errors import BrokerError

_REDIRECTIONS: Final = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")
_NOT_MASTER: Final = ("READONLY ", "LOADING ", "MASTERDOWN ")
_WRITES_REFUSED: Final = ("OOM ", "MISCONF ", "NOREPLICAS ")
_SERVER_WIDE: Final = (
    *(*_WRITES_REFUSED, "NOPERM ", "NOAUTH ", "BUSY ", *_REDIRECTIONS, *_NOT_MASTER),
    # What Redis says where a script may not run a command: version 7.0, and later ones.
    *("ERR The user executing the script can't ", "ERR ACL failure in script"),
)
_ASKING: Final = pack((b"ASKING",))


class RefusedCallError(BrokerError):
    """The server answered a call with an error.

    Args:
        error: what the server said.
    """

    def __init__(self, error: str) -> None:
        super().__init__(f"Redis refused: {error}")
        self.error = error


def concerns_server(error: str) -> bool:
    """Whether an error of the server says that other calls fail, too. Other errors are about one key."""
    return error.startswith(_SERVER_WIDE)


def is_not_master(error: str) -> bool:
    """Whether an error says that the server is not, or not yet, the master that the hub needs."""
    return error.startswith(_NOT_MASTER)


class CallKind(enum.IntEnum):
    """Kinds of calls. Each has a breaker of its own, since one kind may fail where the others do not."""

    STORE = 0
    """Publications that are kept: they fail where the memory of Redis is full."""
    SEND = 1
    READ = 2
    PRESENCE = 3
    SESSION = 4


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What calls may take.

    Args:
        timeout_s: seconds of silence after which the connection is given up.
        budget_s: seconds from a call to its end, with all repetitions.
        pending_bytes_max: bytes of calls that may wait, sent or not.
    """

    timeout_s: float = 1.0
    budget_s: float = 2.0
    pending_bytes_max: int = 67_108_864


class RedisCall:
    """A command on its way.

    Args:
        parts: its words; for a script those after the script's name.
        decode: makes the future's result of the reply. If it raises, the call fails.
        kind: the breaker that the call goes through; None for the broker's own few calls, which no limit
            refuses and which take no room of others.
        script: the script that it calls, if any.
        repeatable: whether to send it again where it is not known whether the server has run it.
        slot_key: by which a cluster finds the server.
        size: about how many bytes it has.
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
        parts: tuple[bytes, ...],
        decode: Callable[[Reply], Any],
        kind: CallKind | None,
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
        self.size = size if kind is not None else 0
        self.whole = False
        """Whether the script is sent as text, because the server does not know it."""
        self.asking = False
        """Whether the server is to take the call although another one has the slot (ASK)."""
        self.is_out = False
        """Whether the call is with a server; kept by `SlotQueues`."""

    def fail(self, reason: str) -> None:
        """Fail the call, unless it has ended."""
        fail(self.future, BrokerError(reason))


class CommandConnection(ConnectionSupervisor):
    """The connection for calls to one server.

    A call waits while there is no connection, and is repeated over the next one where that is safe, in the
    order of the calls, until its time is over. While Redis is known to be away, or the breaker of its kind is
    open, it fails at once.

    Args:
        open_connection: opens the connection.
        tasks: runs the supervisor.
        limits: of time and memory.
        on_up: called with the server's incarnation when a connection was made.
        on_redirect: takes a call that another server is to run, with what this one said.
    """

    def __init__(
        self,
        open_connection: OpenConnection,
        tasks: BackgroundTasks,
        limits: CallLimits,
        on_up: Callable[[bytes], None],
        on_redirect: Callable[[RedisCall, str], None],
    ) -> None:
        super().__init__(open_connection, tasks)
        self.breakers: Final = [Breaker() for _ in CallKind]
        self.answers = False
        """Whether the server answers, as far as is known."""
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._on_up = on_up
        self._on_redirect = on_redirect
        self._waiting: deque[RedisCall] = deque()
        self._sent: deque[RedisCall] = deque()
        self._pending_bytes = 0
        self._progress = 0.0
        self._is_scheduled = False

    async def stop(self) -> None:
        for call in self.give_up("the hub stopped"):
            call.fail("the hub stopped")
        await super().stop()

    def call(self, call: RedisCall) -> Future[Any]:
        """Begin a call. Its future fails with `BrokerError`."""
        future: Future[Any] = self._loop.create_future()
        call.future = future
        now = self._loop.time()
        kind = call.kind
        if kind is not None:
            breaker = self.breakers[kind]
            if not self.answers:
                fail(future, BrokerError(f"Redis is away: {self.failure}"))
                return future
            if self._pending_bytes + call.size > self._limits.pending_bytes_max:
                fail(future, BrokerError("Redis is behind: too many calls wait for it"))
                return future
            if breaker.state is not BreakerState.CLOSED and not breaker.admit(now):
                fail(future, BrokerError(f"Redis refuses to {kind.name.lower()}: it is tried again soon"))
                return future
        call.deadline = now + self._limits.budget_s
        self._pending_bytes += call.size
        self._waiting.append(call)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush_at_end_of_turn)
        return future

    def adopt(self, call: RedisCall) -> None:
        """Take over a call that began with another server."""
        self._pending_bytes += call.size
        self._waiting.append(call)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush_at_end_of_turn)

    def give_up(self, reason: str) -> list[RedisCall]:
        """End for good.

        Args:
            reason: what calls fail with that were sent and must not be repeated.

        Returns:
            The calls that are still to be done, or to be repeated, in their order.
        """
        self._task.cancel()
        self.answers, self.failure = False, "the connection was ended"
        self.rebuild(reason)
        self.down(reason)
        calls, self._waiting = list(self._waiting), deque()
        self._pending_bytes = 0
        return calls

    def _flush_at_end_of_turn(self) -> None:
        self._is_scheduled = False
        if self._waiting:
            self.flush()

    def flush(self) -> None:
        """Send the calls that wait, if there is a connection; the end of the loop's turn does so, too."""
        connection = self.connection
        if connection is None or not self._waiting:
            return
        if not self._sent:
            self._progress = self._loop.time()
        calls, self._waiting = self._waiting, deque()
        self._sent.extend(calls)
        packed = []
        for call in calls:
            parts: tuple[bytes, ...] = call.parts
            if (script := call.script) is not None:
                head = (b"EVAL", script.source) if call.whole else (b"EVALSHA", script.sha)
                parts = (*head, *parts, self.incarnation) if script.stamped else (*head, *parts)
            if call.asking:
                packed.append(_ASKING)
            packed.append(hiredis.pack_command(parts))  # type: ignore[arg-type]
        connection.write(b"".join(packed))

    # The connection

    def up(self, connection: RedisConnection, incarnation: bytes) -> None:
        self.answers = True
        for breaker in self.breakers:
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
                call.fail(f"the connection to Redis broke: {reason}")

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
            breaker = self.breakers[call.kind]
            if breaker.failures or breaker.state is not BreakerState.CLOSED:
                breaker.succeeded()
        if call.future.done():
            return
        try:
            result = call.decode(reply)
        except Exception as error:
            call.fail(f"Redis holds what the hub did not write: {error!r}")
            return
        call.future.set_result(result)

    def _refused(self, call: RedisCall, error: str) -> None:
        if error.startswith("NOSCRIPT"):
            # The scripts behind it fail alike until it arrives again with its text: their order stays.
            call.whole = True
            self.adopt(call)
            return
        if error.startswith(_REDIRECTIONS):
            self._on_redirect(call, error)
            return
        if is_not_master(error):
            self._pending_bytes += call.size
            self._sent.appendleft(call)  # the first of those that the next connection repeats
            self.rebuild(error)
            return
        if (
            call.kind is not None
            and concerns_server(error)
            # A channel that has no position gets one as it is read, which is a write. Others can be read.
            and not (call.kind is CallKind.READ and error.startswith(_WRITES_REFUSED))
        ):
            self.breakers[call.kind].failed(self._loop.time())
        fail(call.future, RefusedCallError(error))

    def watch(self, now: float, lag_s: float) -> None:
        """Give up a silent connection, and fail calls whose time is over. To be called often.

        Args:
            lag_s: for how long this process, not the server, did nothing.
        """
        if lag_s:
            self._progress += lag_s
            for call in chain(self._sent, self._waiting):
                call.deadline += lag_s
        if self._sent and self.connection is not None and now - self._progress > self._limits.timeout_s:
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
            call.fail(f"Redis is away: {self.failure or 'the connection is being made again'}")
