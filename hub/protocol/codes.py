"""The one table of errors, disconnects and unsubscribes of the client protocol, version 2.

Metrics, documents and tests read it. Ranges carry meaning: a disconnect from 3000 to 3499 or from 4000 to
4499 makes the client reconnect, one from 3500 to 3999 or from 4500 to 4999 stops it; an unsubscribe code of
2500 or more makes it subscribe again, one below stops it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal, Self, TypeAlias

REASON_BYTES_MAX: Final = 123
"""Longest reason of a WebSocket close frame (RFC 6455 section 5.5: 125 bytes less the code)."""


RefusalReason: TypeAlias = Literal[
    "bad_request",
    "broker",
    "channel_name",
    "channels_max",
    "handler",
    "no_login",
    "not_allowed",
    "not_subscribed",
    "switched_off",
    "token",
    "unknown_channel",
]
"""What kind of rule refused a client: a label of the metric `hub_refusals_total`."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a rule refused a client. The log says it; in insecure mode the message of an error does, too.

    Args:
        reason: the kind of rule.
        text: a sentence that names what was asked, the rule that refused, and the remedy.
        channel: name of the channel that the client asked for, if any.
    """

    reason: RefusalReason
    text: str
    channel: str = ""

    @property
    def is_of_client(self) -> bool:
        """Whether the text repeats only what the client itself sent."""
        return self.reason in ("bad_request", "channel_name")

    @property
    def is_of_app(self) -> bool:
        """Whether the app chose the words of the refusal, to which nothing is added."""
        return self.reason == "handler"


@dataclass(frozen=True, slots=True)
class Error:
    """An error in reply to a command.

    Args:
        code: 100 to 1999. The hub's own are below 400; an app's begin at 1000.
        message: a few words for a developer.
        temporary: whether the client may try the same command again.
        cause: why the hub refused, if it says. Two errors that differ in it alone are equal.
    """

    code: int
    message: str
    temporary: bool = False
    cause: Cause | None = field(default=None, compare=False, repr=False)

    def because(self, reason: RefusalReason, text: str, channel: str = "") -> Self:
        """Return the same error with its cause. The arguments are those of `Cause`."""
        return replace(self, cause=Cause(reason, text, channel))

    def explained(self, *, insecure: bool) -> Self:
        """Return the same error, with the cause in its message if the client may read the cause.

        Args:
            insecure: whether the hub is in insecure mode, where a developer reads the message.
        """
        cause = self.cause
        return self if cause is None or not (cause.is_of_client or insecure) else self.in_full()

    def in_full(self) -> Self:
        """Return the same error, with the cause in its message: what a backend, unlike a client, is told."""
        return replace(self, message=f"{self.message}: {self.detail}") if self.detail else self

    @property
    def detail(self) -> str:
        """The cause in words, for the app; empty where there is none, and for the app's own refusals."""
        return "" if self.cause is None or self.cause.is_of_app else self.cause.text


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why the server ends a connection.

    Args:
        code: 3000 to 4999; its range tells the client whether to come back.
        reason: at most 123 bytes of UTF-8, for a developer.
        cause: why the hub refused, if it says. Two disconnects that differ in it alone are equal.
    """

    code: int
    reason: str
    cause: Cause | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 3000 <= self.code <= 4999:
            raise ValueError(
                f"disconnect code {self.code} is outside 3000-4999: an app's own are 4000 to 4499, after"
                " which clients come back, and 4500 to 4999, which stop them"
            )
        if len(self.reason.encode()) > REASON_BYTES_MAX:
            raise ValueError(f"disconnect reason is over {REASON_BYTES_MAX} bytes")

    @property
    def reconnect(self) -> bool:
        """Whether a client comes back after this disconnect."""
        return reconnects(self.code)

    def because(self, reason: RefusalReason, text: str, channel: str = "") -> Self:
        """Return the same disconnect with its cause. The arguments are those of `Cause`."""
        return replace(self, cause=Cause(reason, text, channel))


def reconnects(code: int) -> bool:
    """Whether a client comes back after a disconnect with this code, from 3000 to 4999."""
    return code % 1000 < 500


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Why the server ends a subscription.

    Args:
        code: 2000 to 2999; from 2500 the client subscribes again by itself.
        reason: a few words for a developer.
    """

    code: int
    reason: str


class Errors:
    """Every error that the hub itself answers with."""

    INTERNAL: Final = Error(100, "internal server error", temporary=True)
    UNAUTHORIZED: Final = Error(101, "unauthorized")
    UNKNOWN_CHANNEL: Final = Error(102, "unknown channel")
    PERMISSION_DENIED: Final = Error(103, "permission denied")
    METHOD_NOT_FOUND: Final = Error(104, "method not found")
    ALREADY_SUBSCRIBED: Final = Error(105, "already subscribed")
    LIMIT_EXCEEDED: Final = Error(106, "limit exceeded")
    BAD_REQUEST: Final = Error(107, "bad request")
    NOT_AVAILABLE: Final = Error(108, "not available")
    TOKEN_EXPIRED: Final = Error(109, "token expired")
    EXPIRED: Final = Error(110, "expired")
    TOO_MANY_REQUESTS: Final = Error(111, "too many requests", temporary=True)
    UNRECOVERABLE_POSITION: Final = Error(112, "unrecoverable position")
    CONCURRENT_PAGINATION: Final = Error(113, "concurrent pagination", temporary=True)


class Disconnects:
    """Every disconnect that the hub itself makes."""

    CONNECTION_CLOSED: Final = Disconnect(3000, "connection closed")
    SHUTDOWN: Final = Disconnect(3001, "shutdown")
    INTERNAL_ERROR: Final = Disconnect(3004, "internal server error")
    EXPIRED: Final = Disconnect(3005, "connection expired")
    SUBSCRIPTION_EXPIRED: Final = Disconnect(3006, "subscription expired")
    SLOW: Final = Disconnect(3008, "slow")
    WRITE_ERROR: Final = Disconnect(3009, "write error")
    INSUFFICIENT_STATE: Final = Disconnect(3010, "insufficient state")
    FORCE_RECONNECT: Final = Disconnect(3011, "force reconnect")
    NO_PONG: Final = Disconnect(3012, "no pong")
    TOO_MANY_REQUESTS: Final = Disconnect(3013, "too many requests")
    STATE_INVALIDATED: Final = Disconnect(3014, "state invalidated")
    INVALID_TOKEN: Final = Disconnect(3500, "invalid token")
    BAD_REQUEST: Final = Disconnect(3501, "bad request")
    STALE: Final = Disconnect(3502, "stale")
    FORCE_NO_RECONNECT: Final = Disconnect(3503, "force no reconnect")
    CONNECTION_LIMIT: Final = Disconnect(3504, "connection limit")
    CHANNEL_LIMIT: Final = Disconnect(3505, "channel limit")
    INAPPROPRIATE_PROTOCOL: Final = Disconnect(3506, "inappropriate protocol")
    PERMISSION_DENIED: Final = Disconnect(3507, "permission denied")
    NOT_AVAILABLE: Final = Disconnect(3508, "not available")
    TOO_MANY_ERRORS: Final = Disconnect(3509, "too many errors")


def disconnect_of(error: Error) -> Disconnect:
    """What a refused connect ends with where the client gets no replies, so that none can hold the error."""
    if error.code == Errors.TOKEN_EXPIRED.code:
        return Disconnects.EXPIRED
    if error.temporary:
        busy = error.code == Errors.TOO_MANY_REQUESTS.code
        return Disconnects.TOO_MANY_REQUESTS if busy else Disconnects.INTERNAL_ERROR
    reason = error.message.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
    return Disconnect(Disconnects.PERMISSION_DENIED.code, reason, error.cause)


class Unsubscribes:
    """Every unsubscribe that the hub itself makes."""

    SERVER: Final = Unsubscribe(2000, "server unsubscribe")
    INSUFFICIENT_STATE: Final = Unsubscribe(2500, "insufficient state")
    EXPIRED: Final = Unsubscribe(2501, "subscription expired")
    STATE_INVALIDATED: Final = Unsubscribe(2502, "state invalidated")


def _table(namespace: type, kind: type) -> tuple[object, ...]:
    return tuple(value for value in vars(namespace).values() if isinstance(value, kind))


ERRORS: Final[tuple[Error, ...]] = _table(Errors, Error)  # type: ignore[assignment]
DISCONNECTS: Final[tuple[Disconnect, ...]] = _table(Disconnects, Disconnect)  # type: ignore[assignment]
UNSUBSCRIBES: Final[tuple[Unsubscribe, ...]] = _table(Unsubscribes, Unsubscribe)  # type: ignore[assignment]
