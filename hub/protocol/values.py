"""What calls return to an app: publications, clients and counts, with payloads as Python values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Who published, joined, left or is present.

    Args:
        user: id of the user.
        client: id of the connection.
        conn_info: what its token or the app says of the connection.
        chan_info: what they say of it in this channel.
    """

    user: str
    client: str
    conn_info: Any = None
    chan_info: Any = None


@dataclass(frozen=True, slots=True)
class Publication:
    """One message of a channel.

    Args:
        data: the payload.
        offset: its place in the channel's history, from 1; 0 where it has none.
        info: the client that published, where one did.
        tags: by name.
        time: when the hub took it, in Unix milliseconds; 0 where it does not say.
    """

    data: Any
    offset: int = 0
    info: ClientInfo | None = None
    tags: dict[str, str] = field(default_factory=dict)
    time: int = 0


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """A channel's history, in order, and where the channel is now."""

    publications: list[Publication]
    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class PresenceStatsResult:
    """How many are in a channel."""

    num_clients: int
    num_users: int
