"""What a session decides. The node carries effects out in their order.

An operation has an outcome: the node hands it back with `Session.resume`. An outcome is what the operation's
docstring says, or an `Error` to answer with.

None is changed once it was made. They are not frozen, since that makes each cost three times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hub.core.channel.subscription import Subscription
from hub.core.hooks import Event
from hub.protocol.codes import Disconnect
from hub.protocol.messages import ClientInfo, Payload, Reply, StreamPosition


@dataclass(slots=True)
class Send:
    """Send a reply or a push to the client."""

    reply: Reply


@dataclass(slots=True)
class Close:
    """End the connection and say why. It is the last effect of a session."""

    disconnect: Disconnect


@dataclass(slots=True)
class Authenticated:
    """The client is connected as this user: it counts, and can be found by it."""

    user: str


@dataclass(slots=True)
class Reconnected:
    """A client came with a reconnect token, and this came of it.

    Args:
        outcome: `resumed`; `repeated`, where the answer to its first use had not been heard; `unchecked`,
            where the broker could not say whether it was used before; or why it was refused: `expired`,
            `invalid`, `reused`, `revoked`.
        client: id of the session's client; empty where the token is not to be believed.
        reason: for the log.
    """

    outcome: str
    client: str = ""
    reason: str = ""


@dataclass(slots=True)
class Joined:
    """The subscription stands: deliver the channel from now on, what was held back since it opened first.

    Of one that `is_backlogged`, what it missed beyond its `offset` comes before all that.
    """

    subscription: Subscription


@dataclass(slots=True)
class Left:
    """The subscription is over: deliver nothing more of the channel."""

    subscription: Subscription


@dataclass(slots=True)
class Lapsed:
    """The client, back by a token, is not in a channel any more in which the others believe it to be."""

    subscription: Subscription


@dataclass(slots=True)
class Abandon:
    """A channel that was opened, or could not be, is not joined after all."""

    channel: str


@dataclass(slots=True)
class Verify:
    """Check a token. Outcome: its claims, `Invalid` or `Expired`."""

    token: str
    kind: Literal["connection", "subscription"]


@dataclass(slots=True)
class Enter:
    """Wait until it is this client's turn to be let in. Outcome: None, or a `Disconnect`."""


@dataclass(slots=True)
class Admit:
    """Ask whether the node lets one more connection of a user in. Outcome: None, or a `Disconnect`.

    Args:
        user: whose it is.
        client: id of the client that is back, where one is: the connection takes the place of the one it had.
    """

    user: str
    client: str = ""


@dataclass(slots=True)
class Resume:
    """Ask whether a session is this socket's from now on. Outcome: a `Resumption`.

    Args:
        user: whose session it is.
        client: id of the session's client.
        owners: the sockets of which one must be the last that had it.
        owner: the new one.
    """

    user: str
    client: str
    owners: tuple[str, ...]
    owner: str


@dataclass(slots=True)
class Ask:
    """Ask the app. Outcome: what its handler answered."""

    event: Event


@dataclass(slots=True)
class Open:
    """Listen to a channel, hold back what arrives for this session, then read its history. Outcome: `Opened`.

    `Joined` or `Abandon` follows every outcome, unless the session ends.

    Args:
        channel: its name.
        stream: whether the position matters; a channel without history has none.
        since: recover from here.
    """

    channel: str
    stream: bool = False
    since: StreamPosition | None = None


@dataclass(slots=True)
class OpenAll:
    """Several channels at once. Outcome: a list, an outcome for each."""

    opens: tuple[Open, ...]


@dataclass(slots=True)
class Publish:
    """Publish to a channel. Outcome: its `StreamPosition`."""

    channel: str
    data: Payload
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    skip_history: bool = False


@dataclass(slots=True)
class ReadHistory:
    """Read a channel's history. Outcome: the stream, with `publications` and the position of its `top`."""

    channel: str
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


@dataclass(slots=True)
class ReadPresence:
    """Read who is in a channel. Outcome: a map of client id to `ClientInfo`."""

    channel: str


Operation: TypeAlias = (
    Verify | Enter | Admit | Resume | Ask | Open | OpenAll | Publish | ReadHistory | ReadPresence
)


@dataclass(slots=True)
class Run:
    """Carry out an operation, and give its outcome back under this ticket."""

    operation: Operation
    ticket: int = field(compare=False)


Effect: TypeAlias = Send | Close | Authenticated | Reconnected | Joined | Left | Lapsed | Abandon | Run
