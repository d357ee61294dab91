"""One client's subscription to one channel: its grant, and the options of the channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

from hub.core.channel.deltas import Deltas, whole
from hub.core.channel.filter import Filter
from hub.protocol.messages import (
    NO_PAYLOAD,
    ClientInfo,
    Payload,
    Publication,
    Publications,
    SubscribeRequest,
)
from hub.settings import ChannelOptions

FORMS_MAX: Final = 16
"""Encodings and filtered forms of a page that are kept with it."""


class Overrides(Protocol):
    """Channel options that a token, a hook's reply or the server API replaces for one subscription."""

    @property
    def presence(self) -> bool | None: ...
    @property
    def join_leave(self) -> bool | None: ...
    @property
    def force_push_join_leave(self) -> bool | None: ...
    @property
    def force_recovery(self) -> bool | None: ...
    @property
    def force_positioning(self) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class Grant:
    """Permits a subscription beyond the channel's own rules.

    Args:
        info: shown with the client in this channel.
        data: sent with the result.
        expires_at: Unix seconds at which the subscription expires unless it is refreshed; 0 for never.
        overrides: channel options that are replaced.
    """

    info: Payload = NO_PAYLOAD
    data: Payload = NO_PAYLOAD
    expires_at: float = 0
    overrides: Overrides | None = None


OPEN: Final = Grant()
"""The grant of a channel's own rules. It is compared by identity."""


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription of a session.

    Args:
        channel: name of the channel.
        info: the client, as the channel's presence, joins, leaves and publications show it.
        grant: what permits the subscription.
        server_side: whether the server made the subscription.
        presence: whether the client is listed in the channel's presence.
        announces: whether the client's join and leave are announced to the channel.
        hears_joins: whether the client gets the joins and leaves of others.
        positioned: whether the client is told when the stream breaks.
        recoverable: whether the client may recover from a position.
        deadline: monotonic seconds at which the subscription expires unless it is refreshed.
        offset: of the last publication that was sent to the client, or that its result covers. It is updated
            until the channel is delivered live.
        epoch: of the stream at the time of the result.
        is_backlogged: whether missed publications did not fit the result. They follow before live ones.
        delta: whether publications are sent as deltas.
        filter: chooses the publications that are sent; None for all.
        is_back: whether the channel's other clients still see this client there after a reconnect, so that no
            join is announced.
    """

    channel: str
    info: ClientInfo
    grant: Grant
    server_side: bool
    presence: bool
    announces: bool
    hears_joins: bool
    positioned: bool
    recoverable: bool
    deadline: float = math.inf
    offset: int = 0
    epoch: str = ""
    is_backlogged: bool = False
    delta: bool = False
    filter: Filter | None = None
    is_back: bool = False

    @property
    def has_position(self) -> bool:
        """Whether the client has a position in the channel's stream."""
        return self.positioned or self.recoverable

    def single(self, publication: Publication) -> Publication | None:
        """A publication as it is sent to this client alone; None if the filter excludes it."""
        if self.filter and not self.filter.passes(publication):
            return None
        return whole(publication) if self.delta else publication

    def page(self, missed: Publications, deltas: Deltas) -> Publications:
        """A page of history as it is sent to this client. Clients with the same filter and delta share it."""
        if not (self.filter or self.delta):
            return missed
        wish = (self.filter, self.delta)
        page: Publications | None = missed.encoded.get(wish)
        if page is None:
            items = self.filter.passing(missed) if self.filter else missed
            page = Publications(deltas.chain(items) if self.delta else list(items), missed.size)
            if len(missed.encoded) < FORMS_MAX:
                missed.encoded[wish] = page
        return page


def build(
    options: ChannelOptions,
    request: SubscribeRequest,
    info: ClientInfo,
    grant: Grant,
    *,
    server_side: bool,
    may_read_history: bool,
    filter: Filter | None = None,
) -> Subscription:
    """Build the subscription that a request leads to.

    Args:
        options: of the channel.
        request: of the client, or of the server in its place.
        info: the connected client, without the info of the channel.
        grant: what permits the subscription.
        server_side: whether the server makes the subscription.
        may_read_history: whether the client may ask for positions, which let it read the history.
        filter: the compiled filter of the request.
    """
    overrides = grant.overrides

    def option(name: str) -> bool:
        replaced = getattr(overrides, name, None)
        return bool(getattr(options, name) if replaced is None else replaced)

    keeps_history = options.history_size > 0
    join_leave = option("join_leave")
    return Subscription(
        channel=request.channel,
        info=ClientInfo(info.user, info.client, info.conn_info, grant.info),
        grant=grant,
        server_side=server_side,
        presence=option("presence"),
        announces=join_leave,
        hears_joins=join_leave and (request.join_leave or option("force_push_join_leave")),
        positioned=keeps_history
        and (option("force_positioning") or (request.positioned and may_read_history)),
        recoverable=keeps_history
        and (option("force_recovery") or (request.recoverable and may_read_history)),
        # A client accepts deltas and filters only for subscriptions that it asked for itself.
        delta=not server_side and request.delta in options.allowed_delta_types,
        filter=filter,
    )
