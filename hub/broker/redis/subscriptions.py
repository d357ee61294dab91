"""The connection of one server that listens: the channels that a node is subscribed to there."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import hiredis

from hub.broker.background import BackgroundTasks
from hub.broker.redis._redis_py import key_slot
from hub.broker.redis.connection import RedisConnection, RedisConnectionError, Reply, pack
from hub.broker.redis.connection_supervisor import ConnectionSupervisor, OpenConnection
from hub.broker.redis.futures import fail, settle
from hub.errors import BrokerError

RESUBSCRIBE_STEP: Final = 500
"""Channels that are subscribed to at once over a new connection; the next ones follow when these are."""

REFUSED_RETRY_S: Final = 1.0
"""How often subscriptions that the server refused are tried again."""

_ELSEWHERE: Final = ("MOVED ", "CLUSTERDOWN ", "TRYAGAIN ")
_MESSAGES: Final = (b"message", b"smessage")

_Request: TypeAlias = tuple[bytes, bytes, Future[None] | None, int]
"""Verb, name, what is done when the server confirms it, and the number of the command that it was part of."""


class SubscriptionConnection(ConnectionSupervisor):
    """The subscriptions at one server. All are made again over each new connection.

    Names of channels are those in Redis.

    Args:
        open_connection: opens the connection.
        tasks: runs the supervisor.
        deliver: called with the name of a channel and each message that arrives in it.
        caught_up: called when everything that arrived together was delivered.
        on_up: called with the server's incarnation when a connection was made, before anything is subscribed
            to.
        on_whole: awaited with the incarnation when everything is subscribed to, again after refusals ended.
        on_moved: called where another server keeps a channel now.
        timeout_s: seconds of silence after which the connection is given up, while something was asked.
        probe: a channel that is always subscribed to, and never a sharded one.
        sharded: whether to use the sharded channels of a cluster.
    """

    def __init__(
        self,
        open_connection: OpenConnection,
        tasks: BackgroundTasks,
        *,
        deliver: Callable[[bytes, bytes], None],
        caught_up: Callable[[], None],
        on_up: Callable[[bytes], None],
        on_whole: Callable[[bytes], Coroutine[Any, Any, None]],
        on_moved: Callable[[bytes], None],
        timeout_s: float,
        probe: bytes,
        sharded: bool,
    ) -> None:
        super().__init__(open_connection, tasks)
        self._deliver = deliver
        self._caught_up = caught_up
        self._on_up = on_up
        self._on_whole = on_whole
        self._on_moved = on_moved
        self._timeout_s = timeout_s
        self._probe = probe
        self._sharded = sharded
        self._subscribe, self._unsubscribe = (
            (b"SSUBSCRIBE", b"SUNSUBSCRIBE") if sharded else (b"SUBSCRIBE", b"UNSUBSCRIBE")
        )
        self._ended = self._unsubscribe.lower()
        self._loop = asyncio.get_running_loop()
        self.wanted: dict[bytes, Future[None]] = {}
        """The channels that are subscribed to, each with the outcome of the last attempt."""
        self.is_whole = False
        """Whether everything is subscribed to over the present connection, but for what the server
        refused."""
        self.refused: dict[bytes, str] = {}
        """The channels that the server does not allow, each with what it said."""
        self._retry_refused_at = 0.0
        self._pending: set[bytes] = set()
        """The wanted channels whose future is not done."""
        self._expected: deque[_Request] = deque()
        self._batch: list[tuple[bytes, bytes, Future[None] | None]] = []
        self._commands = 0
        self._progress = 0.0
        self._resubscribing: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        await super().stop()
        self.failure = "the connection was ended"
        for name in self._pending:
            fail(self.wanted[name], BrokerError("the hub stopped"))
        self._pending.clear()
        self.wanted.clear()

    def subscribe(self, name: bytes) -> Future[None]:
        """Want a channel. Where the server is away the future fails, and the channel stays wanted."""
        future = self.wanted.get(name)
        if future is None or (future.done() and future.exception()):
            future = self._want(name)
            if self.connection is not None:
                self._send(self._subscribe, name, future)
            elif self.failure:
                self._settle(name, BrokerError(f"Redis is away: {self.failure}"))
        return future

    def unsubscribe(self, name: bytes) -> Future[None]:
        """Want a channel no longer."""
        done: Future[None] = self._loop.create_future()
        future = self._drop(name)
        if future is not None:
            fail(future, BrokerError("the subscription was given up"))
        if future is None or self.connection is None:
            done.set_result(None)
        else:
            self._send(self._unsubscribe, name, done)
        return done

    def has_failed(self, name: bytes) -> bool:
        """Whether a wanted channel is not subscribed to, for another reason than a refusal."""
        future = self.wanted.get(name)
        return future is not None and future.done() and bool(future.exception()) and name not in self.refused

    def hand_over(self, name: bytes, other: Future[None]) -> None:
        """Want a channel no longer. Callers that wait for it wait for another connection's future."""
        future = self._drop(name)
        if future is not None and not future.done():
            other.add_done_callback(lambda done: settle(future, done.exception()))
        if self.connection is not None:
            self._send(self._unsubscribe, name, None)

    def _want(self, name: bytes) -> Future[None]:
        future = self.wanted[name] = self._loop.create_future()
        self._pending.add(name)
        return future

    def _drop(self, name: bytes) -> Future[None] | None:
        self._pending.discard(name)
        self.refused.pop(name, None)
        return self.wanted.pop(name, None)

    def _settle(self, name: bytes, error: BrokerError | None = None) -> None:
        """A wanted channel is subscribed to, or cannot be for now."""
        self._pending.discard(name)
        if error is not None and self.wanted[name].done():
            self.wanted[name] = self._loop.create_future()
        settle(self.wanted[name], error)

    # Requests

    def _send(self, verb: bytes, name: bytes, future: Future[None] | None) -> None:
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append((verb, name, future))

    def _flush(self) -> None:
        """Send the requests of this turn, as many names in a command as may be."""
        batch, self._batch = self._batch, []
        if self.connection is None or not batch:
            return
        packed = []
        verb, names, slot = b"", [b""], -1
        for next_verb, name, future in batch:
            next_slot = key_slot(name) if self._sharded else 0
            if (next_verb, next_slot) == (verb, slot) and len(names) < RESUBSCRIBE_STEP:
                names.append(name)
            else:
                if verb:
                    packed.append(pack((verb, *names)))
                verb, names, slot = next_verb, [name], next_slot
                self._commands += 1
            self._expect(verb, name, future)
        packed.append(pack((verb, *names)))
        self.connection.write(b"".join(packed))

    def _send_alone(self, verb: bytes, name: bytes, future: Future[None] | None) -> None:
        """Send a request at once, in a command of its own."""
        if self.connection is not None:
            self._commands += 1
            self._expect(verb, name, future)
            self.connection.write(pack((verb, name)))

    def _expect(self, verb: bytes, name: bytes, future: Future[None] | None) -> None:
        if not self._expected:
            self._progress = self._loop.time()
        self._expected.append((verb, name, future, self._commands))

    # The connection

    def up(self, connection: RedisConnection, incarnation: bytes) -> None:
        connection.on_caught_up = self._caught_up
        self._on_up(incarnation)
        self.refused.clear()
        self._send_alone(b"SUBSCRIBE", self._probe, None)
        self._resubscribing = self._tasks.start(partial(self._subscribe_again, incarnation))

    async def _subscribe_again(self, incarnation: bytes) -> None:
        """Subscribe to everything over a new connection, in slices between which other work goes on."""
        names = list(self.wanted)
        if self._sharded:
            names = await self._by_slot(names)
        for start in range(0, len(names), RESUBSCRIBE_STEP):
            await self._subscribe_slice(names[start : start + RESUBSCRIBE_STEP])
        self.is_whole = True
        await self._on_whole(incarnation)

    async def _by_slot(self, names: list[bytes]) -> list[bytes]:
        """Put names of one hash slot together: one command can name those alone."""
        slots: dict[int, list[bytes]] = {}
        for number, name in enumerate(names, 1):
            slots.setdefault(key_slot(name), []).append(name)
            if number % RESUBSCRIBE_STEP == 0:
                await asyncio.sleep(0)
        return [name for slot in slots.values() for name in slot]

    async def _subscribe_slice(self, names: Sequence[bytes]) -> None:
        last: Future[None] | None = None
        for name in names:
            future = self.wanted.get(name)
            if future is None:
                continue
            if future.done() and future.exception():
                future = self._want(name)
            last = future if name in self._pending else self._loop.create_future()
            self._send(self._subscribe, name, last)
        if last is not None:
            await asyncio.wait([last])

    def down(self, reason: str) -> None:
        if self._resubscribing is not None:
            self._resubscribing.cancel()
        self.is_whole = False
        self._batch.clear()
        expected, self._expected = self._expected, deque()
        for verb, _, future, _ in expected:
            # A subscription is asked for again over the next connection; what is not wanted ended with this
            # one.
            if verb == self._unsubscribe and future is not None:
                settle(future)

    def failed(self, error: RedisConnectionError) -> None:
        for name in list(self._pending):
            self._settle(name, BrokerError(f"Redis is away: {error}"))

    def watch(self, now: float, lag_s: float) -> None:
        """Give up a silent connection, and try again what was refused. To be called often.

        Args:
            lag_s: for how long this process, not the server, did nothing.
        """
        self._progress += lag_s
        if self.connection is None:
            return
        if self._expected and now - self._progress > self._timeout_s:
            self.rebuild(f"no answer within {self._timeout_s:g} s")
        elif self.refused and now >= self._retry_refused_at:
            self._retry_refused_at = now + REFUSED_RETRY_S
            for name in list(self.refused)[:RESUBSCRIBE_STEP]:
                # To the end, so that all are tried in turn.
                self.refused[name] = self.refused.pop(name)
                if name == self._probe:
                    self._send_alone(b"SUBSCRIBE", name, None)
                else:
                    self._send_alone(self._subscribe, name, self._want(name))

    def receive(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._receive_error(str(reply))
            return
        kind = reply[0]
        if kind in _MESSAGES:
            try:
                self._deliver(reply[1], reply[2])
            except Exception as error:
                self._tasks.failed(error)
            return
        name = reply[1]
        self._progress = self._loop.time()
        if kind == self._ended and not (
            self._expected and self._expected[0][:2] == (self._unsubscribe, name)
        ):
            if name in self.wanted:
                self._settle(name, BrokerError("another server keeps the channel now"))
                self._on_moved(name)
            return
        _, _, future, _ = self._expected.popleft()
        if self.wanted.get(name) is future:
            self._pending.discard(name)
        if future is not None:
            settle(future)
        if self.refused and kind != self._ended:
            was_refused = self.refused.pop(name, None)
            if was_refused and not self.refused and self.is_whole:
                self._tasks.start(partial(self._on_whole, self.incarnation))

    def _receive_error(self, error: str) -> None:
        """The server refused a command: its names are tried one by one, as only some may be refused."""
        command = self._expected[0][3]
        failed = []
        while self._expected and self._expected[0][3] == command:
            failed.append(self._expected.popleft())
        self._progress = self._loop.time()
        if len(failed) > 1:
            for verb, name, future, _ in failed:
                self._send_alone(verb, name, future)
            return
        [(verb, name, future, _)] = failed
        refusal = BrokerError(f"Redis refused: {error}")
        if future is not None:
            fail(future, refusal)
        if verb == self._unsubscribe:
            return
        if name in self.wanted:
            self._settle(name, refusal)
            if error.startswith(_ELSEWHERE):
                self._on_moved(name)
                return
        if name in self.wanted or name == self._probe:
            self.refused[name] = error
