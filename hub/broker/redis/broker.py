"""The broker of many nodes."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from hub.broker.base import (
    ANNOUNCED_MAX,
    BUS_LOG_MAX,
    IDEMPOTENCY_TTL_S,
    POSITION_TTL_S,
    REPEAT_S,
    BrokerCallbacks,
    BrokerState,
    BusLog,
    HistoryPolicy,
    Resumption,
    Stream,
)
from hub.broker.redis import envelope, names, scripts
from hub.broker.redis.commands import Call, Kind, Limits
from hub.broker.redis.connection import Reply
from hub.broker.redis.reads import Reads
from hub.broker.redis.router import Router
from hub.broker.redis.topology import topology_of
from hub.protocol.messages import ClientInfo, Payload, StreamPosition
from hub.settings import RedisSettings
from hub.telemetry import get_logger

REPEAT_TTL_S: Final = 5
"""How long Redis remembers a publish without a key of its caller, should it be repeated."""

OFFSET_MAX: Final = 2**53
"""Offsets that Redis can compare; none is ever so high."""

_log = get_logger("hub.broker")
_UNNUMBERED: Final = StreamPosition()


class RedisBroker:
    """A `Broker` over Redis.

    Args:
        settings: where Redis is, and what calls may take.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._node = secrets.token_hex(8)
        self._names = names.Names(settings.prefix, self._node)
        self._limits = Limits(settings.timeout_s, settings.retry_budget_s, settings.pending_bytes_max)
        self._numbers = itertools.count(1)
        self._channels: dict[bytes, str] = {}
        self._reads = Reads(self._read)
        self._state = BrokerState.CONNECTED
        self._serving = False

    async def start(self, node: str, callbacks: BrokerCallbacks) -> None:
        self._loop = asyncio.get_running_loop()
        self._callbacks = callbacks
        topology = topology_of(self._settings.url, self._settings.timeout_s)
        self._publish = b"SPUBLISH" if topology.sharded else b"PUBLISH"
        self._router = Router(topology, self._limits, self._names, self)
        await self._router.start()
        self._control = (self._names.control, self._names.inbox(node))
        heard = [self._router.shard(name).listener.subscribe(name) for name in self._control]
        await asyncio.wait(heard, timeout=self._limits.timeout_s)
        self._serving = True
        self.on_state()

    async def stop(self) -> None:
        self._serving = False
        await self._router.stop()

    def flush(self) -> None:
        self._router.flush()

    # Channels

    def subscribe(self, channel: str) -> Future[None]:
        name = self._names.channel(channel)
        self._channels[name] = channel
        return self._router.shard(name).listener.subscribe(name)

    def unsubscribe(self, channel: str) -> Future[None]:
        name = self._names.channel(channel)
        self._channels.pop(name, None)
        return self._router.shard(name).listener.unsubscribe(name)

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
        kind = envelope.DELTA_PUBLICATION if delta else envelope.PUBLICATION
        name = self._names.channel(channel)
        if history is None:
            body = envelope.UNNUMBERED + envelope.encode_body(kind, data, info, tags)
            if idempotency_key:
                key = names.idempotency_key(name, idempotency_key)
                parts: Sequence[bytes] = (b"1", key, name, body, _ms(IDEMPOTENCY_TTL_S), self._publish)
                return self._call(name, parts, _position, Kind.STORE, scripts.SEND, size=len(body) + 256)
            return self._send(name, body, lambda _: _UNNUMBERED)
        if idempotency_key:
            key, key_ttl_s = names.idempotency_key(name, idempotency_key), IDEMPOTENCY_TTL_S
        else:
            number = b"%b%x" % (self._node.encode(), next(self._numbers))
            key, key_ttl_s = names.repeat_key(name, number), REPEAT_TTL_S
        body = envelope.encode_body(kind, data, info, tags, int(time.time() * 1000))
        parts = (
            *(b"3", names.position_key(name), names.stream_key(name), key),
            *(name, body, b"%d" % history.size, _ms(history.ttl_s)),
            *(_ms(max(history.ttl_s, POSITION_TTL_S)), _ms(key_ttl_s), self._publish, _epoch()),
        )
        decode = partial(self._published, name)
        return self._call(name, parts, decode, Kind.STORE, scripts.PUBLISH, size=len(body) + 512)

    def publish_join(self, channel: str, info: ClientInfo) -> Future[None]:
        return self._announce(envelope.JOIN, channel, info)

    def publish_leave(self, channel: str, info: ClientInfo) -> Future[None]:
        return self._announce(envelope.LEAVE, channel, info)

    def send_bus(self, message: bytes, node: str = "") -> Future[int]:
        name = self._names.inbox(node) if node else self._names.control
        return self._send(name, b" " + message, int)

    def append_bus(self, message: bytes) -> Future[str]:
        name = self._names.control
        parts = (b"1", self._names.bus_log, name, message, b"%d" % BUS_LOG_MAX, self._publish)
        return self._call(
            name,
            parts,
            bytes.decode,
            Kind.SEND,
            scripts.BUS_APPEND,
            repeatable=False,
            size=len(message) + 256,
        )

    def read_bus(self, after: str, limit: int) -> Future[BusLog]:
        parts = (b"1", self._names.bus_log, after.encode() or b"0-0", b"%d" % limit)
        return self._call(self._names.control, parts, _bus_log, Kind.READ, scripts.BUS_READ)

    # What is kept

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
        return self._reads.read(self._names.channel(channel), offset, max(limit, -1), reverse)

    def positions(self, channels: Sequence[str], *, renew: bool = False) -> Future[dict[str, StreamPosition]]:
        return self._loop.create_task(self._positions(channels))

    def history_remove(self, channel: str) -> Future[None]:
        name = self._names.channel(channel)
        return self._call(name, (b"DEL", names.stream_key(name)), _nothing, Kind.STORE)

    def presence_add(self, channel: str, client: str, info: ClientInfo, ttl_s: float) -> Future[None]:
        name = self._names.channel(channel)
        parts = (b"2", *names.presence_keys(name), client.encode(), envelope.encode_info(info), _ms(ttl_s))
        return self._call(name, parts, _nothing, Kind.PRESENCE, scripts.PRESENCE_ADD)

    def presence_remove(self, channel: str, client: str) -> Future[None]:
        name = self._names.channel(channel)
        parts = (b"2", *names.presence_keys(name), client.encode())
        return self._call(name, parts, _nothing, Kind.PRESENCE, scripts.PRESENCE_REMOVE)

    def presence(self, channel: str) -> Future[dict[str, ClientInfo]]:
        name = self._names.channel(channel)
        parts = (b"2", *names.presence_keys(name))
        return self._call(name, parts, _clients, Kind.READ, scripts.PRESENCE)

    # Sessions

    def session_resume(
        self, user: str, client: str, owners: Sequence[str], owner: str, ttl_s: float
    ) -> Future[Resumption]:
        keys = self._names.session(user, client)
        parts = (b"3", *keys, owner.encode(), _ms(ttl_s), *(each.encode() for each in owners))
        return self._call(keys[0], parts, _resumption, Kind.SESSION, scripts.SESSION_RESUME)

    def session_leave(
        self, user: str, client: str, owner: str, ttl_s: float, *, before: str = ""
    ) -> Future[bool]:
        session, back, _ = self._names.session(user, client)
        parts = (b"2", session, back, owner.encode(), _ms(ttl_s), before.encode(), _ms(REPEAT_S))
        return self._call(session, parts, bool, Kind.SESSION, scripts.SESSION_LEAVE)

    def session_announced(
        self, user: str, client: str, channel: str, *, joined: bool, ttl_s: float
    ) -> Future[None]:
        session, _, _ = self._names.session(user, client)
        field = b":" + channel.encode()
        parts = (b"1", session, field, b"%d" % joined, _ms(ttl_s), b"%d" % ANNOUNCED_MAX)
        return self._call(session, parts, _nothing, Kind.SESSION, scripts.SESSION_ANNOUNCED)

    def session_revoke(self, user: str, client: str, ttl_s: float) -> Future[None]:
        session, _, of_user = self._names.session(user, client)
        name = session if client else of_user
        return self._call(name, (b"1", name, _ms(ttl_s)), _nothing, Kind.SESSION, scripts.SESSION_REVOKE)

    # Calls

    def _call(
        self,
        name: bytes,
        parts: Sequence[bytes],
        decode: Callable[[Reply], Any],
        kind: Kind,
        script: scripts.Script | None = None,
        *,
        repeatable: bool = True,
        size: int = 512,
    ) -> Future[Any]:
        call = Call(parts, decode, kind, script=script, repeatable=repeatable, slot_key=name, size=size)
        return self._router.call(call)

    def _send(self, name: bytes, message: bytes, decode: Callable[[Reply], Any]) -> Future[Any]:
        # To send it twice would be worse than to say that it may not have been sent.
        parts = (self._publish, name, message)
        return self._call(name, parts, decode, Kind.SEND, repeatable=False, size=len(message) + 256)

    def _announce(self, kind: int, channel: str, info: ClientInfo) -> Future[None]:
        body = envelope.UNNUMBERED + envelope.encode_body(kind, info=info)
        return self._send(self._names.channel(channel), body, _nothing)

    def _published(self, name: bytes, reply: Reply) -> StreamPosition:
        position = _position(reply)
        self._router.shard(name).positions.note(name, position.epoch, position.offset)
        return position

    def _read(self, name: bytes, since: int | None, limit: int, reverse: bool) -> Future[Stream]:
        if reverse:
            if since is not None and since < 2:
                limit = 0
            bounds = (b"XREVRANGE", b"+" if since is None else b"(0-%d" % since, b"-")
        else:
            bounds = (b"XRANGE", b"-" if since is None else b"(0-%d" % since, b"+")
        if limit == 0:
            bounds = (b"XRANGE", b"-", b"+")
        keys = (names.position_key(name), names.stream_key(name))
        parts = (b"2", *keys, *bounds, b"%d" % limit, _ms(POSITION_TTL_S), _epoch())
        return self._call(name, parts, partial(self._stream, name), Kind.READ, scripts.HISTORY)

    def _stream(self, name: bytes, reply: Reply) -> Stream:
        top = StreamPosition(int(reply[0]), reply[1].decode())
        self._router.shard(name).positions.note(name, top.epoch, top.offset)
        publications = [envelope.decode_entry(int(id_[2:]), fields[1]) for id_, fields in reply[2]]
        return Stream(publications, top)

    async def _positions(self, channels: Sequence[str]) -> dict[str, StreamPosition]:
        calls = []
        for channel in channels:
            name = self._names.channel(channel)
            parts = (b"HMGET", names.position_key(name), b"offset", b"epoch")
            calls.append(self._call(name, parts, _known, Kind.READ))
        known = await asyncio.gather(*calls)
        return {channel: each for channel, each in zip(channels, known, strict=True) if each is not None}

    # What comes

    def on_message(self, name: bytes, data: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            if name in self._control and self._serving:
                entry, _, bus_message = data.partition(b" ")
                self._callbacks.bus(bus_message, entry.decode("latin-1"))
            return
        try:
            message = envelope.decode_envelope(data)
        except msgspec.MsgspecError as error:
            _log.warning("broker.failed", reason=f"a message in {channel} is not the hub's: {error}")
            return
        body = message.body
        if body.kind in (envelope.PUBLICATION, envelope.DELTA_PUBLICATION):
            if message.offset:
                self._router.shard(name).positions.note(name, message.epoch, message.offset)
            self._callbacks.publication(channel, envelope.publication_of(message.offset, body), message.epoch)
        elif body.kind == envelope.JOIN:
            self._callbacks.join(channel, envelope.info_of(body))
        elif body.kind == envelope.LEAVE:
            self._callbacks.leave(channel, envelope.info_of(body))

    def on_caught_up(self) -> None:
        if self._serving:
            self._callbacks.caught_up()

    def on_gap(self) -> None:
        if self._serving:
            self._callbacks.gap()

    def on_state(self) -> None:
        if not self._serving:
            return
        state, reason = self._router.state()
        if state is not self._state:
            self._state = state
            self._callbacks.state(state, reason)


def _ms(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))


def _epoch() -> bytes:
    """One for a channel that has none; Redis takes it or leaves it."""
    return secrets.token_hex(4).encode()


def _nothing(_: Reply) -> None:
    return None


def _position(reply: Reply) -> StreamPosition:
    offset, _, epoch = reply.decode().partition(":")
    return StreamPosition(int(offset), epoch)


def _resumption(reply: Reply) -> Resumption:
    verdict, lapsed, announced = reply
    fields = zip(announced[::2], announced[1::2], strict=True)
    return Resumption(
        verdict.decode(), bool(lapsed), {field[1:].decode(): value == b"1" for field, value in fields}
    )


def _known(reply: Reply) -> StreamPosition | None:
    offset, epoch = reply
    return None if epoch is None else StreamPosition(int(offset), epoch.decode())


def _bus_log(reply: Reply) -> BusLog:
    entries, last, is_complete = reply
    return BusLog(
        [(id_.decode(), fields[1]) for id_, fields in entries], last.decode(), is_complete=bool(is_complete)
    )


def _clients(reply: Reply) -> dict[str, ClientInfo]:
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {client.decode(): envelope.decode_info(info) for client, info in pairs}
