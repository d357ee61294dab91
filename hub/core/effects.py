"""What a session decides, as values. The node carries the effects out in the order of the list.

An `Operation` has an outcome, which the node gives back with `Session.resume`. The docstring of an operation
says what its outcome is. In place of it the node may give an `Error`, which the session answers with.

Effects are not changed after they are made. They are not frozen, because a frozen dataclass costs three times
as much to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hub.core.channel.subscription import Subscription
from hub.core.hooks import Event
from hub.protocol.codes import Cause, Disconnect
from hub.protocol.messages import ClientInfo, Payload, Reply, StreamPosition


@dataclass(slots=True)
class Send:
    """Send a reply or a push to the client."""

    reply: Reply


@dataclass(slots=True)
class Close:
    """Close the connection and tell the client why. It is the last effect of a session."""

    disconnect: Disconnect


@dataclass(slots=True)
class Refused:
    """The client was refused: count and log why. The answer to the client is an effect of its own.

    Args:
        code: of the error or the disconnect.
        cause: why.
    """

    code: int
    cause: Cause


@dataclass(slots=True)
class Authenticated:
    """The client is connected as this user: register it under its client id and its user."""

    user: str


@dataclass(slots=True)
class Reconnected:
    """A client presented a reconnect token.

    Args:
        outcome: `resumed`: the session goes on. `repeated`: it goes on, and the reply to the token's first
            use did not reach the client. `unchecked`: it goes on, and the broker could not say whether the
            token was used before. The others are refusals: `expired`, `invalid`, `reused`, `revoked`.
        client: id of the session's client; empty for a token that is not authentic.
        reason: for the log.
    """

    outcome: str
    client: str = ""
    reason: str = ""


@dataclass(slots=True)
class SubscriptionStarted:
    """A subscription began: deliver the publications that wait since `OpenChannel`, then the channel live.

    For a subscription that `is_backlogged`, first send the publications after its `offset` from the history.
    """

    subscription: Subscription


@dataclass(slots=True)
class SubscriptionEnded:
    """A subscription ended: deliver nothing more of the channel to this client."""

    subscription: Subscription


@dataclass(slots=True)
class AnnounceLeave:
    """A client that resumed its session did not restore this subscription: tell the channel that it left."""

    subscription: Subscription


@dataclass(slots=True)
class CancelSubscribe:
    """Release a channel after an `OpenChannel` that leads to no subscription."""

    channel: str


@dataclass(slots=True)
class Verify:
    """Verify a token. Outcome: its claims, `Invalid`, `Expired`, or an `Error` if no keys are available."""

    token: str
    kind: Literal["connection", "subscription"]


@dataclass(slots=True)
class WaitForTurn:
    """Wait in the admission queue. Outcome: None, or a `Disconnect` where the node refuses the client."""


@dataclass(slots=True)
class Admit:
    """Ask whether the node accepts one more connection of a user. Outcome: None, or a `Disconnect`.

    Args:
        user: the user.
        client: id of the client whose connection this one replaces; empty for a new client.
    """

    user: str
    client: str = ""


@dataclass(slots=True)
class ResumeSession:
    """Make this socket the owner of a session. Outcome: a `Resumption`.

    Args:
        user: the session's user.
        client: id of the session's client.
        owners: sockets that the reconnect token names; the present owner must be one of them.
        owner: this socket.
    """

    user: str
    client: str
    owners: tuple[str, ...]
    owner: str


@dataclass(slots=True)
class CallHandler:
    """Call the app's handler of an event. Outcome: what the handler answered."""

    event: Event


@dataclass(slots=True)
class OpenChannel:
    """Receive a channel, keep its publications for this session, and find its position. Outcome: `Opened`.

    `SubscriptionStarted` or `CancelSubscribe` follows every outcome, unless the session ends.

    Args:
        channel: name of the channel.
        stream: whether the subscription has a position in the channel's stream.
        since: position to recover from; None without recovery.
    """

    channel: str
    stream: bool = False
    since: StreamPosition | None = None


@dataclass(slots=True)
class OpenChannels:
    """Open several channels at once. Outcome: a list with the outcome of each."""

    opens: tuple[OpenChannel, ...]


@dataclass(slots=True)
class Publish:
    """Publish to a channel. Outcome: the `StreamPosition` of the publication."""

    channel: str
    data: Payload
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    skip_history: bool = False
    idempotency_key: str = ""


@dataclass(slots=True)
class ReadHistory:
    """Read a channel's history. Outcome: an object with `publications` and `top`, the newest position.

    Args:
        channel: name of the channel.
        limit: publications at the most; 0 reads the position alone.
        since: read after this position (before it, if `reverse`); None reads from the start (the end).
        reverse: from the newest to the oldest.
        bytes_max: stop after the publication that brings the payloads to this size.
    """

    channel: str
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False
    bytes_max: int = 0


@dataclass(slots=True)
class ReadPresence:
    """Read which clients are present in a channel. Outcome: a map of client id to `ClientInfo`."""

    channel: str


Operation: TypeAlias = (
    Verify
    | WaitForTurn
    | Admit
    | ResumeSession
    | CallHandler
    | OpenChannel
    | OpenChannels
    | Publish
    | ReadHistory
    | ReadPresence
)


@dataclass(slots=True)
class Run:
    """Carry out an operation, and give its outcome back with this ticket."""

    operation: Operation
    ticket: int = field(compare=False)


Effect: TypeAlias = (
    Send
    | Close
    | Refused
    | Authenticated
    | Reconnected
    | SubscriptionStarted
    | SubscriptionEnded
    | AnnounceLeave
    | CancelSubscribe
    | Run
)
