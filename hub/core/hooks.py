"""Events of a client that an app handles, and the replies of its handlers.

A handler returns the reply type of its event to accept, an `Error` or a `Disconnect` to refuse, or None to
leave the decision to the settings.

A reply encodes its `data` and `info` as JSON at once, so that a value that JSON cannot represent raises
TypeError in the handler that made it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hub.protocol.codes import Disconnect, Error
from hub.protocol.messages import checked_tags, payload


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """The client of an event.

    Args:
        client: id of the client, unique over all nodes.
        user: the authenticated user; empty for an anonymous client.
    """

    client: str
    user: str


@dataclass(frozen=True, slots=True)
class ConnectEvent(ClientEvent):
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
    """

    user: str | None = None
    info: Any = None
    data: Any = None
    channels: Mapping[str, SubscribeReply] = field(default_factory=dict)
    ttl_s: float | None = None

    def __post_init__(self) -> None:
        _encode(self, "info", "data")
        _check_ttl(self.ttl_s)
        if not isinstance(self.user, str | None):
            raise TypeError(f"user must be a string, got {self.user!r}: try str()")
        if self.user is not None:
            self.user.encode()  # a lone surrogate raises here, and not where the user is shown to others


@dataclass(frozen=True, slots=True)
class SubscribeEvent(ClientEvent):
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
class PublishEvent(ClientEvent):
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
class RPCEvent(ClientEvent):
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
class MessageEvent(ClientEvent):
    """A client sent a message that asks for no reply.

    Args:
        data: the message, parsed.
    """

    data: Any


@dataclass(frozen=True, slots=True)
class DisconnectEvent(ClientEvent):
    """A client that had connected is gone. There is nothing to answer.

    Args:
        code: the disconnect code that the hub gave; 3000 where the client left by itself.
        reason: its text.
    """

    code: int
    reason: str


Refusal: TypeAlias = Error | Disconnect
Event: TypeAlias = ConnectEvent | SubscribeEvent | PublishEvent | RPCEvent | MessageEvent | DisconnectEvent
EventReply: TypeAlias = ConnectReply | SubscribeReply | PublishReply | RPCReply | Refusal | None

HOOKS: Final[dict[type[Event], str]] = {
    ConnectEvent: "connect",
    SubscribeEvent: "subscribe",
    PublishEvent: "publish",
    RPCEvent: "rpc",
    MessageEvent: "message",
    DisconnectEvent: "disconnect",
}
"""The name that a handler of each event is registered under."""

_REPLIES: Final[dict[type[Event], type]] = {
    ConnectEvent: ConnectReply,
    SubscribeEvent: SubscribeReply,
    PublishEvent: PublishReply,
    RPCEvent: RPCReply,
}


def checked(event: Event, answer: Any) -> Any:
    """Return a handler's answer if its type fits the event. An answer to a message has no type.

    Raises:
        TypeError: the answer's type does not fit.
    """
    reply = _REPLIES.get(type(event))
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
