"""What a client's machine decides. Whoever drives it carries effects out in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from hub.client.values import Event
from hub.errors import RequestError


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """OpenSocket a socket. Answer with `opened`, `refused` or `lost`, and this link's number.

    Args:
        link: numbers the sockets; what is said of an earlier one is not heard.
    """

    link: int


@dataclass(frozen=True, slots=True)
class Write:
    """Send one WebSocket message over the open socket: text or binary, as the codec's `binary` says."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Leave the socket, open or still opening, and wait for nothing: a peer that is gone never answers."""


@dataclass(frozen=True, slots=True)
class GetToken:
    """Ask the app for a token. Answer with `token_fetched` and this ticket.

    Args:
        ticket: numbers the questions.
        channel: the token's, empty for the connection's.
    """

    ticket: int
    channel: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the app of an event.

    Args:
        event: what happened.
        subscription: the channel of the subscription whose event it is, None for the client's own.
    """

    event: Event
    subscription: str | None


@dataclass(frozen=True, slots=True)
class Settle:
    """A call has its outcome.

    Args:
        key: what `call` was given.
        outcome: the reply's result as `protocol.messages` types it, None for a `send`, or why there is none.
    """

    key: Any
    outcome: Any | RequestError


Effect: TypeAlias = OpenSocket | Write | CloseSocket | GetToken | Emit | Settle
