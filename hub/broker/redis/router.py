"""Which shard a name belongs to, and what happens when that changes. Where slots are, redis-py knows."""

from __future__ import annotations

import asyncio
import re
from asyncio import Future
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, Protocol

from hub.broker.base import BrokerState
from hub.broker.redis.commands import Call, Limits
from hub.broker.redis.connection import Address, RedisConnectionError, RefusedError
from hub.broker.redis.connection_supervisor import backoff_s, cancelled
from hub.broker.redis.names import Names
from hub.broker.redis.shard import Shard
from hub.broker.redis.slot_queues import SlotQueues
from hub.broker.redis.topology import Topology
from hub.errors import StartupError

_SEVERITY: Final = {
    BrokerState.CONNECTED: 0,
    BrokerState.REFUSING: 1,
    BrokerState.NOT_RECEIVING: 2,
    BrokerState.DISCONNECTED: 3,
}
_ASK: Final = re.compile(r"ASK \d+ (.*):(\d+)")


class Receiver(Protocol):
    """What the router calls."""

    def on_message(self, name: bytes, data: bytes) -> None:
        """A message came in a channel that is subscribed to."""

    def on_caught_up(self) -> None:
        """All messages that came together were told."""

    def on_gap(self) -> None:
        """Subscriptions are whole again."""

    def on_state(self) -> None:
        """The state may have changed."""


class Router:
    """The shards. Without a cluster there is one, for all names, wherever its server is.

    Args:
        topology: knows where servers are.
        limits: of calls.
        names: of keys and channels.
        receiver: is told what comes.
    """

    def __init__(self, topology: Topology, limits: Limits, names: Names, receiver: Receiver) -> None:
        self.shards: dict[Address | None, Shard] = {}
        self._loop = asyncio.get_running_loop()
        self._topology = topology
        self._limits = limits
        self._names = names
        self._receiver: Final = receiver
        self._lines = SlotQueues(lambda name: self.shard(name).publisher, limits)
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired: set[Shard] = set()
        """Those whose links are being ended."""
        self.on_message = receiver.on_message
        self.on_caught_up = receiver.on_caught_up
        self.on_gap = receiver.on_gap
        self.on_state = receiver.on_state

    async def start(self) -> None:
        """Try to reach every server once.

        Raises:
            StartupError: one refuses what is configured.
        """
        if self._topology.sharded:
            try:
                await self._topology.refresh()
            except RedisConnectionError:
                self.on_lost()
            for address in self._topology.addresses():
                self._shard_at(address)
        else:
            self._shard_at(None)
        shards = list(self.shards.values())
        for shard in shards:
            for keeper in (shard.publisher, shard.listener):
                if isinstance(error := await asyncio.shield(keeper.tried), RefusedError):
                    await self.stop()
                    raise StartupError(f"redis.url: {error}")
        began = [shard.began for shard in shards if shard.publisher.answers]
        if began:
            await asyncio.wait(began, timeout=self._limits.timeout_s)
        for shard in shards:
            shard.judge(self._loop.time())

    async def stop(self) -> None:
        """End every link."""
        await cancelled(*self._tasks, *([self._refreshing] if self._refreshing else []))
        self._lines.stop()
        for shard in (*self.shards.values(), *self._retired):
            await shard.stop()
        await self._topology.close()

    def call(self, call: Call) -> Future[Any]:
        """Begin a call. Those of one channel are run in the order in which they were made.

        Its future fails with `BrokerError`.
        """
        if self._topology.sharded:
            return self._lines.call(call)
        return self.shard(call.slot_key).publisher.call(call)

    def flush(self) -> None:
        """Let the calls that were begun leave."""
        for shard in self.shards.values():
            shard.publisher.flush()

    def shard(self, name: bytes) -> Shard:
        """The one that a name belongs to."""
        return self._shard_at(self._topology.address(name) if self._topology.sharded else None)

    def state(self) -> tuple[BrokerState, str]:
        """The worst state of all shards, and its reason."""
        worst = max(self.shards.values(), key=lambda shard: _SEVERITY[shard.state])
        return worst.state, worst.reason

    def _shard_at(self, address: Address | None) -> Shard:
        shard = self.shards.get(address)
        if shard is None:
            shard = self.shards[address] = Shard(
                partial(self._locate, address),
                self._topology.access,
                self._limits,
                self._names,
                self,
                sharded=self._topology.sharded,
            )
        return shard

    async def _locate(self, address: Address | None) -> Address:
        if address is not None:
            return address
        await self._topology.refresh()
        return self._topology.address(b"")

    # What shards tell

    def on_lost(self) -> None:
        self._refresh()

    def on_moved(self, name: bytes) -> None:
        self._refresh()

    def on_redirect(self, call: Call, error: str) -> None:
        if not self._topology.sharded:
            call.fail(f"Redis is a cluster, which needs redis+cluster:// ({error})")
        elif asked := _ASK.match(error):
            call.asking = True
            self._shard_at(Address(asked[1], int(asked[2]))).publisher.adopt(call)
        else:
            self._give_back(call)
            self._refresh()

    def _give_back(self, call: Call) -> None:
        if call.is_out:
            self._lines.give_back(call)
        else:
            call.fail("the server has lost its place")  # a shard's own, about what is no longer its own

    def _refresh(self) -> None:
        if self._topology.sharded and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self._loop.create_task(self._route_anew())

    async def _route_anew(self) -> None:
        """Follow the cluster until every name is where the cluster has it."""
        attempt = 0
        while True:
            try:
                await self._topology.refresh()
            except RedisConnectionError:
                settled = False
            else:
                settled = self._follow()
            given_back = self._lines.in_doubt
            self._lines.go_on()
            if settled and not given_back:
                return
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    def _follow(self) -> bool:
        """Move what belongs elsewhere now. Returns whether every subscription stands or is on its way."""
        masters = set(self._topology.addresses())
        moved: dict[Shard, list[Future[None]]] = {}
        settled = True
        for address, shard in list(self.shards.items()):
            for name in [*shard.listener.wanted]:
                there = self.shard(name)
                if there is not shard:
                    moved.setdefault(there, []).append(self._move(name, shard, there))
                elif shard.listener.has_failed(name):
                    settled = False
                    if shard.listener.link is not None:
                        moved.setdefault(there, []).append(shard.listener.subscribe(name))
            for name in shard.positions.names():
                if (there := self.shard(name)) is not shard:
                    there.inherit(name, shard)
            if address not in masters:
                del self.shards[address]
                for call in shard.publisher.give_up():
                    self._give_back(call)
                self._retired.add(shard)
                self._background(self._retire(shard))
        for there, futures in moved.items():
            self._background(there.rejoin(futures))
        self.on_state()
        return settled

    async def _retire(self, shard: Shard) -> None:
        await shard.stop()
        self._retired.discard(shard)

    def _move(self, name: bytes, shard: Shard, there: Shard) -> Future[None]:
        future = there.listener.subscribe(name)
        shard.listener.hand_over(name, future)
        return future

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
