"""A client of a hub for asyncio: `async with Client("https://hub.example") as client`."""

from hub.client.client import Client, Subscription
from hub.client.errors import (
    ClientDisconnectedError,
    DuplicateSubscriptionError,
    MessageTooLargeError,
    OperationTimeoutError,
    QueueFullError,
    ReplyError,
    SubscriptionUnsubscribedError,
    TransportClosedError,
    UnauthorizedError,
)
from hub.client.state import ClientState
from hub.client.subscription import SubscriptionState
from hub.client.values import (
    ClientInfo,
    Connected,
    Connecting,
    Disconnected,
    Error,
    HistoryResult,
    Joined,
    Left,
    Message,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    Published,
    RPCResult,
    Subscribed,
    Subscribing,
    Unsubscribed,
)
from hub.errors import RequestError
from hub.protocol.messages import FilterNode, StreamPosition

__all__ = [
    "Client",
    "ClientDisconnectedError",
    "ClientInfo",
    "ClientState",
    "Connected",
    "Connecting",
    "Disconnected",
    "DuplicateSubscriptionError",
    "Error",
    "FilterNode",
    "HistoryResult",
    "Joined",
    "Left",
    "Message",
    "MessageTooLargeError",
    "OperationTimeoutError",
    "PresenceResult",
    "PresenceStatsResult",
    "Publication",
    "Published",
    "QueueFullError",
    "RPCResult",
    "ReplyError",
    "RequestError",
    "StreamPosition",
    "Subscribed",
    "Subscribing",
    "Subscription",
    "SubscriptionState",
    "SubscriptionUnsubscribedError",
    "TransportClosedError",
    "UnauthorizedError",
    "Unsubscribed",
]
