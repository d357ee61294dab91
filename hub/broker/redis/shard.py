"""One server that keeps some of the channels, or all: its two connections, its state, and what is known of
it."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from hub.broker.background import BackgroundTasks
from hub.broker.redis import scripts
from hub.broker.redis.commands import CallLimits, CommandConnection, RedisCall
from hub.broker.redis.connection import (
    Access,
    Address,
    RedisConnection,
    RedisConnectionError,
    Reply,
    open_connection,
)
from hub.broker.redis.health import Health
from hub.broker.redis.names import Names
from hub.broker.redis.positions import Positions
from hub.broker.redis.subscriptions import SubscriptionConnection
from hub.broker.redis.verifier import PositionVerifier

RECENT_S: Final = 60.0
"""How long the positions of publications are kept where this node is not subscribed to the channel. A
replica that takes over lacks seconds at the most."""


@dataclass(frozen=True, slots=True)
class ShardEvents:
    """What a shard calls.

    Args:
        deliver: a message arrived in a channel: shard, name of the channel in Redis, message.
        caught_up: everything that arrived together was delivered.
        gap: the subscriptions are whole again after they were not.
        state: the state changed.
        lost: the server cannot be reached.
        moved: another server keeps a channel now.
        redirected: another server is to run a call: the call, and what this server said.
    """

    deliver: Callable[[Shard, bytes, bytes], None]
    caught_up: Callable[[], None]
    gap: Callable[[], None]
    state: Callable[[], None]
    lost: Callable[[], None]
    moved: Callable[[bytes], None]
    redirected: Callable[[RedisCall, str], None]


class Shard:
    """A server.

    Args:
        locate: finds the server. Raises `RedisConnectionError`.
        owns: whether a name is kept by this server, as far as is known.
        access: how to log in.
        limits: of calls.
        names: of keys and channels.
        events: what to call.
        tasks: runs what goes on in the background.
        sharded: whether the server is part of a cluster.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[Address]],
        owns: Callable[[bytes], bool],
        access: Access,
        limits: CallLimits,
        names: Names,
        events: ShardEvents,
        tasks: BackgroundTasks,
        *,
        sharded: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._locate = locate
        self._access = access
        self._limits = limits
        self._events = events
        self.incarnation = b""
        self._rotate_at = self._loop.time() + RECENT_S
        self._is_verified = False
        """Whether positions were verified since the connection that listens was made."""
        self.commands: Final = CommandConnection(
            lambda receive: self._open(receive, [script.source for script in scripts.ALL]),
            tasks,
            limits,
            self._on_commands_up,
            events.redirected,
        )
        self.subscriptions: Final = SubscriptionConnection(
            self._open,
            tasks,
            deliver=partial(events.deliver, self),
            caught_up=events.caught_up,
            on_up=self._on_subscriptions_up,
            on_whole=self._on_whole,
            on_moved=events.moved,
            timeout_s=limits.timeout_s,
            probe=names.probe,
            sharded=sharded,
        )
        self.positions: Final = Positions(self.subscriptions.wanted)
        self._verifier = PositionVerifier(self.positions, self.commands, sharded=sharded)
        self.health: Final = Health(
            self.commands,
            self.subscriptions,
            names,
            owns if sharded else None,
            lambda: self._is_whole,
            events.state,
        )

    async def stop(self) -> None:
        """End both connections."""
        await self.subscriptions.stop()
        await self.commands.stop()

    async def _open(
        self, receive: Callable[[Reply], None], load: Sequence[bytes] = ()
    ) -> tuple[RedisConnection, bytes]:
        try:
            address = await self._locate()
            return await open_connection(
                address, self._access, timeout_s=self._limits.timeout_s, receive=receive, load=load
            )
        except RedisConnectionError:
            self._events.lost()
            raise

    def _on_commands_up(self, incarnation: bytes) -> None:
        self.health.on_up()
        self._on_up(incarnation)

    def _on_subscriptions_up(self, incarnation: bytes) -> None:
        self._is_verified = False
        self._on_up(incarnation)

    def _on_up(self, incarnation: bytes) -> None:
        if incarnation == self.incarnation:
            return
        # What was seen so far was seen in the incarnation before, and may be undone in this one.
        before, self.incarnation = self.incarnation, incarnation
        self.positions.doubt(before)
        for connection in (self.commands, self.subscriptions):
            if connection.incarnation != incarnation:
                connection.rebuild("the server was restarted or replaced")

    async def _on_whole(self, incarnation: bytes) -> None:
        await self._verifier.verify(incarnation)
        self._is_verified = True
        self._events.gap()
        self.health.probe()

    @property
    def _is_whole(self) -> bool:
        return self._is_verified and self.subscriptions.is_whole

    async def rejoin(self, futures: Sequence[Future[None]]) -> None:
        """Channels of other servers, or lost ones, are subscribed to here: there may be a gap in them."""
        await asyncio.wait(futures)
        if self._is_whole:
            await self._on_whole(self.incarnation)

    def watch(self, now: float, lag_s: float) -> None:
        """Do what is due. To be called often.

        Args:
            lag_s: for how long this process, not the server, did nothing.
        """
        self.commands.watch(now, lag_s)
        self.subscriptions.watch(now, lag_s)
        if now >= self._rotate_at:
            self._rotate_at = now + RECENT_S
            self.positions.rotate()
        self.health.watch(now, lag_s)
