"""What a client's calls raise, and what its `get_token` may. The names are those of the official SDKs."""

from __future__ import annotations

from typing import Final

from hub.errors import HubError, RequestError
from hub.protocol.codes import Disconnects, Errors

_LOG: Final = "the log of the hub says why"
_REMEDIES: Final = {
    Errors.UNAUTHORIZED.code: "give the client a token, or a get_token",
    Errors.UNKNOWN_CHANNEL.code: _LOG,
    Errors.PERMISSION_DENIED.code: _LOG,
    Errors.TOKEN_EXPIRED.code: "give a get_token, which fetches another",
    Disconnects.INVALID_TOKEN.code: _LOG,
    Disconnects.BAD_REQUEST.code: _LOG,
}


def with_remedy(code: int, reason: str) -> str:
    """Say why the hub refused a client for good, and what to do.

    Args:
        code: of an error or a disconnect.
        reason: what the hub said.
    """
    remedy = _REMEDIES.get(code)
    return f"{reason}: {remedy}" if remedy else reason


class ReplyError(RequestError):
    """The hub answered with an error; `code` is 100 or more."""


class OperationTimeoutError(RequestError):
    """No answer came in time. The call may have been carried out.

    Args:
        why: what failed meanwhile, if anything did.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(1, f"timeout{why and f': {why}'}", temporary=True)


class TransportClosedError(RequestError):
    """The link broke before the answer came. The call may have been carried out."""

    def __init__(self) -> None:
        super().__init__(2, "transport closed", temporary=True)


class ClientDisconnectedError(RequestError):
    """The client is disconnected: `connect` brings it back.

    Args:
        why: it is disconnected.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(3, f"client disconnected{why and f': {why}'}")


class SubscriptionUnsubscribedError(RequestError):
    """The subscription is not subscribed: `subscribe` brings it back.

    Args:
        why: it is not subscribed.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(7, f"subscription unsubscribed{why and f': {why}'}")


class QueueFullError(RequestError):
    """Too many calls wait for the connection, or for their subscription, already."""

    def __init__(self, waiting: int) -> None:
        super().__init__(20, f"{waiting} calls wait for the connection already", temporary=True)


class MessageTooLargeError(RequestError):
    """The command is larger than the hub takes, and was not sent."""

    def __init__(self, size: int, bytes_max: int) -> None:
        super().__init__(
            21, f"the command has {size} bytes, and the hub takes {bytes_max} (client.message_bytes_max)"
        )


class DuplicateSubscriptionError(HubError):
    """The client has a subscription to this channel."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"{channel} has a subscription already: get_subscription returns it")


class UnauthorizedError(HubError):
    """Raised by a `get_token`: this user gets none, and the client, or the subscription, stops."""
