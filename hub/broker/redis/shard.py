"""One server that keeps some of the channels, or all: its two connections, its state, and what is known of
it."""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from hub.broker.base import POSITION_TTL_S, BrokerState
from hub.broker.redis import scripts
from hub.broker.redis._redis_py import key_slot
from hub.broker.redis.commands import (
    CallLimits,
    CommandConnection,
    RedisCall,
    RefusedCallError,
    concerns_server,
)
from hub.broker.redis.connection import (
    Access,
    Address,
    RedisConnection,
    RedisConnectionError,
    Reply,
    open_connection,
)
from hub.broker.redis.names import Names, position_key, stream_key
from hub.broker.redis.positions import Positions, Seen
from hub.broker.redis.subscriptions import SubscriptionConnection
from hub.broker.redis.tasks import BackgroundTasks, retry_s
from hub.errors import BrokerError

PROBE_INTERVAL_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 2.0
"""A probe that is not heard for this long makes a node deaf; a repair that takes longer shows in its
state."""

PROBE_TTL_MS: Final = b"60000"

RECENT_S: Final = 60.0
"""How long the positions of publications are kept where this node is not subscribed to the channel. A
replica that takes over lacks seconds at the most."""

VERIFY_STEP: Final = 200
"""Channels whose positions are verified at once after a server was replaced; the next ones follow when these
are."""

_SLOT_TRIES: Final = 1_000
_ELSEWHERE: Final = ("MOVED ", "ASK ", "TRYAGAIN ")


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
        self._owns = owns
        self._access = access
        self._limits = limits
        self._names = names
        self._events = events
        self._sharded = sharded
        self.incarnation = b""
        self.state = BrokerState.DISCONNECTED
        self.reason = "not yet reached"
        self.began: Future[None] = self._loop.create_future()
        """Done when the server was first found to deliver, or to refuse."""
        now = self._loop.time()
        self._rotate_at = now + RECENT_S
        self._up_at = now
        self._heard_at = self._rebuilt_at = self._probe_at = 0.0
        self._is_repaired = False
        """Whether positions were verified since the connection that listens was made."""
        self._whole_at = now
        """When this shard was whole last."""
        self._refusal = ""
        """Why the server refused the last probe."""
        self._probe_number = 0
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
        self._up_at = self._loop.time()
        self._loop.call_soon(self._probe)
        self._on_up(incarnation)

    def _on_subscriptions_up(self, incarnation: bytes) -> None:
        self._is_repaired = False
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

    # Repair

    async def _on_whole(self, incarnation: bytes) -> None:
        await self._verify(incarnation)
        self._is_repaired = True
        self._events.gap()
        self._probe()

    @property
    def _is_whole(self) -> bool:
        return self._is_repaired and self.subscriptions.is_whole

    async def rejoin(self, futures: Sequence[Future[None]]) -> None:
        """Channels of other servers, or lost ones, are subscribed to here: there may be a gap in them."""
        await asyncio.wait(futures)
        if self._is_whole:
            await self._on_whole(self.incarnation)

    async def _verify(self, incarnation: bytes) -> None:
        """Renew the epoch of channels whose position went back under what was seen.

        One slice is under way at a time, and a slice that failed is tried again after a while, so that a busy
        server is not kept busy by this.
        """
        attempt = 0
        while doubtful := self.positions.take_doubtful(VERIFY_STEP):
            is_verified = False
            try:
                await self._renew(doubtful, incarnation)
                is_verified = True
                attempt = 0
            except BrokerError:
                attempt += 1
            finally:
                if not is_verified:
                    for name, seen in doubtful:
                        self.positions.inherit(name, seen)
            if not is_verified:
                await asyncio.sleep(retry_s(attempt))

    async def _renew(self, doubtful: Iterable[tuple[bytes, Seen]], incarnation: bytes) -> None:
        if self.commands.incarnation != incarnation or self.commands.connection is None:
            raise BrokerError("the server is not reached yet")
        slots: dict[int, list[tuple[bytes, Seen]]] = {}
        for name, seen in doubtful:
            slots.setdefault(key_slot(name) if self._sharded else 0, []).append((name, seen))
        calls: list[Future[Any]] = []
        for some in slots.values():
            keys: list[bytes] = []
            arguments = [b"%d" % (POSITION_TTL_S * 1000)]
            for name, seen in some:
                keys += (position_key(name), stream_key(name))
                arguments += (seen.epoch.encode(), b"%d" % seen.offset, seen.incarnation, new_epoch())
            parts = (b"%d" % len(keys), *keys, *arguments)
            call = RedisCall(
                parts, int, None, script=scripts.RENEW, slot_key=some[0][0], size=len(some) * 128
            )
            calls.append(self.commands.call(call))
        await asyncio.gather(*calls)

    # The state

    def heard(self) -> None:
        """A probe arrived."""
        self._heard_at = self._loop.time()
        if self.state is not BrokerState.CONNECTED:
            self.judge(self._heard_at)

    def watch(self, now: float, lag_s: float) -> None:
        """Do what is due. To be called often.

        Args:
            lag_s: for how long this process, not the server, did nothing.
        """
        self._heard_at += lag_s
        self._up_at += lag_s
        self._whole_at += lag_s
        self.commands.watch(now, lag_s)
        self.subscriptions.watch(now, lag_s)
        if now >= self._probe_at:
            self._probe()
        if now >= self._rotate_at:
            self._rotate_at = now + RECENT_S
            self.positions.rotate()
        self.judge(now)

    def _probe(self) -> None:
        """Publish as publications are, to the channel of this node's probes."""
        self._probe_at = self._loop.time() + PROBE_INTERVAL_S
        if self.commands.connection is None:
            return
        keys = self._probe_keys()
        if keys is None:
            call = RedisCall((b"PUBLISH", self._names.probe, b""), _no_refusal, None, repeatable=False)
        else:
            parts = (
                *(b"3", *keys, self._names.probe, b"", b"1"),
                *(PROBE_TTL_MS, PROBE_TTL_MS, b"1", b"PUBLISH", new_epoch()),
            )
            call = RedisCall(
                parts, bytes.decode, None, script=scripts.PROBE, repeatable=False, slot_key=keys[0]
            )
        self.commands.call(call).add_done_callback(self._probed)

    def _probe_keys(self) -> tuple[bytes, bytes, bytes] | None:
        """Keys that this server keeps; None for a server of a cluster without a slot."""
        for _ in range(_SLOT_TRIES if self._sharded else 1):
            keys = self._names.probe_keys(self._probe_number)
            if not self._sharded or self._owns(keys[0]):
                return keys
            self._probe_number += 1
        self._probe_number = 0
        return None

    def _probed(self, done: Future[str]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            refusal = done.result()
        elif isinstance(error, RefusedCallError):
            self._up_at = self._loop.time()  # the probe was not sent, and so need not arrive
            if error.error.startswith(_ELSEWHERE):
                return
            refusal = error.error
        else:
            return
        self._refusal = refusal if concerns_server(refusal) else ""
        self.judge(self._loop.time())

    def judge(self, now: float) -> None:
        """Find the state, and tell of it if it changed."""
        state, reason = self._judged(now)
        if state not in (BrokerState.DISCONNECTED, BrokerState.NOT_RECEIVING) and not self.began.done():
            self.began.set_result(None)
        changed = state is not self.state
        self.state, self.reason = state, reason
        if changed:
            self._events.state()

    def _judged(self, now: float) -> tuple[BrokerState, str]:
        if self._is_whole:
            self._whole_at = now
        if not self.commands.answers:
            return BrokerState.DISCONNECTED, self.commands.failure
        refused = self.subscriptions.refused
        if now - max(self._heard_at, self._up_at) > PROBE_TIMEOUT_S:
            if self._names.probe in refused:
                return BrokerState.NOT_RECEIVING, f"Redis refused: {refused[self._names.probe]}"
            if now - self._rebuilt_at > PROBE_TIMEOUT_S:
                self._rebuilt_at = now
                self.subscriptions.rebuild("the probe did not come back")
            failure = self.subscriptions.failure
            return BrokerState.NOT_RECEIVING, failure or "what this node publishes does not come back to it"
        if self._refusal:
            return BrokerState.REFUSING, f"Redis refused: {self._refusal}"
        if refused:
            return BrokerState.REFUSING, f"Redis refused: {next(iter(refused.values()))}"
        if self._heard_at < self._up_at:
            return self.state, self.reason
        if self._is_whole:
            return BrokerState.CONNECTED, ""
        if now - self._whole_at > PROBE_TIMEOUT_S:
            return BrokerState.REFUSING, "not every channel is subscribed to again yet"
        return self.state, self.reason


def new_epoch() -> bytes:
    """An epoch for a channel that has none; Redis takes it or leaves it."""
    return b"%08x" % random.getrandbits(32)


def _no_refusal(_: Reply) -> str:
    return ""
