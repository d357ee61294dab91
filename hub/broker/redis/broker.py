"""The broker of many nodes."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from random import getrandbits
from typing import Any, Final

from hub.broker.background import BackgroundTasks
from hub.broker.base import (
    ANNOUNCED_MAX,
    BUS_LOG_MAX,
    POSITION_TTL_S,
    REPEAT_S,
    BrokerCallbacks,
    BrokerState,
    BusLog,
    HistoryPolicy,
    Resumption,
    Stream,
)
from hub.broker.redis import envelope, names, replies, scripts
from hub.broker.redis.commands import CallKind, CallLimits, RedisCall
from hub.broker.redis.connection import Reply
from hub.broker.redis.futures import merge
from hub.broker.redis.names import new_epoch
from hub.broker.redis.reads import HistoryRead, SharedReads
from hub.broker.redis.router import Router
from hub.broker.redis.shard import Shard
from hub.broker.redis.topology import topology_of
from hub.protocol.messages import IDEMPOTENCY_TTL_S, ClientInfo, Payload, StreamPosition
from hub.settings import RedisSettings

REPEAT_TTL_S: Final = 5.0
"""How long Redis remembers a call that the node may repeat; longer where calls may take longer."""

OFFSET_MAX: Final = 2**53
"""Offsets that Redis can compare; none is ever so high."""

POSITIONS_STEP: Final = 250
"""Channels whose positions one call reads."""

_POLICIES_MAX: Final = 1_000
_PUBLICATIONS: Final = (envelope.PUBLICATION, envelope.DELTA_PUBLICATION)


class RedisBroker:
    """A `Broker` over Redis.

    Args:
        settings: where Redis is, and what calls may take.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._ending = AsyncExitStack()
        """Ends what `start` began."""

    async def start(self, node: str, callbacks: BrokerCallbacks) -> None:
        self._callbacks = callbacks
        self._serving = False
        self._state = BrokerState.CONNECTED
        self._channels: dict[bytes, str] = {}
        self._reads = SharedReads(self._read)
        self._names = names.Names(self._settings.prefix, node)
        # Not of the node's id alone: a broker that was stopped may start again under the same one.
        self._repeats = b"%b.%b." % (node.encode(), secrets.token_hex(4).encode())
        self._numbers = itertools.count(1)
        self._policies: dict[tuple[int, float], tuple[bytes, bytes, bytes]] = {}
        limits = CallLimits(
            self._settings.timeout_s, self._settings.retry_budget_s, self._settings.pending_bytes_max
        )
        self._repeat_ttl_ms = _ms(max(REPEAT_TTL_S, 2 * limits.budget_s))
        self._tasks = BackgroundTasks(lambda error: callbacks.failed("redis", error))
        topology = topology_of(self._settings.url, limits.timeout_s)
        self._publish_verb = b"SPUBLISH" if topology.sharded else b"PUBLISH"
        self._router = Router(
            topology,
            limits,
            self._names,
            self._tasks,
            deliver=self._deliver,
            caught_up=callbacks.caught_up,
            gap=self._on_gap,
            state=self._on_state,
        )
        self._ending.push_async_callback(self._tasks.stop)
        self._ending.push_async_callback(self._router.stop)
        try:
            await self._router.start()
            subscribed = [
                self._router.shard(name).subscriptions.subscribe(name)
                for name in (self._names.bus, self._names.inbox)
            ]
            await asyncio.wait(subscribed, timeout=limits.timeout_s)
        except BaseException:
            await self.stop()
            raise
        self._only_shard = None if topology.sharded else self._router.shard(b"")
        self._serving = True
        self._on_state()

    async def stop(self) -> None:
        self._serving = False
        await self._ending.aclose()

    def flush(self) -> None:
        for shard in self._router.shards.values():
            shard.commands.flush()

    # Channels

    def subscribe(self, channel: str) -> Future[None]:
        name = self._names.channel(channel)
        self._channels[name] = channel
        return self._router.shard(name).subscriptions.subscribe(name)

    def unsubscribe(self, channel: str) -> Future[None]:
        name = self._names.channel(channel)
        self._channels.pop(name, None)
        shard = self._router.shard(name)
        shard.positions.unfollow(name)
        return shard.subscriptions.unsubscribe(name)

    def publish(
        self,
        channel: str,
        data: Payload,
        *,
        info: ClientInfo | None = None,
        tags: dict[str, str] | None = None,
        history: HistoryPolicy | None = None,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> Future[StreamPosition]:
        # The calls of this function are counted: the names are made here, and not by functions.
        kind = envelope.DELTA_PUBLICATION if delta else envelope.PUBLICATION
        name = b"%b%b}" % (self._names.head, channel.encode())
        if history is None:
            body = envelope.UNNUMBERED + envelope.encode_body(kind, data, info, tags)
            if idempotency_key:
                return self._publish_once(name, body, idempotency_key)
            return self._send(name, body, replies.unnumbered)
        if idempotency_key:
            key, key_ttl_ms = names.idempotency_key(name, idempotency_key), _IDEMPOTENCY_TTL_MS
        else:
            key = b"%b.r.%b%x" % (name, self._repeats, next(self._numbers))
            key_ttl_ms = self._repeat_ttl_ms
        body = envelope.encode_body(kind, data, info, tags, int(time.time() * 1000))
        policy = self._policies.get((history.size, history.ttl_s)) or self._policy(history)
        parts = (
            *(b"3", name + b".m", name + b".s", key, name, body),
            *policy,
            *(key_ttl_ms, self._publish_verb, b"%08x" % getrandbits(32)),
        )
        call = RedisCall(
            parts,
            partial(self._published, name),
            CallKind.STORE,
            script=scripts.PUBLISH,
            slot_key=name,
            size=len(body) + 512,
        )
        return self._router.call(call)

    def publish_join(self, channel: str, info: ClientInfo) -> Future[None]:
        return self._announce(envelope.JOIN, channel, info)

    def publish_leave(self, channel: str, info: ClientInfo) -> Future[None]:
        return self._announce(envelope.LEAVE, channel, info)

    def history(
        self,
        channel: str,
        *,
        since: StreamPosition | None = None,
        limit: int = -1,
        reverse: bool = False,
        bytes_max: int = 0,
    ) -> Future[Stream]:
        offset = None if since is None else min(since.offset, OFFSET_MAX)
        read = HistoryRead(self._names.channel(channel), offset, max(limit, -1), reverse, bytes_max)
        return self._reads.read(read)

    def positions(self, channels: Sequence[str], *, renew: bool = False) -> Future[dict[str, StreamPosition]]:
        by_name = {self._names.channel(channel): channel for channel in channels}
        ttl_ms = _ms(POSITION_TTL_S) if renew else b"0"
        calls = []
        for some in self._router.by_slot(by_name, POSITIONS_STEP):
            parts = (b"%d" % len(some), *map(names.position_key, some), ttl_ms)
            decode = partial(_by_channel, by_name, some)
            calls.append(
                self._call(some[0], parts, decode, CallKind.READ, scripts.POSITIONS, size=64 * len(some))
            )
        return merge(calls)

    def history_remove(self, channel: str) -> Future[None]:
        name = self._names.channel(channel)
        return self._call(name, (b"DEL", names.stream_key(name)), replies.nothing, CallKind.STORE)

    # Presence

    def presence_add(self, channel: str, client: str, info: ClientInfo, ttl_s: float) -> Future[None]:
        name = self._names.channel(channel)
        parts = (b"2", *names.presence_keys(name), client.encode(), envelope.encode_info(info), _ms(ttl_s))
        return self._call(name, parts, replies.nothing, CallKind.PRESENCE, scripts.PRESENCE_ADD)

    def presence_remove(self, channel: str, client: str) -> Future[None]:
        name = self._names.channel(channel)
        parts = (b"2", *names.presence_keys(name), client.encode())
        return self._call(name, parts, replies.nothing, CallKind.PRESENCE, scripts.PRESENCE_REMOVE)

    def presence(self, channel: str) -> Future[dict[str, ClientInfo]]:
        name = self._names.channel(channel)
        decode = partial(replies.clients, channel, ignored=self._callbacks.ignored)
        return self._call(name, (b"2", *names.presence_keys(name)), decode, CallKind.READ, scripts.PRESENCE)

    # Sessions

    def session_resume(
        self, user: str, client: str, owners: Sequence[str], owner: str, ttl_s: float
    ) -> Future[Resumption]:
        keys = self._names.session(user, client)
        parts = (b"3", *keys, owner.encode(), _ms(ttl_s), *(each.encode() for each in owners))
        return self._call(keys[0], parts, replies.resumption, CallKind.SESSION, scripts.SESSION_RESUME)

    def session_leave(
        self, user: str, client: str, owner: str, ttl_s: float, *, before: str = ""
    ) -> Future[bool]:
        session, back, _ = self._names.session(user, client)
        parts = (b"2", session, back, owner.encode(), _ms(ttl_s), before.encode(), _ms(REPEAT_S))
        return self._call(session, parts, bool, CallKind.SESSION, scripts.SESSION_LEAVE)

    def session_announced(
        self, user: str, client: str, channel: str, *, joined: bool, ttl_s: float
    ) -> Future[None]:
        session, _, _ = self._names.session(user, client)
        field = b":" + channel.encode()
        parts = (b"1", session, field, b"%d" % joined, _ms(ttl_s), b"%d" % ANNOUNCED_MAX)
        return self._call(session, parts, replies.nothing, CallKind.SESSION, scripts.SESSION_ANNOUNCED)

    def session_revoke(self, user: str, client: str, ttl_s: float) -> Future[None]:
        session, _, of_user = self._names.session(user, client)
        name = session if client else of_user
        parts = (b"1", name, _ms(ttl_s))
        return self._call(name, parts, replies.nothing, CallKind.SESSION, scripts.SESSION_REVOKE)

    # The bus

    def send_bus(self, message: bytes, node: str = "") -> Future[int]:
        name = self._names.inbox_of(node) if node else self._names.bus
        return self._send(name, b" " + message, int)

    def append_bus(self, message: bytes) -> Future[str]:
        name, log = self._names.bus, self._names.bus_log
        repeat_key = b"%b.r.%b%x" % (log, self._repeats, next(self._numbers))
        parts = (
            *(b"2", log, repeat_key, name, message, b"%d" % BUS_LOG_MAX),
            *(self._repeat_ttl_ms, self._publish_verb),
        )
        size = len(message) + 256
        return self._call(name, parts, bytes.decode, CallKind.STORE, scripts.BUS_APPEND, size=size)

    def read_bus(self, after: str, limit: int) -> Future[BusLog]:
        parts = (b"1", self._names.bus_log, after.encode(), b"%d" % limit)
        decode = partial(replies.bus_log, ignored=self._callbacks.ignored)
        return self._call(self._names.bus, parts, decode, CallKind.READ, scripts.BUS_READ)

    # Calls

    def _call(
        self,
        name: bytes,
        parts: tuple[bytes, ...],
        decode: Callable[[Reply], Any],
        kind: CallKind,
        script: scripts.Script | None = None,
        *,
        size: int = 512,
    ) -> Future[Any]:
        return self._router.call(RedisCall(parts, decode, kind, script=script, slot_key=name, size=size))

    def _send(self, name: bytes, message: bytes, decode: Callable[[Reply], Any]) -> Future[Any]:
        """Publish what is not kept. It is not repeated: twice would be worse than an error."""
        parts = (self._publish_verb, name, message)
        size = len(message) + 256
        call = RedisCall(parts, decode, CallKind.SEND, repeatable=False, slot_key=name, size=size)
        return self._router.call(call)

    def _publish_once(self, name: bytes, body: bytes, idempotency_key: str) -> Future[StreamPosition]:
        key = names.idempotency_key(name, idempotency_key)
        parts = (b"1", key, name, body, _IDEMPOTENCY_TTL_MS, self._publish_verb)
        return self._call(name, parts, replies.position, CallKind.STORE, scripts.SEND, size=len(body) + 256)

    def _announce(self, kind: int, channel: str, info: ClientInfo) -> Future[None]:
        body = envelope.UNNUMBERED + envelope.encode_body(kind, info=info)
        return self._send(self._names.channel(channel), body, replies.nothing)

    def _policy(self, history: HistoryPolicy) -> tuple[bytes, bytes, bytes]:
        """A policy as arguments of the script that publishes: they are made once."""
        if len(self._policies) >= _POLICIES_MAX:
            self._policies.clear()
        position_ttl_s = max(history.ttl_s, POSITION_TTL_S)
        policy = (b"%d" % history.size, _ms(history.ttl_s), _ms(position_ttl_s))
        self._policies[history.size, history.ttl_s] = policy
        return policy

    def _published(self, name: bytes, reply: Reply) -> StreamPosition:
        offset, _, epoch = reply.decode().partition(":")
        position = StreamPosition(int(offset), epoch)
        shard = self._only_shard or self._router.shard(name)
        shard.positions.note(name, epoch, position.offset)
        return position

    def _read(self, read: HistoryRead) -> Future[Stream]:
        name, since, limit = read.name, read.since, read.limit
        if read.reverse:
            if since is not None and since < 2:
                limit = 0
            bounds = (b"XREVRANGE", b"+" if since is None else b"(0-%d" % since, b"-")
        else:
            bounds = (b"XRANGE", b"-" if since is None else b"(0-%d" % since, b"+")
        if limit == 0:
            bounds = (b"XRANGE", b"-", b"+")
        keys = (names.position_key(name), names.stream_key(name))
        count_and_ttl = (b"%d" % limit, _ms(POSITION_TTL_S))
        parts = (b"2", *keys, *bounds, *count_and_ttl, new_epoch(), b"%d" % read.bytes_max)
        return self._call(name, parts, partial(self._stream, name), CallKind.READ, scripts.HISTORY)

    def _stream(self, name: bytes, reply: Reply) -> Stream:
        stream = replies.stream(self._names.channel_of(name), reply, self._callbacks.ignored)
        self._router.shard(name).positions.note(name, stream.top.epoch, stream.top.offset)
        return stream

    # Messages that arrive

    def _deliver(self, shard: Shard, name: bytes, data: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            self._deliver_other(shard, name, data)
            return
        try:
            message = envelope.decode_envelope(data)
            body = message.body
            kind = body.kind
            if kind in _PUBLICATIONS:
                publication = envelope.publication_of(message.offset, body)
            elif kind == envelope.JOIN or kind == envelope.LEAVE:
                info = envelope.info_of(body)
            else:
                self._callbacks.ignored(f"a message in {channel} is of the unknown kind {kind}")
                return
        except envelope.Unreadable as error:
            self._callbacks.ignored(f"a message in {channel} is not readable: {error}")
            return
        if kind in _PUBLICATIONS:
            epoch = message.epoch
            if message.offset:
                shard.positions.note(name, epoch, message.offset)
            self._callbacks.publication(channel, publication, epoch)
        elif kind == envelope.JOIN:
            self._callbacks.join(channel, info)
        else:
            self._callbacks.leave(channel, info)

    def _deliver_other(self, shard: Shard, name: bytes, data: bytes) -> None:
        """A message in a channel of the broker's own, or in one that was just unsubscribed from."""
        if name == self._names.probe:
            shard.health.on_probe()
        elif name in (self._names.bus, self._names.inbox) and self._serving:
            self._callbacks.bus(*replies.bus_message(data))

    def _on_gap(self) -> None:
        if self._serving:
            self._callbacks.gap()

    def _on_state(self) -> None:
        if not self._serving:
            return
        state, reason = self._router.state()
        if state is not self._state:
            self._state = state
            self._callbacks.state(state, reason)


def _by_channel(by_name: dict[bytes, str], some: Sequence[bytes], reply: Reply) -> dict[str, StreamPosition]:
    return {by_name[name]: position for name, position in replies.positions(some, reply).items()}


def _ms(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))


_IDEMPOTENCY_TTL_MS: Final = _ms(IDEMPOTENCY_TTL_S)
