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
_LIMIT_FIELD: Final = b'"message_bytes_max"'


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
    state.app_state_sent = state.state_json()
    claims = ReconnectClaims(
        user=state.user,
        client=state.client,
        chain=state.chain,
        info=state.info.conn_info,
        expires_at=state.expires_at_unix,
        channels=channels,
        state=state.app_state_sent,
    )
    return tokens.sign(claims, state.context.wall_clock())


def push_token(state: SessionState) -> None:
    """Send the client a new token, which replaces the one that it has."""
    if token := make_token(state):
        data = Raw(b'{%b:"%b"}' % (_FIELD, token.encode()))
        state.push(m.Push(message=m.MessagePush(data)))


def with_token(data: m.Payload, token: str, message_bytes_max: int) -> m.Payload | None:
    """The data of a connect result with the token added; None if the data is not a JSON object.

    Args:
        data: of the app.
        token: for the next connect.
        message_bytes_max: the limit to a message of the client, which is added too; 0 adds none.
    """
    fields = b'%b:"%b"' % (_FIELD, token.encode())
    text = b"{}" if not data else bytes(data).strip() if isinstance(data, Raw) else b""
    if not text.startswith(b"{") or _FIELD in text:
        return None
    if message_bytes_max and _LIMIT_FIELD not in text:
        fields += b",%b:%d" % (_LIMIT_FIELD, message_bytes_max)
    rest = text[1:].lstrip()
    return Raw(b"{%b%b%b" % (fields, b"" if rest == b"}" else b",", rest))


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
