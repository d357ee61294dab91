"""What a session does about reconnect tokens: hands them out, and takes up what one brings back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from msgspec import Raw

from hub.core.channel.subscription import OPEN, Subscription
from hub.core.reconnect import ReconnectClaims, Restorable
from hub.core.session import subscribe as subscribing
from hub.core.session.state import SessionState, is_in_token
from hub.protocol import messages as m
from hub.protocol.codes import Error

KEPT_S: Final = 10.0
"""How long after a reconnect a client may take up the subscriptions that its token grants."""

_FIELD: Final = b'"reconnect_token"'


def make_token(state: SessionState) -> str:
    """A token that restores the session as it is now; empty where there is none to give."""
    tokens = state.context.reconnect
    if tokens is None or state.chain is None:
        return ""
    state.renew_at = state.now + tokens.ttl_s / 2
    channels = {channel: _kept(state, subscription) for channel, subscription in state.kept.items()}
    for channel, subscription in state.subscriptions.items():
        if is_in_token(subscription):
            channels[channel] = _kept(state, subscription)
    claims = ReconnectClaims(
        user=state.user,
        client=state.client,
        chain=state.chain,
        info=state.info.conn_info,
        expires_at=state.unix(state.expires_at),
        channels=channels,
    )
    return tokens.sign(claims, state.now + state.unix_offset_s)


def push_token(state: SessionState) -> None:
    """Give the client another token, in place of the one that it has."""
    if token := make_token(state):
        data = Raw(b'{%b:"%b"}' % (_FIELD, token.encode()))
        state.push(m.Push(message=m.MessagePush(data)))


def with_token(data: m.Payload, token: str) -> m.Payload | None:
    """A connect result's data with the token in it, or None where there is no place for it."""
    field = b'%b:"%b"' % (_FIELD, token.encode())
    text = b"{}" if not data else bytes(data).strip() if isinstance(data, Raw) else b""
    if not text.startswith(b"{") or _FIELD in text:
        return None
    rest = text[1:].lstrip()
    return Raw(b"{%b%b%b" % (field, b"" if rest == b"}" else b",", rest))


def keep(state: SessionState, claims: ReconnectClaims, *, is_back: bool) -> None:
    """Have the client find again what it subscribed to by itself.

    Args:
        claims: those of its token.
        is_back: whether those who are in the channels know of it still.
    """
    for channel, kept in claims.channels.items():
        if kept.server_side:
            continue
        plan = subscribing.plan_by_server(state, m.SubscribeRequest(channel), kept.grant)
        if isinstance(plan, Error) or state.now >= plan.subscription.deadline:
            continue
        plan.subscription.server_side = False
        plan.subscription.is_back = is_back
        state.kept[channel] = plan.subscription
    state.kept_until = state.now + KEPT_S


def give_up_kept(state: SessionState) -> None:
    """The client had its time to take up what was kept for it."""
    for channel in list(state.kept):
        state.drop_kept(channel)
    state.kept_until = math.inf


def _kept(state: SessionState, subscription: Subscription) -> Restorable:
    grant, expires_at = subscription.grant, state.unix(subscription.deadline)
    if grant is not OPEN and grant.expires_at != expires_at:
        grant = replace(grant, expires_at=expires_at)
    return Restorable(grant, subscription.server_side)
