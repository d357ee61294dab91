"""What a broker promises to a node. Every broker passes one contract suite; `memory` is the reference.

Calls return futures, not coroutines: a result that is known at once (always, in memory) costs no task, and a
caller adds a callback or awaits. A future fails with `BrokerError` if the broker could not do the call, and
the same call may succeed later; a caller need not look at the failure. Arguments are valid: the names of
channels and the payloads were checked before.
"""

from __future__ import annotations

import enum
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from hub.protocol.messages import ClientInfo, Payload, Publication, StreamPosition
from hub.telemetry import get_logger

POSITION_TTL_S: Final = 86_400
"""A channel's position is kept this long after its last publication, or as long as its history if that is
longer. After that the channel begins again, with another epoch."""

BUS_LOG_MAX: Final = 10_000
"""Messages that the log of the bus keeps."""

ANNOUNCED_MAX: Final = 1_024
"""Channels whose last announcement is remembered for one session; those of further channels are not."""

REPEAT_S: Final = 5.0
"""Seconds in which a client may come back with the token of the socket before, because its newest socket
ended without a word from the client."""

_log = get_logger("hub.broker")


class BrokerState(enum.Enum):
    """Whether a broker does what a node needs."""

    CONNECTED = "connected"
    """The broker answers, and what this node publishes comes back to it."""
    REFUSING = "refusing"
    """The broker answers, but refuses writes or subscriptions, as when its memory is full, or has not taken
    every subscription again since its connection broke."""
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
        verdict: `resumed`: the socket has the session now. `repeated`: the same, and the socket that had it
            last, from which nothing was heard, has lost it. `reused`: another socket has the session, so the
            session ends. `revoked`: the session was ended before.
        lapsed: whether the last socket that had the session has left its channels since.
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
        is_complete: whether the log holds everything that was appended after the id that was asked for. It
            does not if older entries were trimmed, or if the server lost them.
        is_lost: whether the entry that was asked for is not in the log although nothing as new was trimmed:
            the server lost a part of the log, or all of it.
    """

    entries: list[tuple[str, bytes]]
    last: str
    is_complete: bool = True
    is_lost: bool = False


def _log_failed(place: str, error: BaseException) -> None:
    _log.error("broker.failed", reason=place, exc_info=error)


@dataclass(frozen=True, slots=True)
class BrokerCallbacks:
    """What a broker calls, in the event loop's thread. No callback blocks, and none raises.

    Calls for one channel come in the order of its offsets.

    Args:
        publication: a publication arrived in a channel that the node is subscribed to: channel, publication,
            epoch. The epoch is empty where the publication is in no history (then its offset is 0).
        join: a client subscribed to such a channel, on any node.
        leave: a client left such a channel, on any node.
        bus: a message of the bus arrived, from any node, this one included: message, the id of its entry in
            the log, and the id of the entry before it. Both are empty for a message that is not in the log.
        caught_up: everything that came together over a connection was delivered. A broker without
            connections, which delivers one by one, never calls it.
        gap: the connection was broken and is whole again, so any channel may have missed publications. Every
            channel is subscribed to again by then: what `positions` says from here on, or what comes later,
            shows what was missed.
        state: the state changed; it begins as `CONNECTED`: state, and the reason for the log, which is empty
            in `CONNECTED`.
        ignored: a message, or an entry that was read, was not readable and is left out: the reason.
        failed: something of the broker raised and was contained: where, in a word or two, and what.
    """

    publication: Callable[[str, Publication, str], None]
    join: Callable[[str, ClientInfo], None]
    leave: Callable[[str, ClientInfo], None]
    bus: Callable[[bytes, str, str], None]
    caught_up: Callable[[], None]
    gap: Callable[[], None]
    state: Callable[[BrokerState, str], None]
    ignored: Callable[[str], None]
    failed: Callable[[str, BaseException], None] = _log_failed


class Broker(Protocol):
    """Messages, history and presence of channels, shared by the nodes.

    Order: the publications of one node to a channel reach every subscribed node in the order in which they
        were
    made. If the channel keeps history, every node sees the same order, that of the offsets.

    Atomicity: a publication with a history policy gets its offset, is appended and is sent as one step. An
    offset is given once in an epoch, and grows by one.
    """

    async def start(self, node: str, callbacks: BrokerCallbacks) -> None:
        """Begin to serve a node. Called once before anything else; a broker that was stopped may start again.

        A broker that cannot be reached is no error: the state is `DISCONNECTED`, and the broker keeps
        trying. A start that fails or is cancelled ends everything that it began.

        Args:
            node: id of the node, under which others send bus messages to it alone.
            callbacks: what to call.

        Raises:
            StartupError: the broker cannot work as it is configured.
        """

    async def stop(self) -> None:
        """End. No callback is called after this returns. It may be called at any time, and more than once."""

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
            bytes_max: end the read after the publication that brings them to this size; 0 for no bound. At
                least one publication is read. The size is that of the payloads, and of what the broker keeps
                with them.
            since: only what comes after this offset (before it, where `reverse`). The caller compares its
                epoch with the one that comes back.
            limit: publications at the most; 0 for the position alone, -1 for all.
            reverse: from the newest to the oldest.

        Returns:
            The stream. A channel that has no position gets an epoch, with offset 0.
        """

    def positions(self, channels: Sequence[str], *, renew: bool = False) -> Future[dict[str, StreamPosition]]:
        """The positions of the newest publications of many channels.

        Args:
            renew: keep each position for another `POSITION_TTL_S` at least, because the node follows it.

        Returns:
            Positions by channel. A channel that has no position is left out, and does not get one.
        """

    def history_remove(self, channel: str) -> Future[None]:
        """Forget a channel's publications. Its position stays: offsets go on from where they were."""

    def presence_add(self, channel: str, client: str, info: ClientInfo, ttl_s: float) -> Future[None]:
        """Record that a client is in a channel for `ttl_s` seconds. Call it again before that to keep the
        client."""

    def presence_remove(self, channel: str, client: str) -> Future[None]:
        """Record that a client is no longer in a channel."""

    def presence(self, channel: str) -> Future[dict[str, ClientInfo]]:
        """The clients in a channel, by client id. A client that cannot be read is left out."""

    def session_resume(
        self, user: str, client: str, owners: Sequence[str], owner: str, ttl_s: float
    ) -> Future[Resumption]:
        """Give a session to another socket, as one step: of many sockets that ask at once, one gets it.

        The socket gets the session if the socket that had it last is among `owners`, or if none is
        remembered. Otherwise the token was used before, by this client or by a thief, and the session ends.

        Args:
            user: the user of the session.
            client: id of its client.
            owners: the sockets that the client may have had before, by its token.
            owner: the socket that asks.
            ttl_s: seconds for which the session is remembered.
        """

    def session_leave(
        self, user: str, client: str, owner: str, ttl_s: float, *, before: str = ""
    ) -> Future[bool]:
        """Record that a socket is gone. Returns whether it still had its session.

        Args:
            before: the socket that had the session before, which may have it back within `REPEAT_S`; if
                empty, the session has lapsed, which the next resumption tells.
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
        """Refuse to resume a session for `ttl_s` seconds. An empty `client` means every session of the
        user."""

    def flush(self) -> None:
        """Send the calls that were made.

        They are sent at the end of the event loop's turn anyway, which on a busy node is milliseconds away.
        """

    def send_bus(self, message: bytes, node: str = "") -> Future[int]:
        """Send a message to every node, this one included, or to one. Messages of one node arrive in order.

        The message is not kept: a node whose connection is broken misses it.

        Args:
            node: id of the node; it need not be there.

        Returns:
            How many nodes the message was sent to.
        """

    def append_bus(self, message: bytes) -> Future[str]:
        """Append a message to the log of the bus and send it to every node, in one step.

        The log keeps the newest `BUS_LOG_MAX` messages. If the connection breaks the broker repeats the
        call, and the message is appended and sent once.

        Returns:
            The id of its entry. Ids grow with the order of the log.
        """

    def read_bus(self, after: str, limit: int) -> Future[BusLog]:
        """Read the log of the bus.

        Args:
            after: id of the entry before the first one to read; empty to read from the oldest.
            limit: entries at the most; 0 for the id of the newest alone.
        """
