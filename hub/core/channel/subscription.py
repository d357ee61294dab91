"""One client's subscription to one channel: what it was granted, and what the channel's options add."""

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
"""Forms of a page that are kept: of all its encodings, and of a few filters."""


class Overrides(Protocol):
    """Options replaced for one subscription, by a token, a hook's reply or the server API."""

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
    """What lets a client into a channel beyond the channel's own rules.

    Args:
        info: shown with the client in this channel.
        data: sent with the result.
        expires_at: Unix seconds when the subscription must have been refreshed; 0 for never.
        overrides: options of the channel that are replaced.
    """

    info: Payload = NO_PAYLOAD
    data: Payload = NO_PAYLOAD
    expires_at: float = 0
    overrides: Overrides | None = None


OPEN: Final = Grant()
"""What a channel's own rules grant to a client: this very object, and no other."""


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription of a session.

    Args:
        channel: its name.
        info: the client, as the channel's presence, joins, leaves and publications show it.
        grant: what let the client in.
        server_side: whether the server made it.
        presence: whether the client is kept in the channel's presence.
        announces: whether the client's join and leave are told to the channel.
        hears_joins: whether joins and leaves are told to the client.
        positioned: whether the client is to be told when the stream breaks.
        recoverable: whether the client may come back with a position.
        deadline: monotonic seconds when it ends unless refreshed.
        offset: the last publication that the client was sent, or that its result accounts for, until it hears
            the channel live.
        epoch: of the stream that the result is about.
        is_backlogged: whether more was missed than the result had room for; it follows before live messages.
        delta: whether publications come as deltas.
        filter: which publications come; None for all.
        is_back: whether the client was in the channel before a reconnect: nobody is told of its return.
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
        """Whether the client follows the channel's position."""
        return self.positioned or self.recoverable

    def single(self, publication: Publication) -> Publication | None:
        """A publication as it is sent to this client alone; None where the filter keeps it back."""
        if self.filter and not self.filter.passes(publication):
            return None
        return whole(publication) if self.delta else publication

    def page(self, missed: Publications, deltas: Deltas) -> Publications:
        """What the client is sent of a page of history. Pages are shared, and so is what is made of them."""
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
    """The subscription that a request comes to, before anything of it is carried out.

    Args:
        options: the channel's.
        request: what the client, or the server in its place, asks for.
        info: the connected client, without what the channel adds.
        grant: what it was granted.
        server_side: whether the server makes it.
        may_read_history: whether the client may ask for positions: it reads by them what history holds.
        filter: the one that it asks for, compiled.
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
        # A client takes deltas and filters in answer to its own commands alone.
        delta=not server_side and request.delta in options.allowed_delta_types,
        filter=filter,
    )
