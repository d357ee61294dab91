"""The kit for an app's own tests: its hub in the process of the test, without sockets and without Redis.

    async with TestHub(app) as hub:
        ann = await hub.connect(user="ann")
        await ann.subscribe("orders:1")
        ...  # the app publishes
        assert (await ann.next()).data == {"status": "paid"}

The node, its sessions, the codecs, the handshake and the client's state machine are those of production.
Three things are the test's: the WebSocket is in memory, a `MemoryBroker` stands in for Redis, and time stands
still until `advance`. `SyncTestHub` is the same for tests without `async`, beside Starlette's `TestClient`.
Nothing here needs pytest; where pytest is installed, it finds the fixtures of `pytest_hub` by itself.
"""

from hub.client.values import (
    ClientInfo,
    Disconnected,
    Joined,
    Left,
    Message,
    Publication,
    Published,
    Subscribed,
    Subscribing,
    Unsubscribed,
)
from hub.testing.client import HubClient
from hub.testing.errors import ClientError, LeakedTasksError, NextTimeoutError
from hub.testing.hub import TestHub
from hub.testing.sync import SyncHubClient, SyncTestHub

__all__ = [
    "ClientError",
    "ClientInfo",
    "Disconnected",
    "HubClient",
    "Joined",
    "LeakedTasksError",
    "Left",
    "Message",
    "NextTimeoutError",
    "Publication",
    "Published",
    "Subscribed",
    "Subscribing",
    "SyncHubClient",
    "SyncTestHub",
    "TestHub",
    "Unsubscribed",
]
