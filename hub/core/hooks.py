"""Events of a client that an app handles, and the replies of its handlers.

A handler returns the reply type of its event to accept, an `Error` or a `Disconnect` to refuse, or None to
leave the decision to the settings.

A reply encodes its `data` and `info` as JSON at once, so that a value that JSON cannot represent raises
TypeError in the handler that made it.

All events of a connection have the same `state`, in which the app keeps what it knows of the connection. An
event may name the type of its state: `SubscribeEvent[Cart]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias

from typing_extensions import TypeVar

from hub.errors import HubError
from hub.protocol.codes import Disconnect, Error
from hub.protocol.messages import checked_tags, payload
from hub.protocol.payloads import octets

STATE_BYTES_MAX: Final = 4096
"""Longest state of a connection, as JSON. The reconnect token, which clients store, carries the state."""

StateT = TypeVar("StateT", default=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ClientEvent(Generic[StateT]):
    """The client of an event.

    Args:
        client: id of the client, unique over all nodes.
        user: the authenticated user; empty for an anonymous client.
        state: what the app keeps of the connection: a dict that handlers fill, or the state that
            `ConnectReply` sets. The client cannot read the state, and brings it back with a reconnect token.
    """

    client: str
    user: str
    state: StateT = field(default_factory=dict, kw_only=True, compare=False, repr=False)  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class ConnectEvent(ClientEvent[StateT]):
    """A client asks to connect. If it sent a token, the token is valid and `user` comes from it.

    Args:
        data: the data of the connect command, parsed; None if there was none.
        name: the name of the client's SDK.
        version: the version of the client.
        headers: the HTTP headers of the handshake, names in lower case.
        has_token: whether the client was authenticated by a token.
    """

    data: Any = None
    name: str = ""
    version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    has_token: bool = False


@dataclass(frozen=True, slots=True)
class SubscribeReply:
    """Accept a subscription, regardless of the channel's options.

    Args:
        info: shown with the client in presence, joins, leaves and its publications in this channel.
        data: sent to the client with the result.
        ttl_s: seconds until the subscription must be refreshed; None for no end.
        presence, join_leave, force_push_join_leave, force_recovery, force_positioning: replace the channel's
            option of that name for this subscription; None leaves it.
    """

    info: Any = None
    data: Any = None
    ttl_s: float | None = None
    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None

    def __post_init__(self) -> None:
        _encode(self, "info", "data")
        _check_ttl(self.ttl_s)


@dataclass(frozen=True, slots=True)
class ConnectReply:
    """Accept a connection.

    Args:
        user: the client's user; None keeps the user of the token, or an anonymous user.
        info: shown with the client in presence, joins, leaves and publications; None keeps the token's.
        data: sent to the client with the result.
        channels: server-side subscriptions to make, each with its options.
        ttl_s: seconds until the connection must be refreshed; None keeps the token's end.
        state: what the events of the connection have as their `state` from now on, which JSON can represent
            in `STATE_BYTES_MAX`; None keeps the state of the event.
    """

    user: str | None = None
    info: Any = None
    data: Any = None
    channels: Mapping[str, SubscribeReply] = field(default_factory=dict)
    ttl_s: float | None = None
    state: Any = None

    def __post_init__(self) -> None:
        _encode(self, "info", "data")
        _check_ttl(self.ttl_s)
        if not isinstance(self.user, str | None):
            raise TypeError(f"user must be a string, got {self.user!r}: try str()")
        if self.user is not None:
            self.user.encode()  # a lone surrogate raises here, and not where the user is shown to others


@dataclass(frozen=True, slots=True)
class SubscribeEvent(ClientEvent[StateT]):
    """A client asks to subscribe to a channel with a valid name and a configured namespace.

    Args:
        channel: name of the channel.
        data: the data of the subscribe command, parsed.
        has_token: whether the client sent a valid subscription token.
    """

    channel: str
    data: Any = None
    has_token: bool = False


@dataclass(frozen=True, slots=True)
class PublishEvent(ClientEvent[StateT]):
    """A client asks to publish.

    Args:
        channel: name of the channel.
        data: the payload, parsed.
        idempotency_key: of the client's choice, the same when the client repeats a publish whose answer was
            lost. The hub publishes it once, but asks the app each time. Empty if the client sent none.
    """

    channel: str
    data: Any
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class PublishReply:
    """Accept a publication, regardless of the channel's options.

    Args:
        data: published in place of the client's payload; None keeps it, byte for byte.
        tags: sent with the publication.
        skip_history: keep it out of the channel's history.
    """

    data: Any = None
    tags: Mapping[str, str] | None = None
    skip_history: bool = False

    def __post_init__(self) -> None:
        _encode(self, "data")
        if self.tags is not None:
            checked_tags(self.tags)


@dataclass(frozen=True, slots=True)
class PublishedEvent(ClientEvent[StateT]):
    """A client's publication was made. There is nothing to answer.

    Args:
        channel: name of the channel.
        data: the payload that was published, parsed.
        offset: of the publication in the channel's stream; 0 where the channel keeps no history.
        epoch: of the stream.
        tags: of the publication.
    """

    channel: str
    data: Any
    offset: int
    epoch: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RPCEvent(ClientEvent[StateT]):
    """A client calls a method of the app.

    Args:
        method: name of the method.
        data: the argument, parsed.
    """

    method: str
    data: Any


@dataclass(frozen=True, slots=True)
class RPCReply:
    """The result of a call.

    Args:
        data: any JSON value.
    """

    data: Any = None

    def __post_init__(self) -> None:
        _encode(self, "data")


@dataclass(frozen=True, slots=True)
class MessageEvent(ClientEvent[StateT]):
    """A client sent a message that asks for no reply.

    Args:
        data: the message, parsed.
    """

    data: Any


@dataclass(frozen=True, slots=True)
class DisconnectEvent(ClientEvent[StateT]):
    """A client that had connected is gone. There is nothing to answer.

    Args:
        code: the disconnect code that the hub gave; 3000 where the client left by itself.
        reason: its text.
    """

    code: int
    reason: str


Refusal: TypeAlias = Error | Disconnect
Event: TypeAlias = (
    ConnectEvent | SubscribeEvent | PublishEvent | PublishedEvent | RPCEvent | MessageEvent | DisconnectEvent
)
EventReply: TypeAlias = ConnectReply | SubscribeReply | PublishReply | RPCReply | Refusal | None

HOOKS: Final[dict[type[Event], str]] = {
    ConnectEvent: "connect",
    SubscribeEvent: "subscribe",
    PublishEvent: "publish",
    PublishedEvent: "after_publish",
    RPCEvent: "rpc",
    MessageEvent: "message",
    DisconnectEvent: "disconnect",
}
"""The name that a handler of each event is registered under."""

REPLIES: Final[dict[type[Event], type]] = {
    ConnectEvent: ConnectReply,
    SubscribeEvent: SubscribeReply,
    PublishEvent: PublishReply,
    RPCEvent: RPCReply,
}
"""The type that a handler answers an event with. Other events have no answer."""


class RefusalError(HubError):
    """A handler or one of its dependencies refuses: `raise RefusalError(Errors.PERMISSION_DENIED)`.

    Args:
        refusal: what the client is answered, as if the handler had returned it.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal: Final = refusal


def state_json(state: Any) -> bytes:
    """The JSON text of a connection's state; empty where there is none.

    Raises:
        TypeError: JSON cannot represent the state.
        ValueError: the state is too long.
    """
    if state is None or (isinstance(state, dict) and not state):
        return b""
    text = octets(payload(state, "state"))
    if len(text) > STATE_BYTES_MAX:
        raise ValueError(
            f"the state of a connection is {len(text)} bytes of JSON, and {STATE_BYTES_MAX} at the most: keep"
            " ids in it, and load what they stand for where a handler needs it"
        )
    return text


def checked(event: Event, answer: Any) -> Any:
    """Return a handler's answer if its type fits the event. An answer to a message has no type.

    Raises:
        TypeError: the answer's type does not fit, or JSON cannot represent the connection's state.
        ValueError: the connection's state is too long.
    """
    state = event.state
    if isinstance(answer, ConnectReply) and answer.state is not None:
        state = answer.state
    if state:
        state_json(state)
    reply = REPLIES.get(type(event))
    if reply is None or answer is None or isinstance(answer, reply | Error | Disconnect):
        return answer
    raise TypeError(
        f"a {HOOKS[type(event)]} handler must return {reply.__name__}, Error, Disconnect or None,"
        f" got {type(answer).__name__}"
    )


def _encode(reply: object, *fields: str) -> None:
    for name in fields:
        value = getattr(reply, name)
        if value is not None:
            object.__setattr__(reply, name, payload(value, name))


def _check_ttl(ttl_s: float | None) -> None:
    if ttl_s is not None and not (0 <= ttl_s < math.inf):
        raise ValueError(f"ttl_s must be seconds from 0, or None for no end, got {ttl_s!r}")
