"""The broker: what it promises to a node. Every broker passes one contract suite; `memory` is the reference.

Calls return futures, not coroutines: what is known at once (always, in memory) costs no task, and a caller
adds a callback or awaits. A future fails with `BrokerError` where the broker could not do it and the same
call may succeed later. Arguments are valid when they come: channels' names were checked, payloads are JSON.
"""

from __future__ import annotations

import enum
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from hub.protocol.messages import ClientInfo, Payload, Publication, StreamPosition

POSITION_TTL_S: Final = 86_400
"""A channel's position is kept this long after its last publication, or its history's own time where that is
longer. Then epoch and offset start anew together."""

IDEMPOTENCY_TTL_S: Final = 300
"""How long an idempotency key is remembered."""

BUS_LOG_MAX: Final = 10_000
"""Messages that the log of the bus keeps."""

ANNOUNCED_MAX: Final = 1_024
"""Announcements that are remembered of one session. Those of further channels are not."""

REPEAT_S: Final = 5.0
"""How long after the end of a socket that was never heard from the one before may come back in its place."""


class BrokerState(enum.Enum):
    """How a node stands to the broker."""

    CONNECTED = "connected"
    """The broker answers, and what this node publishes comes back to it."""
    REFUSING = "refusing"
    """The broker answers and delivers, but refuses writes or subscriptions, as when its memory is full."""
    NOT_RECEIVING = "not_receiving"
    """The broker answers, but what this node publishes does not come back to it."""
    DISCONNECTED = "disconnected"
    """The broker does not answer."""


@dataclass(frozen=True, slots=True)
class HistoryPolicy:
    """How much history a channel keeps.

    Args:
        size: publications at the most.
        ttl_s: seconds after the last publication until the history is empty. The position outlives it.
    """

    size: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Stream:
    """A read of a channel's history.

    Args:
        publications: in order of offset, or the reverse where that was asked. Entries that cannot be read are
            left out, so that the offsets show a gap.
        top: the position of the newest publication, whether or not it is among them.
    """

    publications: list[Publication]
    top: StreamPosition


@dataclass(frozen=True, slots=True)
class Resumption:
    """Whether a socket may go on with a session.

    Args:
        verdict: `resumed`: it has the session now. `repeated`: so it has, and the socket before it, which was
            never heard from, has lost it. `reused`: another socket has it, and nobody gets it any more.
            `revoked`: it was ended.
        lapsed: whether the last socket that had it left its channels since.
        announced: by channel, whether the last announcement of the session there was a join, as
            `session_announced` recorded them.
    """

    verdict: Literal["resumed", "repeated", "reused", "revoked"]
    lapsed: bool = False
    announced: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BusLog:
    """A part of the log of bus messages.

    Args:
        entries: ids and messages, in the order of the log.
        last: id of the newest entry of the log, whether or not it is among them; empty for an empty log.
        is_complete: whether the log still holds everything after the id that was asked for.
    """

    entries: list[tuple[str, bytes]]
    last: str
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class BrokerCallbacks:
    """What a broker calls, in the event loop's thread. No callback blocks, and none raises.

    Calls for one channel come in the order of its offsets.

    Args:
        publication: a publication arrived in a channel that the node is subscribed to: channel, publication,
            epoch. The epoch is empty where the publication is in no history (then its offset is 0).
        join: a client subscribed to such a channel, on any node.
        leave: a client left such a channel, on any node.
        bus: a message of the bus arrived, from any node, this one included: message, and the id of its entry
            in the log; the id is empty for a message that is not in the log.
        caught_up: everything that came together over a connection was delivered. A broker without
            connections, which delivers one by one, never calls it.
        gap: the connection was broken and is whole again, so any channel may have missed publications. Every
            channel is subscribed to again by then: what `positions` says from here on, or what comes later,
            shows what was missed.
        state: the state changed; it begins as `CONNECTED`: state, and the reason for the log, which is empty
            in `CONNECTED`.
        ignored: a message was not readable and is ignored: the reason.
    """

    publication: Callable[[str, Publication, str], None]
    join: Callable[[str, ClientInfo], None]
    leave: Callable[[str, ClientInfo], None]
    bus: Callable[[bytes, str], None]
    caught_up: Callable[[], None]
    gap: Callable[[], None]
    state: Callable[[BrokerState, str], None]
    ignored: Callable[[str], None]


class Broker(Protocol):
    """Messages, history and presence of channels, shared by the nodes.

    Order: what one node publishes to a channel reaches every subscribed node in that order, and where the
    channel keeps history everybody sees the one order of its offsets.

    Atomicity: a publication with a history policy gets its offset, is appended and is sent as one step. An
    offset is given once in an epoch, and grows by one.
    """

    async def start(self, node: str, callbacks: BrokerCallbacks) -> None:
        """Begin to serve a node. Called once before anything else; a broker that was stopped may start again.

        A broker that cannot be reached is no error: the state is `DISCONNECTED`, and it keeps trying.

        Args:
            node: id of the node, under which others send bus messages to it alone.
            callbacks: what to call.

        Raises:
            StartupError: the broker cannot work as it is configured.
        """

    async def stop(self) -> None:
        """End. No callback is called after it returns."""

    def subscribe(self, channel: str) -> Future[None]:
        """Deliver the channel to the callbacks. Once done, every later publication arrives.

        A failure does not end the subscription: the channel is delivered as soon as the connection is whole,
        and `gap` says so, unless `unsubscribe` came first.
        """

    def unsubscribe(self, channel: str) -> Future[None]:
        """Stop delivering the channel."""

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
        """Send a publication to every node that is subscribed to the channel.

        Args:
            history: keep it in the channel's history under this policy; None keeps and numbers nothing.
            idempotency_key: a second publish with the same key to the same channel within five minutes sends
                nothing and gets the first one's position.
            delta: make it a `DeltaPublication`, wherever it arrives or is read.

        Returns:
            Its position; offset 0 and no epoch where it is in no history.
        """

    def publish_join(self, channel: str, info: ClientInfo) -> Future[None]:
        """Tell every node that is subscribed to the channel that a client joined it."""

    def publish_leave(self, channel: str, info: ClientInfo) -> Future[None]:
        """Tell every node that is subscribed to the channel that a client left it."""

    def history(
        self,
        channel: str,
        *,
        since: StreamPosition | None = None,
        limit: int = -1,
        reverse: bool = False,
        bytes_max: int = 0,
    ) -> Future[Stream]:
        """Read a channel's history.

        Args:
            bytes_max: end the read after the publication that brings their payloads to this size; 0 for no
                bound. At least one publication is read.
            since: only what comes after this offset (before it, where `reverse`). The caller compares its
                epoch with the one that comes back.
            limit: publications at the most; 0 for the position alone, -1 for all.
            reverse: from the newest to the oldest.

        Returns:
            The stream. A channel that never had one gets an epoch now, with offset 0.
        """

    def positions(self, channels: Sequence[str], *, renew: bool = False) -> Future[dict[str, StreamPosition]]:
        """The positions of the newest publications of many channels.

        Args:
            renew: keep each position for another `POSITION_TTL_S` at least, because the node follows it.

        Returns:
            By channel. One that has no position is not in it, and does not get one.
        """

    def history_remove(self, channel: str) -> Future[None]:
        """Forget a channel's publications. Its position stays: offsets go on from where they were."""

    def presence_add(self, channel: str, client: str, info: ClientInfo, ttl_s: float) -> Future[None]:
        """Say that a client is in a channel for `ttl_s` seconds. Repeat it before that to keep it there."""

    def presence_remove(self, channel: str, client: str) -> Future[None]:
        """Say that a client is no longer in a channel."""

    def presence(self, channel: str) -> Future[dict[str, ClientInfo]]:
        """Who is in a channel, by client id."""

    def session_resume(
        self, user: str, client: str, owners: Sequence[str], owner: str, ttl_s: float
    ) -> Future[Resumption]:
        """Give a session to another socket, as one step: of many that ask at once, one gets it.

        It is given where the socket that had it last is among `owners`, or where none is remembered.
        Otherwise what is presented was used before, by somebody: the session ends.

        Args:
            user: whose session it is.
            client: id of its client.
            owners: the sockets that whoever asks may have come from.
            owner: the socket that asks.
            ttl_s: how long to remember it.
        """

    def session_leave(
        self, user: str, client: str, owner: str, ttl_s: float, *, before: str = ""
    ) -> Future[bool]:
        """Say that a socket is gone, unless another has its session by now. Returns whether it was its own.

        Args:
            before: the owner before it may come back in its place for `REPEAT_S`; without one, the session
                has lapsed, which the next resumption tells.
        """

    def session_announced(
        self, user: str, client: str, channel: str, *, joined: bool, ttl_s: float
    ) -> Future[None]:
        """Remember that a session's join or leave was announced to a channel, for the next `session_resume`.

        A reconnect token may be older than the last announcements. `session_leave` without `before` forgets
        them, since it ends with a leave in every channel.

        Args:
            joined: whether it was a join.
            ttl_s: how long to remember the session.
        """

    def session_revoke(self, user: str, client: str, ttl_s: float) -> Future[None]:
        """Let a session not be resumed for `ttl_s` seconds. An empty `client` means all of the user's."""

    def flush(self) -> None:
        """Let what was asked for leave: nothing more is asked together with it.

        It leaves by itself at the end of the event loop's turn, which on a busy node is milliseconds away.
        """

    def send_bus(self, message: bytes, node: str = "") -> Future[int]:
        """Send a message to every node, this one included, or to one. From one node they come in order.

        The message is not kept: a node whose connection is broken misses it.

        Args:
            node: its id; nobody is asked whether it is there.

        Returns:
            How many nodes it went to.
        """

    def append_bus(self, message: bytes) -> Future[str]:
        """Append a message to the log of the bus and send it to every node, in one step.

        The log keeps the newest `BUS_LOG_MAX` messages.

        Returns:
            The id of its entry. Ids grow with the order of the log.
        """

    def read_bus(self, after: str, limit: int) -> Future[BusLog]:
        """Read the log of the bus.

        Args:
            after: id of the entry before the first one to read; empty to read from the oldest.
            limit: entries at the most; 0 for the id of the newest alone.
        """
