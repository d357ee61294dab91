"""What a client hands to its app: events and results, with payloads as Python values.

The names are those of the official SDKs, whose contexts these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from hub.client.codec import ClientCodec
from hub.protocol import messages as m
from hub.protocol.messages import StreamPosition
from hub.protocol.values import ClientInfo as ClientInfo
from hub.protocol.values import HistoryResult as HistoryResult
from hub.protocol.values import PresenceStatsResult as PresenceStatsResult
from hub.protocol.values import Publication as Publication

# Events of the connection


@dataclass(frozen=True, slots=True)
class Connecting:
    """The client is about to try.

    Args:
        code: why: 0 `connect` was called, 1 the transport closed, 2 no ping came, 3 a subscribe and 4 an
            unsubscribe was not answered; from 3000 the hub's disconnect.
        reason: the same in words.
        attempt: which try it is; 0 is the one that `connect` begins.
        delay_s: seconds until then.
    """

    code: int
    reason: str
    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection stands.

    Args:
        client: id of the connection.
        data: what the app or the hub sent along.
        node: id of the hub's node.
        version: of the hub.
    """

    client: str
    data: Any
    node: str
    version: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The client stopped. Only `connect` brings it back.

    Args:
        code: why: 0 `disconnect` was called, 1 it gets no token, 2 the peer is no hub, 3 a message was too
            large; from 100 the error that refused the connect, from 3000 the hub's disconnect.
        reason: the same in words.
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """What the server sent to this client alone."""

    data: Any


@dataclass(frozen=True, slots=True)
class Error:
    """Something failed: for a log. The client goes on, unless `Disconnected` or `Unsubscribed` follows.

    Args:
        code: what failed: 2 the transport, 5 getting and 6 renewing the connection's token, 8 and 9 that of
            a subscription, 13 the connect, 14 a subscribe.
        error: what it failed with: of a refusal a `RequestError`, with the hub's code and sentence.
        channel: the subscription's, empty for the connection's.
        answer: what came back, in words; empty where nothing was asked of the hub.
        url: the address that was tried.
        transport: the transport that was tried.
    """

    code: int
    error: Exception
    channel: str = ""
    answer: str = ""
    url: str = ""
    transport: str = ""


# Events of subscriptions, client-side and server-side


@dataclass(frozen=True, slots=True)
class Subscribing:
    """The subscription is about to be made.

    Args:
        channel: its name.
        code: why: 0 `subscribe` was called, 1 the transport closed; from 2500 the hub's unsubscribe, from
            3000 its disconnect.
        reason: the same in words.
    """

    channel: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The subscription stands. What it recovered follows as publications.

    Args:
        channel: its name.
        recoverable: whether the hub can recover it.
        positioned: whether the hub watches its position.
        stream_position: where it begins, where it has one.
        was_recovering: whether it came back to what it had.
        recovered: whether nothing is missing. Where only `was_recovering` is true, load the state anew.
        data: what the app sent along.
    """

    channel: str
    recoverable: bool
    positioned: bool
    stream_position: StreamPosition | None
    was_recovering: bool
    recovered: bool
    data: Any


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The subscription is over.

    Args:
        channel: its name.
        code: why: 0 `unsubscribe` was called, 1 it gets no token; from 100 the error that refused it, from
            2000 the hub's unsubscribe.
        reason: the same in words.
    """

    channel: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """A publication came."""

    channel: str
    pub: Publication

    @property
    def data(self) -> Any:
        """The payload of the publication."""
        return self.pub.data


@dataclass(frozen=True, slots=True)
class Joined:
    """A client joined the channel."""

    channel: str
    info: ClientInfo


@dataclass(frozen=True, slots=True)
class Left:
    """A client left the channel."""

    channel: str
    info: ClientInfo


Event: TypeAlias = (
    Connecting
    | Connected
    | Disconnected
    | Message
    | Error
    | Subscribing
    | Subscribed
    | Unsubscribed
    | Published
    | Joined
    | Left
)


# Results of calls


@dataclass(frozen=True, slots=True)
class PresenceResult:
    """Who is in a channel, by id of the connection."""

    clients: dict[str, ClientInfo]


@dataclass(frozen=True, slots=True)
class RPCResult:
    """What the app answered."""

    data: Any


# From the messages of the protocol. Each raises `ValueError` for a payload that the codec cannot read.


def client_info(codec: ClientCodec, info: m.ClientInfo) -> ClientInfo:
    return ClientInfo(info.user, info.client, codec.value(info.conn_info), codec.value(info.chan_info))


def publication(codec: ClientCodec, pub: m.Publication) -> Publication:
    return publication_of(codec, pub, codec.value(pub.data))


def publication_of(codec: ClientCodec, pub: m.Publication, data: Any) -> Publication:
    info = client_info(codec, pub.info) if pub.info else None
    return Publication(data, pub.offset, info, pub.tags or {}, pub.time)


def history(codec: ClientCodec, result: m.HistoryResult) -> HistoryResult:
    publications = [publication(codec, pub) for pub in result.publications]
    return HistoryResult(publications, result.offset, result.epoch)


def presence(codec: ClientCodec, result: m.PresenceResult) -> PresenceResult:
    return PresenceResult({client: client_info(codec, info) for client, info in result.presence.items()})


def presence_stats(result: m.PresenceStatsResult) -> PresenceStatsResult:
    return PresenceStatsResult(result.num_clients, result.num_users)


def subscribed(codec: ClientCodec, channel: str, result: m.SubscribeResult | m.SubscribePush) -> Subscribed:
    position = None
    if result.recoverable or result.positioned:
        position = StreamPosition(result.offset, result.epoch)
    was_recovering = recovered = False
    if isinstance(result, m.SubscribeResult):
        was_recovering, recovered = result.was_recovering, result.recovered
    return Subscribed(
        channel,
        result.recoverable,
        result.positioned,
        position,
        was_recovering,
        recovered,
        codec.value(result.data),
    )
