"""Reconnect tokens of a session: sending them, and restoring what a presented token contains."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from msgspec import Raw

from hub.core.channel.subscription import OPEN
from hub.core.reconnect import ReconnectClaims, Restorable
from hub.core.session import subscribe as subscribing
from hub.core.session.state import SessionState, is_in_token
from hub.protocol import messages as m
from hub.protocol.codes import Error

RESTORABLE_S: Final = 10.0
"""Seconds after a reconnect in which a client may restore the subscriptions of its token."""

_FIELD: Final = b'"reconnect_token"'


def make_token(state: SessionState) -> str:
    """Sign a token that restores the session as it is now. Empty if the session has no tokens."""
    tokens = state.context.reconnect
    if tokens is None or state.chain is None:
        return ""
    state.renew_at = state.now + tokens.ttl_s / 2
    channels = {
        channel: Restorable(subscription.grant, subscription.server_side)
        for subscriptions in (state.restorable, state.subscriptions)
        for channel, subscription in subscriptions.items()
        if is_in_token(subscription)
    }
    claims = ReconnectClaims(
        user=state.user,
        client=state.client,
        chain=state.chain,
        info=state.info.conn_info,
        expires_at=state.expires_at_unix,
        channels=channels,
    )
    return tokens.sign(claims, state.context.wall_clock())


def push_token(state: SessionState) -> None:
    """Send the client a new token, which replaces the one that it has."""
    if token := make_token(state):
        data = Raw(b'{%b:"%b"}' % (_FIELD, token.encode()))
        state.push(m.Push(message=m.MessagePush(data)))


def with_token(data: m.Payload, token: str) -> m.Payload | None:
    """The data of a connect result with the token added; None if the data is not a JSON object."""
    field = b'%b:"%b"' % (_FIELD, token.encode())
    text = b"{}" if not data else bytes(data).strip() if isinstance(data, Raw) else b""
    if not text.startswith(b"{") or _FIELD in text:
        return None
    rest = text[1:].lstrip()
    return Raw(b"{%b%b%b" % (field, b"" if rest == b"}" else b",", rest))


def offer(state: SessionState, claims: ReconnectClaims, present: Collection[str]) -> None:
    """Let the client restore its own subscriptions, those of its token and newer ones.

    Args:
        state: of a session that is resumed.
        claims: of its token.
        present: channels whose other clients still see this client there. One that the token lacks was joined
            after the token was made: it grants nothing, and the client is not announced there a second time.
    """
    grants = dict.fromkeys(present, OPEN) | {channel: each.grant for channel, each in claims.channels.items()}
    for channel, grant in grants.items():
        if channel in claims.channels and claims.channels[channel].server_side:
            continue
        plan = subscribing.plan_by_server(state, m.SubscribeRequest(channel), grant)
        if isinstance(plan, Error) or state.now >= plan.subscription.deadline:
            continue
        plan.subscription.server_side = False
        plan.subscription.is_back = channel in present
        state.restorable[channel] = plan.subscription
    state.restorable_until = state.now + RESTORABLE_S


def expire_restorable(state: SessionState) -> None:
    """Give up all subscriptions that the client did not restore in time."""
    for channel in list(state.restorable):
        state.drop_restorable(channel)
    state.restorable_until = math.inf
