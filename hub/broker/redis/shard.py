"""One server that keeps some of the channels, or all: its two links, its state, and what is known of it."""

from __future__ import annotations

import asyncio
import secrets
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from hub.broker.base import POSITION_TTL_S, BrokerState
from hub.broker.redis import scripts
from hub.broker.redis.commands import Call, CommandConnection, Limits
from hub.broker.redis.connection import (
    Access,
    Address,
    Connection,
    RedisConnectionError,
    Reply,
    open_connection,
)
from hub.broker.redis.connection_supervisor import backoff_s, cancelled
from hub.broker.redis.names import Names, position_key, stream_key
from hub.broker.redis.positions import Positions
from hub.broker.redis.subscriptions import SubscriptionConnection
from hub.errors import BrokerError

WATCH_INTERVAL_S: Final = 0.1
PROBE_INTERVAL_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 2.0
"""A probe that is not heard for this long makes a node deaf."""

LAG_S: Final = 0.5
"""Time that this process lost, of at least so much, is not held against the server."""

RECENT_S: Final = 60.0
"""How long the positions of publications are kept in mind where this node is not subscribed to the channel. A
replica that takes over lacks seconds at the most."""

_STEP: Final = 1_000


class Owner(Protocol):
    """What a shard calls."""

    def on_message(self, name: bytes, data: bytes) -> None:
        """A message came in a channel that is subscribed to."""

    def on_caught_up(self) -> None:
        """All messages that came together were told."""

    def on_moved(self, name: bytes) -> None:
        """A subscription is another server's now."""

    def on_redirect(self, call: Call, error: str) -> None:
        """A call is another server's."""

    def on_gap(self) -> None:
        """The subscriptions are whole again."""

    def on_lost(self) -> None:
        """The server cannot be reached."""

    def on_state(self) -> None:
        """The state changed."""


class Shard:
    """A server.

    Args:
        locate: finds the server. Raises `RedisConnectionError`.
        access: how to enter it.
        limits: of calls.
        names: of keys and channels.
        owner: is told what happens.
        sharded: whether the server is part of a cluster.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[Address]],
        access: Access,
        limits: Limits,
        names: Names,
        owner: Owner,
        *,
        sharded: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._locate = locate
        self._access = access
        self._limits = limits
        self._owner = owner
        self.on_caught_up = owner.on_caught_up
        self._names = names
        self.incarnation = b""
        self.positions: Final = Positions()
        self._rotate_at = self._loop.time() + RECENT_S
        self.state = BrokerState.DISCONNECTED
        self.reason = "not yet reached"
        self.began: asyncio.Future[None] = self._loop.create_future()
        """Done when the state is `CONNECTED` for the first time."""
        self._is_whole = False
        self._up_at = self._loop.time()
        self._heard_at = self._rebuilt_at = 0.0
        self._probe_at = 0.0
        self.publisher: Final = CommandConnection(
            lambda receive: self._open(receive, [script.source for script in scripts.ALL]),
            limits,
            self._on_publisher_up,
            owner.on_redirect,
        )
        self.listener: Final = SubscriptionConnection(
            self._open, self, self._on_up, timeout_s=limits.timeout_s, probe=names.probe, sharded=sharded
        )
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End both links."""
        await cancelled(self._watcher)
        await self.listener.stop()
        await self.publisher.stop()

    async def _open(
        self, receive: Callable[[Reply], None], load: Sequence[bytes] = ()
    ) -> tuple[Connection, bytes]:
        try:
            address = await self._locate()
            return await open_connection(
                address, self._access, timeout_s=self._limits.timeout_s, receive=receive, load=load
            )
        except RedisConnectionError:
            self._owner.on_lost()
            raise

    # What the links tell

    def on_message(self, name: bytes, data: bytes) -> None:
        if name == self._names.probe:
            if self._is_whole:
                self._heard_at = self._loop.time()
                if self.state is not BrokerState.CONNECTED:
                    self.judge(self._heard_at)
        else:
            self._owner.on_message(name, data)

    def on_moved(self, name: bytes) -> None:
        self._owner.on_moved(name)

    async def on_whole(self, incarnation: bytes) -> None:
        attempt = 0
        while self.positions.doubtful:
            try:
                await self._verify(incarnation)
            except BrokerError:
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
        self._is_whole = True
        self._owner.on_gap()
        self._probe()

    def on_broken(self) -> None:
        self._is_whole = False

    def _on_publisher_up(self, incarnation: bytes) -> None:
        self._up_at = self._loop.time()
        self._loop.call_soon(self._probe)
        self._on_up(incarnation)

    def _on_up(self, incarnation: bytes) -> None:
        if incarnation == self.incarnation:
            return
        # What was seen so far was seen in the incarnation before, and may be undone in this one.
        before, self.incarnation = self.incarnation, incarnation
        self.positions.doubt(before)
        for keeper in (self.publisher, self.listener):
            if keeper.incarnation != incarnation:
                keeper.rebuild("the server was restarted or replaced")

    # Positions

    def inherit(self, name: bytes, shard: Shard) -> None:
        """Take over what another shard knows of a channel."""
        if seen := shard.positions.take(name, shard.incarnation):
            self.positions.doubtful[name] = seen

    async def rejoin(self, futures: Sequence[Future[None]]) -> None:
        """Channels of other servers, or lost ones, are subscribed to here: there may be a gap in them."""
        await asyncio.wait(futures)
        if self._is_whole:
            await self.on_whole(self.incarnation)

    async def _verify(self, incarnation: bytes) -> None:
        """Renew the epoch of channels whose position went back under what was seen.

        Raises:
            BrokerError: it could not be done now.
        """
        if self.publisher.incarnation != incarnation:
            raise BrokerError("the server is not reached yet")
        ttl_ms = b"%d" % (POSITION_TTL_S * 1000)
        step = list(self.positions.doubtful.items())[:_STEP]
        calls = []
        for name, seen in step:
            position = (seen.epoch.encode(), b"%d" % seen.offset, seen.incarnation)
            epoch = secrets.token_hex(4).encode()
            parts = (b"2", position_key(name), stream_key(name), *position, ttl_ms, epoch)
            calls.append(Call(parts, int, None, script=scripts.RENEW, slot_key=name))
        await asyncio.gather(*map(self.publisher.call, calls))
        for name, seen in step:
            if self.positions.doubtful.get(name) is seen:
                del self.positions.doubtful[name]

    # The state

    async def _watch(self) -> None:
        planned = self._loop.time() + WATCH_INTERVAL_S
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            now = self._loop.time()
            lag_s = now - planned if now - planned > LAG_S else 0.0
            planned = now + WATCH_INTERVAL_S
            self._heard_at += lag_s
            self._up_at += lag_s
            self.publisher.watch(now, lag_s)
            self.listener.watch(now, lag_s)
            if now >= self._probe_at:
                self._probe()
            if now >= self._rotate_at:
                self._rotate_at = now + RECENT_S
                self.positions.rotate(self.listener.wanted)
            self.judge(now)

    def _probe(self) -> None:
        self._probe_at = self._loop.time() + PROBE_INTERVAL_S
        if self.publisher.link is not None:
            parts = (b"PUBLISH", self._names.probe, b"")
            future = self.publisher.call(Call(parts, int, None, repeatable=False))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def judge(self, now: float) -> None:
        """Tell the state anew."""
        state, reason = self.state, self.reason
        if not self.publisher.answers:
            state, reason = BrokerState.DISCONNECTED, self.publisher.failure
        elif now - max(self._heard_at, self._up_at) > PROBE_TIMEOUT_S:
            state = BrokerState.NOT_RECEIVING
            reason = self.listener.failure or "what this node publishes does not come back to it"
            if now - self._rebuilt_at > PROBE_TIMEOUT_S:
                self._rebuilt_at = now
                self.listener.rebuild("the probe did not come back")
        elif self._heard_at >= self._up_at:
            state, reason = BrokerState.CONNECTED, ""
            if not self.began.done():
                self.began.set_result(None)
        changed = state is not self.state
        self.state, self.reason = state, reason
        if changed:
            self._owner.on_state()
