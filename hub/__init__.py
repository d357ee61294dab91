"""A real-time hub that lives inside a Python app and speaks the Centrifuge client protocol."""

from hub.app import Hub, create_app
from hub.client.async_publisher import AsyncPublisher
from hub.client.publisher import Publisher
from hub.core.hooks import (
    ClientEvent,
    ConnectEvent,
    ConnectReply,
    DisconnectEvent,
    MessageEvent,
    PublishedEvent,
    PublishEvent,
    PublishReply,
    Refusal,
    RefusalError,
    RPCEvent,
    RPCReply,
    SubscribeEvent,
    SubscribeReply,
)
from hub.errors import (
    BroadcastError,
    BrokerError,
    EventLoopError,
    HandlerError,
    HubError,
    NotStartedError,
    RequestError,
    SettingsError,
    SetupError,
    StartupError,
    UnconfirmedError,
)
from hub.handlers.depends import Depends
from hub.handlers.router import HubRouter
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors
from hub.settings import Settings

__all__ = [
    "AsyncPublisher",
    "BroadcastError",
    "BrokerError",
    "ClientEvent",
    "ConnectEvent",
    "ConnectReply",
    "Depends",
    "Disconnect",
    "DisconnectEvent",
    "Disconnects",
    "Error",
    "Errors",
    "EventLoopError",
    "HandlerError",
    "Hub",
    "HubError",
    "HubRouter",
    "MessageEvent",
    "NotStartedError",
    "PublishEvent",
    "PublishReply",
    "PublishedEvent",
    "Publisher",
    "RPCEvent",
    "RPCReply",
    "Refusal",
    "RefusalError",
    "RequestError",
    "Settings",
    "SettingsError",
    "SetupError",
    "StartupError",
    "SubscribeEvent",
    "SubscribeReply",
    "UnconfirmedError",
    "create_app",
]
