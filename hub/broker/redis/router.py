"""Which shard a name belongs to, and what happens when that changes."""

from __future__ import annotations

import asyncio
import re
from asyncio import Future
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

from hub.broker.background import BackgroundTasks, cancel, retry_s
from hub.broker.base import BrokerState
from hub.broker.redis._redis_py import key_slot
from hub.broker.redis.commands import CallLimits, RedisCall, RefusedCallError
from hub.broker.redis.connection import Address, RedisConnectionError, RefusedError
from hub.broker.redis.futures import fail
from hub.broker.redis.names import Names
from hub.broker.redis.shard import Shard, ShardEvents
from hub.broker.redis.slot_queues import SlotQueues
from hub.broker.redis.topology import Topology
from hub.errors import StartupError

WATCH_INTERVAL_S: Final = 0.1

LAG_S: Final = 0.1
"""Time that this process lost, of at least so much, is not held against the servers."""

FOLLOW_STEP: Final = 1_000
"""Channels looked at in one turn of the event loop when servers have changed places."""

_SEVERITY: Final = {
    BrokerState.CONNECTED: 0,
    BrokerState.REFUSING: 1,
    BrokerState.NOT_RECEIVING: 2,
    BrokerState.DISCONNECTED: 3,
}
_ASK: Final = re.compile(r"ASK \d+ (.*):(\d+)")


class Router:
    """The shards. Without a cluster there is one, for all names, wherever its server is.

    Args:
        topology: knows where servers are.
        limits: of calls.
        names: of keys and channels.
        tasks: runs what goes on in the background.
        deliver: called with each message that arrives: shard, name of the channel in Redis, message.
        caught_up: called when everything that arrived together was delivered.
        gap: called when subscriptions are whole again.
        state: called when the state may have changed.
    """

    def __init__(
        self,
        topology: Topology,
        limits: CallLimits,
        names: Names,
        tasks: BackgroundTasks,
        *,
        deliver: Callable[[Shard, bytes, bytes], None],
        caught_up: Callable[[], None],
        gap: Callable[[], None],
        state: Callable[[], None],
    ) -> None:
        self.shards: dict[Address | None, Shard] = {}
        self._loop = asyncio.get_running_loop()
        self._topology = topology
        self._limits = limits
        self._names = names
        self._tasks = tasks
        self._on_state = state
        self._events = ShardEvents(
            deliver, caught_up, gap, state, self._refresh, lambda name: self._refresh(), self._redirect
        )
        self._slot_queues = SlotQueues(lambda name: self.shard(name).commands, limits)
        self._refreshing: asyncio.Task[None] | None = None
        self._retired: set[Shard] = set()
        """Those whose connections are being ended."""
        self.call: Callable[[RedisCall], Future[Any]] = self._slot_queues.call
        """Begins a call. Those of one channel are run in the order in which they were made. The future fails
        with `BrokerError`."""

    async def start(self) -> None:
        """Try to reach every server once.

        Raises:
            StartupError: a server refuses what is configured.
        """
        if self._topology.sharded:
            try:
                await self._topology.refresh()
            except RedisConnectionError:
                self._refresh()
            for address in self._topology.addresses():
                self._shard_at(address)
        else:
            self.call = self._shard_at(None).commands.call
        self._tasks.start(self._watch)
        shards = list(self.shards.values())
        for shard in shards:
            for connection in (shard.commands, shard.subscriptions):
                if isinstance(error := await asyncio.shield(connection.tried), RefusedError):
                    raise StartupError(f"redis.url: {error}")
        began = [shard.health.began for shard in shards if shard.commands.answers]
        if began:
            await asyncio.wait(began, timeout=self._limits.timeout_s)
        for shard in shards:
            shard.health.judge(self._loop.time())

    async def stop(self) -> None:
        """End every connection."""
        if self._refreshing is not None:
            await cancel(self._refreshing)
        self._slot_queues.stop()
        for shard in (*self.shards.values(), *self._retired):
            await shard.stop()

    def shard(self, name: bytes) -> Shard:
        """The shard that a name belongs to."""
        return self._shard_at(self._topology.address(name) if self._topology.sharded else None)

    def by_slot(self, names: Iterable[bytes], step: int) -> list[list[bytes]]:
        """Names in lists of at most `step`, each of names that one call may name."""
        slots: dict[int, list[bytes]] = {}
        for name in names:
            slots.setdefault(key_slot(name) if self._topology.sharded else 0, []).append(name)
        return [slot[start : start + step] for slot in slots.values() for start in range(0, len(slot), step)]

    def state(self) -> tuple[BrokerState, str]:
        """The worst state of all shards, and its reason."""
        worst = max(self.shards.values(), key=lambda shard: _SEVERITY[shard.health.state])
        return worst.health.state, worst.health.reason

    def _shard_at(self, address: Address | None) -> Shard:
        shard = self.shards.get(address)
        if shard is None:
            shard = self.shards[address] = Shard(
                partial(self._locate, address),
                lambda name: self._topology.address(name) == address,
                self._topology.access,
                self._limits,
                self._names,
                self._events,
                self._tasks,
                sharded=self._topology.sharded,
            )
        return shard

    async def _locate(self, address: Address | None) -> Address:
        if address is not None:
            return address
        await self._topology.refresh()
        return self._topology.address(b"")

    async def _watch(self) -> None:
        planned = self._loop.time() + WATCH_INTERVAL_S
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            now = self._loop.time()
            lag_s = now - planned if now - planned > LAG_S else 0.0
            planned = now + WATCH_INTERVAL_S
            for shard in list(self.shards.values()):
                shard.watch(now, lag_s)

    # Servers that change places

    def _redirect(self, call: RedisCall, error: str) -> None:
        if not self._topology.sharded:
            call.fail(f"Redis is a cluster, which needs redis+cluster:// ({error})")
        elif asked := _ASK.match(error):
            call.asking = True
            self._shard_at(Address(asked[1], int(asked[2]))).commands.adopt(call)
        else:
            self._give_back(call, error)
            self._refresh()

    def _give_back(self, call: RedisCall, error: str) -> None:
        if call.is_out:
            self._slot_queues.give_back(call)
        else:
            fail(call.future, RefusedCallError(error))  # a shard's own, about what the shard keeps no longer

    def _refresh(self) -> None:
        if self._topology.sharded and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self._tasks.start(self._follow_cluster)

    async def _follow_cluster(self) -> None:
        """Follow the cluster until every name is where the cluster has it."""
        attempt = 0
        while True:
            try:
                await self._topology.refresh()
            except RedisConnectionError:
                settled = False
            else:
                settled = await self._follow()
            given_back = self._slot_queues.in_doubt
            self._slot_queues.go_on()
            if settled and not given_back:
                return
            await asyncio.sleep(retry_s(attempt))
            attempt += 1

    async def _follow(self) -> bool:
        """Move what belongs elsewhere now. Returns whether every subscription stands or is on its way."""
        masters = set(self._topology.addresses())
        moved: dict[Shard, list[Future[None]]] = {}
        settled = True
        for address, shard in list(self.shards.items()):
            names = iter(list(shard.subscriptions.wanted))
            while some := list(islice(names, FOLLOW_STEP)):
                for name in some:
                    settled = self._follow_subscription(name, shard, moved) and settled
                await asyncio.sleep(0)
            for known in shard.positions.names(FOLLOW_STEP):
                for name in known:
                    if (there := self.shard(name)) is not shard:
                        for seen in shard.positions.take(name, shard.incarnation):
                            there.positions.inherit(name, seen)
                await asyncio.sleep(0)
            if address not in masters:
                self._retire(address, shard)
        for there, futures in moved.items():
            self._tasks.start(partial(there.rejoin, futures))
        self._on_state()
        return settled

    def _follow_subscription(self, name: bytes, shard: Shard, moved: dict[Shard, list[Future[None]]]) -> bool:
        """Subscribe to a channel where it belongs. Returns whether it stands or is on its way."""
        subscriptions = shard.subscriptions
        if name not in subscriptions.wanted:
            return True
        there = self.shard(name)
        if there is not shard:
            future = there.subscriptions.subscribe(name)
            subscriptions.hand_over(name, future)
            moved.setdefault(there, []).append(future)
        elif subscriptions.has_failed(name):
            if subscriptions.connection is not None:
                moved.setdefault(there, []).append(subscriptions.subscribe(name))
            return False
        return True

    def _retire(self, address: Address | None, shard: Shard) -> None:
        if self.shards.get(address) is not shard:
            return
        del self.shards[address]
        for call in shard.commands.give_up("another server has its place"):
            self._give_back(call, "MOVED to another server")
        self._retired.add(shard)
        self._tasks.start(partial(self._stop_retired, shard))

    async def _stop_retired(self, shard: Shard) -> None:
        await shard.stop()
        self._retired.discard(shard)
