"""What an app is asked, and what it may answer: events of a client, and typed replies.

A handler answers with a reply of its event (accept, and change what the reply names), with an `Error` or a
`Disconnect` (refuse), or with None (leave it to the settings).

A reply turns its `data` and `info` into JSON text at once, so that a value without a JSON form raises
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
    """What is known of the client that an event is about.

    Args:
        client: id of the connection, unique over all nodes.
        user: the user that it was authenticated as; empty for an anonymous one.
    """

    client: str
    user: str


@dataclass(frozen=True, slots=True)
class ConnectEvent(ClientEvent):
    """A client asks to connect. Its token, where it has one, was found valid and `user` comes from it.

    Args:
        data: what the client sent along, parsed; None where it sent nothing.
        name: what the client's SDK calls itself.
        version: the client's own version.
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
    """Accept a subscription, whatever the channel's rules say of clients.

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
        user: who it is; None keeps the user of the token, or an anonymous one.
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
    """A client asks to subscribe to a channel that is well named and configured.

    Args:
        channel: its name.
        data: what the client sent along, parsed.
        has_token: whether a valid subscription token came with it.
    """

    channel: str
    data: Any = None
    has_token: bool = False


@dataclass(frozen=True, slots=True)
class PublishEvent(ClientEvent):
    """A client asks to publish.

    Args:
        channel: where to.
        data: the payload, parsed.
    """

    channel: str
    data: Any


@dataclass(frozen=True, slots=True)
class PublishReply:
    """Accept a publication, whatever the channel's rules say of clients.

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
        method: its name.
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
    """What a handler returned, if it is an answer to this event. What a message is answered with has no type.

    Raises:
        TypeError: it is no answer.
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
            object.__setattr__(reply, name, payload(value))


def _check_ttl(ttl_s: float | None) -> None:
    if ttl_s is not None and not (0 <= ttl_s < math.inf):
        raise ValueError(f"ttl_s must be seconds from 0, or None for no end, got {ttl_s!r}")
