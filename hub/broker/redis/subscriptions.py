"""The way out of one server: the channels that a node is subscribed to."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import hiredis

from hub.broker.redis.connection import Connection, RedisConnectionError, Reply, pack
from hub.broker.redis.connection_supervisor import ConnectionSupervisor, Open
from hub.errors import BrokerError

_ELSEWHERE: Final = ("MOVED ", "CLUSTERDOWN ", "TRYAGAIN ")
_MESSAGES: Final = (b"message", b"smessage")


class Receiver(Protocol):
    """What a listener calls. Names of channels are those on the wire."""

    def on_message(self, name: bytes, data: bytes) -> None:
        """A message came in a channel that is subscribed to."""

    def on_caught_up(self) -> None:
        """All messages that came together were told."""

    def on_moved(self, name: bytes) -> None:
        """The server ended a subscription: the channel is another server's now."""

    def on_broken(self) -> None:
        """The link is lost."""

    async def on_whole(self, incarnation: bytes) -> None:
        """A link was made and everything is subscribed to."""


class SubscriptionConnection(ConnectionSupervisor):
    """The subscriptions at one server. All are made again over each new link.

    Args:
        open_connection: makes the link.
        receiver: is told what comes.
        on_up: called with the server's incarnation when a link was made, before anything is subscribed to.
        timeout_s: seconds of silence after which the link is given up, while something was asked.
        probe: a channel that is always subscribed to, and never a sharded one.
        sharded: whether to use the sharded channels of a cluster.
    """

    def __init__(
        self,
        open_connection: Open,
        receiver: Receiver,
        on_up: Callable[[bytes], None],
        *,
        timeout_s: float,
        probe: bytes,
        sharded: bool,
    ) -> None:
        super().__init__(open_connection)
        self._probe = probe
        prefix = b"S" if sharded else b""
        self._subscribe = prefix + b"SUBSCRIBE"
        self._unsubscribe = prefix + b"UNSUBSCRIBE"
        self._ended = self._unsubscribe.lower()
        self._receiver: Final = receiver
        self._on_up = on_up
        self._loop = asyncio.get_running_loop()
        self.wanted: dict[bytes, Future[None]] = {}
        """The channels that are subscribed to, each with the outcome of the last attempt."""
        self._expected: deque[tuple[bytes, bytes, Future[None] | None]] = deque()
        self._batch: list[bytes] = []
        self._progress = 0.0
        self._timeout_s = timeout_s

    async def stop(self) -> None:
        await super().stop()
        for future in self.wanted.values():
            _settle(future, BrokerError("the hub stopped"))
        self.wanted.clear()

    def subscribe(self, name: bytes) -> Future[None]:
        """Want a channel. The future fails where the server is away; the wish stays."""
        future = self.wanted.get(name)
        if future is None or (future.done() and future.exception()):
            future = self.wanted[name] = self._future()
            if self.link is not None:
                self._send(self._subscribe, name, future)
            elif self.failure:
                future.set_exception(BrokerError(f"Redis is away: {self.failure}"))
        return future

    def unsubscribe(self, name: bytes) -> Future[None]:
        """Want a channel no longer."""
        future = self._future()
        wish = self.wanted.pop(name, None)
        if wish is not None:
            _settle(wish, BrokerError("the subscription was given up"))
        if wish is None or self.link is None:
            future.set_result(None)
        else:
            self._send(self._unsubscribe, name, future)
        return future

    def has_failed(self, name: bytes) -> bool:
        """Whether a channel that is wanted is not subscribed to."""
        wish = self.wanted.get(name)
        return wish is not None and wish.done() and wish.exception() is not None

    def hand_over(self, name: bytes, future: Future[None]) -> None:
        """Want a channel no longer; who waits for it waits for another listener's future."""
        wish = self.wanted.pop(name)
        if not wish.done():
            future.add_done_callback(lambda done: _settle(wish, done.exception()))
        if self.link is not None:
            self._send(self._unsubscribe, name, None)

    def ping(self) -> Future[None]:
        """Done once all is done that was asked for, and all is received that was published, before."""
        future = self._future()
        self._send(b"PING", b"", future)
        return future

    def _lose(self, name: bytes, reason: str) -> None:
        """A channel that is wanted is not subscribed to."""
        if self.wanted[name].done():
            self.wanted[name] = self._future()
        _settle(self.wanted[name], BrokerError(reason))

    def _future(self) -> Future[None]:
        """A future whose failure nobody need look at."""
        future: Future[None] = self._loop.create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def _send(self, verb: bytes, name: bytes, future: Future[None] | None) -> None:
        if not self._expected:
            self._progress = self._loop.time()
        self._expected.append((verb, name, future))
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(pack((verb, name)))

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if self.link is not None and batch:
            self.link.write(b"".join(batch))

    # The link

    def up(self, link: Connection, incarnation: bytes) -> None:
        link.on_caught_up = self._receiver.on_caught_up
        self._on_up(incarnation)
        self._send(b"SUBSCRIBE", self._probe, None)
        for name, wish in self.wanted.items():
            if wish.done() and wish.exception():
                wish = self.wanted[name] = self._future()
            self._send(self._subscribe, name, wish)
        self._becoming = self._loop.create_task(self._become_whole(self.ping(), incarnation))

    async def _become_whole(self, whole: Future[None], incarnation: bytes) -> None:
        await whole
        await self._receiver.on_whole(incarnation)

    def down(self, reason: str) -> None:
        self._becoming.cancel()
        self._receiver.on_broken()
        self._batch.clear()
        expected, self._expected = self._expected, deque()
        for verb, _, future in expected:
            # A subscription is asked for again over the next link; what is not wanted went with this one.
            if verb == self._unsubscribe and future is not None:
                _settle(future, None)

    def failed(self, error: RedisConnectionError) -> None:
        for wish in self.wanted.values():
            _settle(wish, BrokerError(f"Redis is away: {error}"))

    def watch(self, now: float, lag_s: float) -> None:
        """Give up a silent link. Call it often; the arguments are those of `CommandConnection.watch`."""
        self._progress += lag_s
        if self._expected and self.link is not None and now - self._progress > self._timeout_s:
            self.rebuild(f"no answer within {self._timeout_s:g} s")

    def receive(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            _, name, future = self._expected.popleft()
            if name in self.wanted:
                self._lose(name, f"Redis refused: {reply}")
                if str(reply).startswith(_ELSEWHERE):
                    self._receiver.on_moved(name)
            elif future is not None:
                _settle(future, BrokerError(f"Redis refused: {reply}"))
            return
        kind = reply[0]
        if kind in _MESSAGES:
            self._receiver.on_message(reply[1], reply[2])
            return
        name = reply[1]
        self._progress = self._loop.time()
        if kind == self._ended and not (
            self._expected and self._expected[0][:2] == (self._unsubscribe, name)
        ):
            if name in self.wanted:
                self._lose(name, "another server keeps the channel now")
                self._receiver.on_moved(name)
            return
        _, _, future = self._expected.popleft()
        if future is not None:
            _settle(future, None)


def _settle(future: Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
