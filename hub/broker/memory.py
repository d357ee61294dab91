"""The broker of a single process: the embedded default, and the reference for what `Broker` promises."""

from __future__ import annotations

import asyncio
import secrets
import time
from asyncio import Future
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal, TypeVar

from hub.broker.background import BackgroundTasks
from hub.broker.base import (
    ANNOUNCED_MAX,
    BUS_LOG_MAX,
    POSITION_TTL_S,
    REPEAT_S,
    BrokerCallbacks,
    BusLog,
    HistoryPolicy,
    Resumption,
    Stream,
)
from hub.protocol.messages import (
    IDEMPOTENCY_TTL_S,
    ClientInfo,
    DeltaPublication,
    Payload,
    Publication,
    StreamPosition,
)
from hub.protocol.payloads import octets_of

STREAMS_MAX: Final = 1_000_000
"""With more positions than this, the one that was not used for longest is forgotten early."""

IDEMPOTENCY_KEYS_MAX: Final = 1_000_000
"""With more idempotency keys than this, the oldest is forgotten early."""

SESSIONS_MAX: Final = 1_000_000
"""With more sessions than this, the one whose socket changed longest ago is forgotten early."""

SWEEP_INTERVAL_S: Final = 30
_SWEEP_STEP: Final = 1_000

_T = TypeVar("_T")
_K = TypeVar("_K")


class _Stream:
    """The history of one channel. Its publications have the offsets up to `offset`, without a gap."""

    __slots__ = ("epoch", "forgotten_at", "history_until", "offset", "publications")

    def __init__(self, now: float) -> None:
        self.epoch = secrets.token_hex(4)
        self.offset = 0
        self.publications: list[Publication] = []
        self.history_until = now
        self.forgotten_at = now + POSITION_TTL_S

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.offset, self.epoch)

    def append(self, publication: Publication, policy: HistoryPolicy, now: float) -> None:
        self.offset += 1
        publication.offset = self.offset
        self.publications.append(publication)
        excess = len(self.publications) - policy.size
        if excess > 0:
            del self.publications[:excess]
        self.history_until = now + policy.ttl_s
        self.forgotten_at = now + max(policy.ttl_s, POSITION_TTL_S)

    def read(self, since: int | None, limit: int, reverse: bool) -> list[Publication]:
        first = self.offset - len(self.publications) + 1
        if reverse:
            end = len(self.publications)
            if since is not None:
                end = min(end, max(0, since - first))
            return self.publications[0 if limit < 0 else max(0, end - limit) : end][::-1]
        start = 0 if since is None else max(0, since + 1 - first)
        return self.publications[start : None if limit < 0 else start + limit]


class _Session:
    """A session. Its `owner` is a socket; None if that is unknown, empty after a revocation."""

    __slots__ = ("announced", "before", "before_until", "lapsed", "owner", "until")

    def __init__(self, owner: str | None, until: float) -> None:
        self.owner = owner
        self.until = until
        self.before = ""
        self.before_until = 0.0
        self.lapsed = False
        self.announced: dict[str, bool] = {}


class MemoryBroker:
    """A `Broker` without a network. A publication reaches the callbacks before `publish` returns.

    Args:
        clock: monotonic seconds, by which things expire.
        wall_clock: Unix seconds, stamped on publications.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._tasks: BackgroundTasks | None = None
        self._forget_everything()

    async def start(self, node: str, callbacks: BrokerCallbacks) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._callbacks = callbacks
        self._done: Future[None] = self._future(None)
        self._unnumbered = self._future(StreamPosition())
        self._tasks = BackgroundTasks(lambda error: callbacks.failed("memory", error))
        self._tasks.start(self._sweep_forever)

    async def stop(self) -> None:
        """End, and forget everything: a broker that starts again has no history of its earlier life."""
        if self._tasks is not None:
            await self._tasks.stop()
        self._forget_everything()

    def flush(self) -> None:
        pass

    def subscribe(self, channel: str) -> Future[None]:
        self._subscribed.add(channel)
        return self._done

    def unsubscribe(self, channel: str) -> Future[None]:
        self._subscribed.discard(channel)
        return self._done

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
        if idempotency_key:
            sent = self._idempotent.get((channel, idempotency_key))
            if sent is not None and sent[0] > self._clock():
                return self._future(sent[1])
        publication = (DeltaPublication if delta else Publication)(data, info, 0, tags)
        if history is None:
            epoch, result = "", self._unnumbered
        else:
            publication.time = int(self._wall_clock() * 1000)
            stream = self._stream(channel)
            stream.append(publication, history, self._clock())
            epoch, result = stream.epoch, self._future(stream.position)
        if idempotency_key:
            self._remember(channel, idempotency_key, result.result())
        if channel in self._subscribed:
            self._callbacks.publication(channel, publication, epoch)
        return result

    def publish_join(self, channel: str, info: ClientInfo) -> Future[None]:
        if channel in self._subscribed:
            self._callbacks.join(channel, info)
        return self._done

    def publish_leave(self, channel: str, info: ClientInfo) -> Future[None]:
        if channel in self._subscribed:
            self._callbacks.leave(channel, info)
        return self._done

    def history(
        self,
        channel: str,
        *,
        since: StreamPosition | None = None,
        limit: int = -1,
        reverse: bool = False,
        bytes_max: int = 0,
    ) -> Future[Stream]:
        stream = self._stream(channel)
        publications = stream.read(None if since is None else since.offset, limit, reverse)
        if bytes_max:
            publications = _within(publications, bytes_max)
        return self._future(Stream(publications, stream.position))

    def positions(self, channels: Sequence[str], *, renew: bool = False) -> Future[dict[str, StreamPosition]]:
        now = self._clock()
        streams = {channel: self._expire(channel, now) for channel in channels}
        if renew:
            for stream in filter(None, streams.values()):
                stream.forgotten_at = max(stream.forgotten_at, now + POSITION_TTL_S)
        return self._future({channel: stream.position for channel, stream in streams.items() if stream})

    def history_remove(self, channel: str) -> Future[None]:
        stream = self._streams.get(channel)
        if stream is not None:
            stream.publications.clear()
        return self._done

    def presence_add(self, channel: str, client: str, info: ClientInfo, ttl_s: float) -> Future[None]:
        self._presence.setdefault(channel, {})[client] = (self._clock() + ttl_s, info)
        return self._done

    def presence_remove(self, channel: str, client: str) -> Future[None]:
        clients = self._presence.get(channel)
        if clients is not None:
            clients.pop(client, None)
            if not clients:
                del self._presence[channel]
        return self._done

    def presence(self, channel: str) -> Future[dict[str, ClientInfo]]:
        now = self._clock()
        clients = self._presence.get(channel, {})
        return self._future({client: info for client, (until, info) in clients.items() if until > now})

    def session_resume(
        self, user: str, client: str, owners: Sequence[str], owner: str, ttl_s: float
    ) -> Future[Resumption]:
        session, now = self._session(user, client), self._clock()
        if (user and self._session(user, "")) or (session and session.owner == ""):
            return self._future(Resumption("revoked"))
        if session is None or session.owner is None or session.owner in owners:
            verdict: Literal["resumed", "repeated"] = "resumed"
        elif session.before in owners and session.before_until > now:
            verdict = "repeated"
        else:
            self._hold(user, client, "", ttl_s)
            return self._future(Resumption("reused"))
        resumed = self._hold(user, client, owner, ttl_s)
        if session is None:
            return self._future(Resumption(verdict))
        if not session.lapsed:
            resumed.announced = session.announced
        return self._future(Resumption(verdict, session.lapsed, dict(resumed.announced)))

    def session_leave(
        self, user: str, client: str, owner: str, ttl_s: float, *, before: str = ""
    ) -> Future[bool]:
        session = self._session(user, client)
        if session and session.owner not in (None, owner):
            return self._future(not session.owner)
        session = session or self._hold(user, client, owner, ttl_s)
        session.owner = owner
        if before:
            session.before, session.before_until = before, self._clock() + REPEAT_S
        else:
            session.lapsed = True
            session.announced.clear()
        return self._future(True)

    def session_announced(
        self, user: str, client: str, channel: str, *, joined: bool, ttl_s: float
    ) -> Future[None]:
        session = self._session(user, client) or self._hold(user, client, None, ttl_s)
        session.until = max(session.until, self._clock() + ttl_s)
        if channel in session.announced or len(session.announced) < ANNOUNCED_MAX:
            session.announced[channel] = joined
        return self._done

    def session_revoke(self, user: str, client: str, ttl_s: float) -> Future[None]:
        self._hold(user, client, "", ttl_s)
        return self._done

    def send_bus(self, message: bytes, node: str = "") -> Future[int]:
        if is_mine := node in ("", self._node):
            self._callbacks.bus(message, "", "")
        return self._future(int(is_mine))

    def append_bus(self, message: bytes) -> Future[str]:
        before = str(self._appended or "")
        self._appended += 1
        entry = str(self._appended)
        self._log.append((entry, message))
        self._callbacks.bus(message, entry, before)
        return self._future(entry)

    def read_bus(self, after: str, limit: int) -> Future[BusLog]:
        since = int(after or 0)
        entries = [(entry, message) for entry, message in self._log if int(entry) > since][:limit]
        is_complete = self._appended - len(self._log) <= since
        return self._future(BusLog(entries, str(self._appended or ""), is_complete))

    async def sweep(self) -> None:
        """Free what has expired, in steps between which other work goes on. A broker that runs does so by
        itself."""
        for step in _steps(self._streams):
            now = self._clock()
            for channel in step:
                self._expire(channel, now)
            await asyncio.sleep(0)
        for step in _steps(self._presence):
            now = self._clock()
            for channel in step:
                clients = self._presence.get(channel, {})
                for client in [client for client, (until, _) in clients.items() if until <= now]:
                    self.presence_remove(channel, client)
            await asyncio.sleep(0)
        for sessions in _steps(self._sessions):
            for user, client in sessions:
                self._session(user, client)
            await asyncio.sleep(0)
        for _ in range(0, len(self._idempotent), _SWEEP_STEP):
            self._forget_keys(self._clock(), _SWEEP_STEP)
            await asyncio.sleep(0)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            await self.sweep()

    def _forget_everything(self) -> None:
        self._subscribed: set[str] = set()
        # Both in the order in which entries are forgotten: not used for longest, and first to expire.
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._idempotent: OrderedDict[tuple[str, str], tuple[float, StreamPosition]] = OrderedDict()
        # By user and client; the client is empty where all sessions of the user are revoked.
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        self._presence: dict[str, dict[str, tuple[float, ClientInfo]]] = {}
        self._log: deque[tuple[str, bytes]] = deque(maxlen=BUS_LOG_MAX)
        self._appended = 0

    def _future(self, result: _T) -> Future[_T]:
        future: Future[_T] = self._loop.create_future()
        future.set_result(result)
        return future

    def _stream(self, channel: str) -> _Stream:
        """Return the channel's stream, or make it, and move it to the end of `_streams`."""
        now = self._clock()
        stream = self._expire(channel, now)
        if stream is None:
            if len(self._streams) >= STREAMS_MAX:
                self._streams.popitem(last=False)
            stream = self._streams[channel] = _Stream(now)
        else:
            self._streams.move_to_end(channel)
        return stream

    def _expire(self, channel: str, now: float) -> _Stream | None:
        """Forget a channel's history, and its position, if their time is over. Returns what is left."""
        stream = self._streams.get(channel)
        if stream is None:
            return None
        if now >= stream.forgotten_at:
            del self._streams[channel]
            return None
        if now >= stream.history_until:
            stream.publications.clear()
        return stream

    def _session(self, user: str, client: str) -> _Session | None:
        session = self._sessions.get((user, client))
        if session and session.until <= self._clock():
            del self._sessions[user, client]
            return None
        return session

    def _hold(self, user: str, client: str, owner: str | None, ttl_s: float) -> _Session:
        self._sessions.pop((user, client), None)
        if len(self._sessions) >= SESSIONS_MAX:
            self._sessions.popitem(last=False)
        session = self._sessions[user, client] = _Session(owner, self._clock() + ttl_s)
        return session

    def _remember(self, channel: str, key: str, position: StreamPosition) -> None:
        now = self._clock()
        self._forget_keys(now, 2)
        # An expired entry of the same name may still be there, in a place that is too early for the new one.
        self._idempotent.pop((channel, key), None)
        if len(self._idempotent) >= IDEMPOTENCY_KEYS_MAX:
            self._idempotent.popitem(last=False)
        self._idempotent[channel, key] = (now + IDEMPOTENCY_TTL_S, position)

    def _forget_keys(self, now: float, count: int) -> None:
        for key, (until, _) in list(islice(self._idempotent.items(), count)):
            if until > now:
                break
            del self._idempotent[key]


def _within(publications: list[Publication], bytes_max: int) -> list[Publication]:
    """The first publications, up to the one that brings their payloads to a size."""
    size = 0
    for count, publication in enumerate(publications, 1):
        size += octets_of(publication.data)
        if size >= bytes_max:
            return publications[:count]
    return publications


def _steps(items: Iterable[_K]) -> Iterator[list[_K]]:
    """The keys as they are now, in steps that take little time each."""
    keys = list(items)
    for start in range(0, len(keys), _SWEEP_STEP):
        yield keys[start : start + _SWEEP_STEP]
