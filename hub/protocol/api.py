"""The vocabulary of the server API: what a backend asks of a hub, and what it is answered.

Field names are those that clients of the API send. A payload stays JSON text, as it came.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct

from hub.protocol.messages import NO_PAYLOAD, ClientInfo, Payload, Publication, StreamPosition

Tags = dict[str, str]
Limit = Annotated[int, Meta(ge=-1, le=2**31 - 1)]


class Request(Struct, omit_defaults=True, kw_only=True):
    """Base of requests: fields at their default may be left out, unknown ones are ignored."""


class Result(Struct, omit_defaults=False, kw_only=True):
    """Base of results."""


class PublishRequest(Request):
    """Publish to a channel.

    `data` or `b64data` must be there. `idempotency_key` makes a repeat within five minutes send nothing. With
    `delta`, subscribers that take deltas get what changed since the publication before.
    """

    channel: str
    data: Payload = NO_PAYLOAD
    b64data: str = ""
    skip_history: bool = False
    tags: Tags | None = None
    idempotency_key: str = ""
    delta: bool = False


class BroadcastRequest(Request):
    """Publish the same to several channels."""

    channels: list[str]
    data: Payload = NO_PAYLOAD
    b64data: str = ""
    skip_history: bool = False
    tags: Tags | None = None
    idempotency_key: str = ""
    delta: bool = False


class BoolValue(Struct):
    """A boolean that may be absent."""

    value: bool = False


class Override(Struct, kw_only=True):
    """Options of a channel that are replaced for one subscription."""

    presence: BoolValue | None = None
    join_leave: BoolValue | None = None
    force_push_join_leave: BoolValue | None = None
    force_recovery: BoolValue | None = None
    force_positioning: BoolValue | None = None


class SubscribeRequest(Request):
    """Subscribe a user's connections, or one of them, to a channel."""

    user: str
    channel: str
    info: Payload = NO_PAYLOAD
    b64info: str = ""
    client: str = ""
    session: str = ""
    data: Payload = NO_PAYLOAD
    b64data: str = ""
    recover_since: StreamPosition | None = None
    override: Override | None = None


class UnsubscribeRequest(Request):
    """Unsubscribe a user's connections, or one of them, from a channel."""

    user: str
    channel: str
    client: str = ""
    session: str = ""


class DisconnectReason(Struct):
    """A disconnect code, 3000 to 4999, and its reason."""

    code: int = 0
    reason: str = ""


class DisconnectRequest(Request):
    """Disconnect a user's connections, or one of them; code 3503 unless `disconnect` says otherwise.

    With `revoke` none of them comes back by a reconnect token, nor does one that is between two sockets now.
    """

    user: str
    client: str = ""
    session: str = ""
    whitelist: list[str] = []
    disconnect: DisconnectReason | None = None
    revoke: bool = False


class RefreshRequest(Request):
    """Move the end of a user's connections, or end them as `expired`. `expire_at` is in Unix seconds."""

    user: str
    client: str = ""
    session: str = ""
    expired: bool = False
    expire_at: int = 0


class PresenceRequest(Request):
    """Who is in a channel."""

    channel: str


class PresenceStatsRequest(Request):
    """How many clients and users are in a channel."""

    channel: str


class HistoryRequest(Request):
    """Read a channel's history: `limit` 0 gives the position alone, -1 all that there is."""

    channel: str
    limit: Limit = 0
    since: StreamPosition | None = None
    reverse: bool = False


class HistoryRemoveRequest(Request):
    """Forget what a channel keeps. Its offsets go on from where they were."""

    channel: str


class ChannelsRequest(Request):
    """Channels that somebody is subscribed to. `pattern` is a glob."""

    pattern: str = ""


class InfoRequest(Request):
    """The nodes of the hub."""


class DrainRequest(Request):
    """Send the clients of a node to the others, and take no new ones; the answer does not wait for it.

    `node` is its `uid`, or empty for the node that was called. With `restart` its process then starts again;
    where it is one of several workers, all of them do, one after another. Error 108 says that the process
    cannot restart itself. `confirmed` says whether the node has begun; the counts are of that node alone.
    """

    node: str = ""
    restart: bool = False


class RPCRequest(Request):
    """Call a method of the app that the hub lives in."""

    method: str
    data: Payload = NO_PAYLOAD


class BatchRequest(Request):
    """Several requests in one, each `{"method": {…}}`. They run in order, or beside each other."""

    commands: list[dict[str, Raw]]
    parallel: bool = False


class PublishResult(Result):
    """The publication's position; offset 0 and no epoch where the channel keeps no history."""

    offset: int = 0
    epoch: str = ""


class ErrorResult(Result):
    """Why a request was refused."""

    code: int
    message: str


class PublishResponse(Struct, omit_defaults=True, kw_only=True):
    """The outcome for one channel of a broadcast."""

    error: ErrorResult | None = None
    result: PublishResult | None = None


class BroadcastResult(Result):
    """The outcomes, in the order of the channels."""

    responses: list[PublishResponse]


class EmptyResult(Result):
    """Done."""


class ConfirmedNodes(Struct):
    """How many nodes confirmed within the time limit, of how many."""

    confirmed: int
    total: int


class ConfirmedResult(Result):
    """The node that was called has done it, and every other node that it concerns will do it.

    `confirmed` says whether all of them have done it by now. A node that cannot be reached does it as soon as
    it can, before it lets clients in again.
    """

    confirmed: bool
    nodes: ConfirmedNodes


class PresenceResult(Result):
    """By client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Result):
    """How many there are."""

    num_clients: int
    num_users: int


class HistoryResult(Result):
    """Publications, and the position of the newest one that the channel has."""

    publications: list[Publication]
    offset: int
    epoch: str


class ChannelInfo(Result):
    """What is known of a channel."""

    num_clients: int


class ChannelsResult(Result):
    """By channel."""

    channels: dict[str, ChannelInfo]


class ProcessInfo(Result):
    """The process of a node: CPU seconds it used, and bytes of resident memory."""

    cpu: float
    rss: int


class NodeInfo(Result):
    """A node and what it holds. `uptime` is in seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int
    process: ProcessInfo


class InfoResult(Result):
    """Every node."""

    nodes: list[NodeInfo]


class RPCResult(Result):
    """What the app answered."""

    data: Any = None


METHODS: dict[str, tuple[type[Request], type[Result]]] = {
    "publish": (PublishRequest, PublishResult),
    "broadcast": (BroadcastRequest, BroadcastResult),
    "subscribe": (SubscribeRequest, ConfirmedResult),
    "unsubscribe": (UnsubscribeRequest, ConfirmedResult),
    "disconnect": (DisconnectRequest, ConfirmedResult),
    "refresh": (RefreshRequest, ConfirmedResult),
    "presence": (PresenceRequest, PresenceResult),
    "presence_stats": (PresenceStatsRequest, PresenceStatsResult),
    "history": (HistoryRequest, HistoryResult),
    "history_remove": (HistoryRemoveRequest, EmptyResult),
    "channels": (ChannelsRequest, ChannelsResult),
    "info": (InfoRequest, InfoResult),
    "drain": (DrainRequest, ConfirmedResult),
    "rpc": (RPCRequest, RPCResult),
}
"""Every method with its request and its result. `batch` stands apart: it holds others."""

METHOD_OF: Final = {request: method for method, (request, _) in METHODS.items()}
"""The method of each type of request."""
