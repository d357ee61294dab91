"""The vocabulary of the client protocol, version 2: what a client asks and what the server answers.

The field names are those of the JSON encoding. Absent fields mean zero, empty or false, so each has that
default and is left out when it is encoded. The fields that `written` declares are the exception: other
servers of the protocol always write them, so SDKs read them without a default. These structs are the table
that every codec goes by; client.proto gives their fields the numbers of Protobuf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, TypeVar, overload

import msgspec
from msgspec import Meta, Struct

from hub.protocol.payloads import NO_PAYLOAD as NO_PAYLOAD
from hub.protocol.payloads import Payload as Payload
from hub.protocol.payloads import payload as payload
from hub.protocol.payloads import value as value

UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Meta(ge=0)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]

_T = TypeVar("_T")


def written(empty: Callable[[], _T]) -> _T:
    """Declare a field that is encoded even if it is zero or empty. Its default is what `empty` returns."""
    # msgspec leaves out defaults that it recognises: constants, and the factories list, dict and set.
    return msgspec.field(default_factory=lambda: empty())


class Message(Struct, omit_defaults=True, gc=False):
    """Base of every message: fields at their default are left out of the encoding."""


class StreamPosition(Struct, frozen=True, omit_defaults=True, gc=False):
    """A place in a channel's history: the offset of the last message seen, and the epoch it counts in."""

    offset: UInt64 = 0
    epoch: str = ""


class ClientInfo(Message):
    """Who published, joined, left or is present."""

    user: str = written(str)
    client: str = written(str)
    conn_info: Payload = NO_PAYLOAD
    chan_info: Payload = NO_PAYLOAD


class Publication(Message):
    """One message of a channel.

    Args:
        data: the payload, as it was published; to a subscriber that takes deltas, quoted, or a delta.
        info: the client that published, where one did.
        offset: its place in the channel's history, from 1; 0 where it has none.
        tags: for the subscriber's use, and for filters.
        delta: whether `data` is a delta of the publication before.
        time: when the hub took it, in Unix milliseconds; kept where the channel keeps history.
        channel: used where the channel differs from the subscription's.
    """

    data: Payload = NO_PAYLOAD
    info: ClientInfo | None = None
    offset: UInt64 = 0
    tags: dict[str, str] | None = None
    delta: bool = False
    time: int = 0
    channel: str = ""


class DeltaPublication(Publication):
    """One that may be sent as a delta of the one before, since its publisher or its channel says so.

    Its type tells, and no field, so that nothing of it shows to those who take no deltas.
    """


class Publications(Sequence[Publication]):
    """Publications that several clients are sent, and what they are encoded as, kept for them all.

    Args:
        items: in order of offset; not to be changed.
        size: about how many bytes they have on the wire.
    """

    __slots__ = ("_items", "encoded", "size")

    def __init__(self, items: list[Publication], size: int) -> None:
        self._items = items
        self.size: Final = size
        self.encoded: Final[dict[object, Any]] = {}
        """By the codec or the encoding whose form it is, or by what a subscriber wishes to have of them."""

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Publication: ...
    @overload
    def __getitem__(self, index: slice) -> list[Publication]: ...
    def __getitem__(self, index: int | slice) -> Publication | list[Publication]:
        return self._items[index]


NO_PUBLICATIONS: Final = Publications([], 0)


# Requests


class FilterNode(Struct, frozen=True, omit_defaults=True, gc=False):
    """A node of a filter by tags: a comparison, or several joined by `op`.

    Args:
        op: empty for a comparison; and, or, not.
        key: the tag that is compared.
        cmp: eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt or gte.
        val: what it is compared with.
        vals: the list of in and nin.
        nodes: what `op` joins.
    """

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: tuple[str, ...] = ()
    nodes: tuple[FilterNode, ...] = ()


class SubscribeRequest(Message):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: UInt64 = 0
    data: Payload = NO_PAYLOAD
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: FilterNode | None = None
    flag: UInt64 = 0
    type: Int32 = 0
    phase: Int32 = 0


class ConnectRequest(Message):
    token: str = ""
    data: Payload = NO_PAYLOAD
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}
    flag: UInt64 = 0


class UnsubscribeRequest(Message):
    channel: str = ""


IDEMPOTENCY_TTL_S: Final = 300
"""How long the hub remembers an idempotency key."""

IDEMPOTENCY_KEY_CHARS_MAX: Final = 64
"""Longest idempotency key of a client."""


class PublishRequest(Message):
    """Publish to a channel.

    Args:
        idempotency_key: of the client's choice, in printable ASCII. A repeat of the same user with the same
            key to the same channel publishes nothing while the hub remembers the key. The fields from 101 on
            are the hub's own; other servers and SDKs ignore them.
    """

    channel: str = ""
    data: Payload = NO_PAYLOAD
    type: Int32 = 0
    key: str = ""
    removed: bool = False
    idempotency_key: str = ""


class PresenceRequest(Message):
    channel: str = ""


class PresenceStatsRequest(Message):
    channel: str = ""


class HistoryRequest(Message):
    channel: str = ""
    limit: Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False


class PingRequest(Message):
    pass


class SendRequest(Message):
    data: Payload = NO_PAYLOAD


class RPCRequest(Message):
    data: Payload = NO_PAYLOAD
    method: str = ""


class RefreshRequest(Message):
    token: str = ""


class SubRefreshRequest(Message):
    channel: str = ""
    token: str = ""


Request: TypeAlias = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | PingRequest
    | SendRequest
    | RPCRequest
    | RefreshRequest
    | SubRefreshRequest
)


class Command(Message):
    """What a client sends. At most one of the request fields is set; with none and no id it is the pong."""

    id: UInt32 = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceStatsRequest | None = None
    history: HistoryRequest | None = None
    ping: PingRequest | None = None
    send: SendRequest | None = None
    rpc: RPCRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None

    def is_publish(self) -> bool:
        """Whether it is a publish and nothing else, as nearly every command is where time matters."""
        return self.publish is not None and not (
            self.subscribe
            or self.connect
            or self.unsubscribe
            or self.presence
            or self.presence_stats
            or self.history
            or self.ping
            or self.send
            or self.rpc
            or self.refresh
            or self.sub_refresh
        )

    def requests(self) -> list[Request]:
        """The request fields that are set: one in a command that keeps to the protocol, none in a pong."""
        fields: tuple[Request | None, ...] = (
            self.publish,
            self.subscribe,
            self.connect,
            self.unsubscribe,
            self.presence,
            self.presence_stats,
            self.history,
            self.ping,
            self.send,
            self.rpc,
            self.refresh,
            self.sub_refresh,
        )
        return [field for field in fields if field is not None]


class EmulationRequest(Struct, frozen=True):
    """Commands of a client whose connection carries none.

    Args:
        node: of its connect result: where its connection is.
        session: of the same. Nobody but the client knows it.
        data: the commands, as one message of a WebSocket holds them.
    """

    node: str
    session: str
    data: bytes


class Fault(Struct, frozen=True):
    """What a codec reports for a piece of a frame that is not a command it can read.

    Args:
        id: the command's id where one can be told, and the fault is answered with error 107; else 0, and
            the connection ends with 3501.
        reason: what is wrong, for the log.
    """

    id: int
    reason: str


# Results


class SubscribeResult(Message):
    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: Sequence[Publication] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Payload = NO_PAYLOAD
    was_recovering: bool = False
    delta: bool = False
    id: int = 0


class ConnectResult(Message):
    """The connection.

    Args:
        idempotency_ttl: seconds that the hub remembers the `idempotency_key` of a publish. Field 101, the
            hub's own: a server that does not know idempotency keys of clients does not send it.
    """

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Payload = NO_PAYLOAD
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0
    idempotency_ttl: int = 0


class UnsubscribeResult(Message):
    pass


class PublishResult(Message):
    pass


class PresenceResult(Message):
    presence: dict[str, ClientInfo] = written(dict)


class PresenceStatsResult(Message):
    num_clients: int = written(int)
    num_users: int = written(int)


class HistoryResult(Message):
    publications: list[Publication] = written(list)
    epoch: str = written(str)
    offset: int = written(int)


class PingResult(Message):
    pass


class RPCResult(Message):
    data: Payload = NO_PAYLOAD


class RefreshResult(Message):
    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Message):
    expires: bool = False
    ttl: int = 0


class ErrorMessage(Message):
    code: int = written(int)
    message: str = written(str)
    temporary: bool = False


# Pushes


class Join(Message):
    info: ClientInfo


class Leave(Message):
    info: ClientInfo


class UnsubscribePush(Message):
    code: int = written(int)
    reason: str = written(str)


class MessagePush(Message):
    data: Payload = NO_PAYLOAD


class SubscribePush(Message):
    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Payload = NO_PAYLOAD


class DisconnectPush(Message):
    code: int = written(int)
    reason: str = written(str)
    reconnect: bool = False


class RefreshPush(Message):
    expires: bool = False
    ttl: int = 0


class Push(Message):
    """What the server sends unasked. Exactly one of the fields after `channel` is set."""

    id: int = 0
    channel: str = ""
    pub: Publication | None = None
    join: Join | None = None
    leave: Leave | None = None
    unsubscribe: UnsubscribePush | None = None
    message: MessagePush | None = None
    subscribe: SubscribePush | None = None
    connect: ConnectResult | None = None
    disconnect: DisconnectPush | None = None
    refresh: RefreshPush | None = None


class Reply(Message):
    """What the server sends: the answer to the command with this id, a push, or, when empty, the ping."""

    id: int = 0
    error: ErrorMessage | None = None
    push: Push | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: UnsubscribeResult | None = None
    publish: PublishResult | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    ping: PingResult | None = None
    rpc: RPCResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: SubRefreshResult | None = None


PING: Final = Reply()
"""The empty reply. Nobody changes a reply that was made."""

PONG: Final = Command()
"""What a codec answers for the empty command. Nobody changes a command."""


def command_name(command: Command) -> str:
    """The field of the command that is set, `pong` for none: what metrics call it."""
    if command.publish is not None:  # nearly every one where it matters
        return "publish"
    if command is PONG:
        return "pong"
    for request in command.requests():
        return _REQUEST_NAMES[type(request)]
    return "pong"


def reply_name(reply: Reply) -> str:
    """The field of the reply that is set, of the push where it is one, `ping` for none."""
    if reply.publish is not None:
        return "publish"
    if reply is PING:
        return "ping"
    holder: Struct = reply.push or reply
    for field in holder.__struct_fields__:
        if field not in ("id", "channel") and getattr(holder, field) is not None:
            return field
    return "ping"


_REQUEST_NAMES = {
    ConnectRequest: "connect",
    SubscribeRequest: "subscribe",
    UnsubscribeRequest: "unsubscribe",
    PublishRequest: "publish",
    PresenceRequest: "presence",
    PresenceStatsRequest: "presence_stats",
    HistoryRequest: "history",
    PingRequest: "ping",
    SendRequest: "send",
    RPCRequest: "rpc",
    RefreshRequest: "refresh",
    SubRefreshRequest: "sub_refresh",
}


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a publication that an app makes (those that come over the wire are checked with it).

    Raises:
        TypeError: a name or a value is no string.
        UnicodeEncodeError: one holds a lone surrogate, which no subscriber could be sent.
    """
    for name, tag in tags.items():
        if not (isinstance(name, str) and isinstance(tag, str)):
            raise TypeError(f"tags must be strings by name, got {name!r}: {tag!r}")
        (name + tag).encode()
    return dict(tags)
