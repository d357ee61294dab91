"""A real-time hub that lives inside a Python app and speaks the Centrifuge client protocol."""

from hub.app import Hub, create_app
from hub.client.async_publisher import AsyncPublisher
from hub.client.publisher import Publisher
from hub.core.hooks import (
    ConnectEvent,
    ConnectReply,
    DisconnectEvent,
    MessageEvent,
    PublishEvent,
    PublishReply,
    Refusal,
    RPCEvent,
    RPCReply,
    SubscribeEvent,
    SubscribeReply,
)
from hub.errors import (
    BroadcastError,
    BrokerError,
    EventLoopError,
    HubError,
    NotStartedError,
    RequestError,
    SettingsError,
    SetupError,
    StartupError,
    UnconfirmedError,
)
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors
from hub.settings import Settings

__all__ = [
    "AsyncPublisher",
    "BroadcastError",
    "BrokerError",
    "ConnectEvent",
    "ConnectReply",
    "Disconnect",
    "DisconnectEvent",
    "Disconnects",
    "Error",
    "Errors",
    "EventLoopError",
    "Hub",
    "HubError",
    "MessageEvent",
    "NotStartedError",
    "PublishEvent",
    "PublishReply",
    "Publisher",
    "RPCEvent",
    "RPCReply",
    "Refusal",
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
