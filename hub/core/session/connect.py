"""The flows that make a connection and keep it: connect and refresh."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from hub.core.channel.subscription import Grant
from hub.core.effects import (
    Abandon,
    Admit,
    Ask,
    Authenticated,
    Enter,
    Joined,
    OpenAll,
    Operation,
    Reconnected,
    Resume,
    Verify,
)
from hub.core.hooks import ConnectEvent, ConnectReply
from hub.core.rates import too_many
from hub.core.reconnect import (
    HOLDERS_MAX,
    ReconnectClaims,
    SessionChain,
    is_reconnect_token,
    needs_login_token,
)
from hub.core.session import resume as resuming
from hub.core.session import subscribe as subscribing
from hub.core.session.state import Flow, SessionState
from hub.core.tokens import ConnectionClaims, Expired
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors

_USER_SAFE: Final = "@:+=$&!|/"
"""What a user id keeps in its personal channel's name; the rest, a comma above all, is percent-encoded."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a client is let in with.

    Args:
        grants: server-side subscriptions by channel.
        expires_at: Unix seconds at which the connection ends, 0 for never.
        data: sent with the result.
        by_token: whether the login took a token of the app.
        claims: of the reconnect token that stands for a login, where one does.
    """

    grants: dict[str, Grant]
    expires_at: float
    data: m.Payload = m.NO_PAYLOAD
    by_token: bool = False
    claims: ReconnectClaims | None = None


def connect(state: SessionState, command_id: int, request: m.ConnectRequest) -> Flow:
    """Authenticate the client, make its server-side subscriptions, and answer with all of it at once."""
    if refusal := (yield Enter()):
        state.connecting = False
        return state.refuse(command_id, refusal)
    token = request.token
    if token and is_reconnect_token(token):
        if (yield from _resume(state, command_id, request)):
            return
        if needs_login_token(token):
            state.connecting = False
            return state.refuse(command_id, Errors.TOKEN_EXPIRED)
        token = ""  # it never had one of the app's, to which it could go back
    claims: ConnectionClaims | None = None
    if token:
        verdict = yield Verify(token, "connection")
        if not isinstance(verdict, ConnectionClaims):
            state.connecting = False
            if isinstance(verdict, Expired):
                verdict = Errors.TOKEN_EXPIRED
            refusal = verdict if isinstance(verdict, Error) else Disconnects.INVALID_TOKEN
            return state.refuse(command_id, refusal)
        claims = verdict
    answer: ConnectReply | None = None
    if state.allows("connect"):
        outcome = yield Ask(_event(state, request, claims))
        if outcome is not None and not isinstance(outcome, ConnectReply):
            state.connecting = False
            return state.refuse(command_id, outcome)
        answer = outcome
    client = state.context.client
    if not (claims or answer or client.anonymous or client.insecure):
        state.connecting = False
        return state.refuse(command_id, Errors.UNAUTHORIZED)
    expires_at = _identify(state, claims, answer)
    data = m.payload(answer.data) if answer and answer.data is not None else m.NO_PAYLOAD
    entry = _Entry(_server_side(state, claims, answer), expires_at, data, by_token=claims is not None)
    yield from _enter(state, command_id, request, entry)


def _resume(
    state: SessionState, command_id: int, request: m.ConnectRequest
) -> Generator[Operation, Any, bool]:
    """Let a client in by its reconnect token. Returns whether that was decided; else it has to log in."""
    tokens = state.context.reconnect
    if tokens is None:
        state.emit(Reconnected("invalid", reason="this hub has no keys of reconnect tokens"))
        return False
    claims = tokens.verify(request.token, state.now + state.unix_offset_s)
    if not isinstance(claims, ReconnectClaims):
        back = (
            Reconnected("expired")
            if isinstance(claims, Expired)
            else Reconnected("invalid", reason=claims.reason)
        )
        state.emit(back)
        return False
    new_client, state.client = state.client, claims.client
    state.user = claims.user
    state.info = m.ClientInfo(claims.user, claims.client, claims.info)
    state.expires_at = state.monotonic(claims.expires_at)
    grants = _personal(state)
    grants |= {channel: kept.grant for channel, kept in claims.channels.items() if kept.server_side}
    entry = _Entry(grants, claims.expires_at, by_token=claims.chain.by_token, claims=claims)
    if (yield from _enter(state, command_id, request, entry)):
        return True
    state.client, state.user, state.info = new_client, "", m.ClientInfo(client=new_client)
    state.expires_at = math.inf
    return False


def _enter(
    state: SessionState, command_id: int, request: m.ConnectRequest, entry: _Entry
) -> Generator[Operation, Any, bool]:
    """Open the channels, and answer. Returns whether it was decided: a reconnect token may be found used."""
    client, claims = state.context.client, entry.claims
    if wait_s := state.context.rates.user_connect.take(state.user, state.now):
        return _turn_away(state, command_id, too_many(wait_s))
    plans = []
    for channel, grant in entry.grants.items():
        asked = request.subs.get(channel) or m.SubscribeRequest()
        asked.channel = channel
        plan = subscribing.plan_by_server(state, asked, grant)
        if isinstance(plan, Error):
            if claims:
                state.emit(Reconnected("invalid", claims.client, f"its channel {channel} is no more"))
                return False
            return _turn_away(state, command_id, plan)
        plans.append(plan)
    if len(plans) > client.channels_max:
        return _turn_away(state, command_id, Disconnects.CHANNEL_LIMIT)
    if claims and (refusal := (yield Admit(state.user, state.client))):
        # Before the token counts as used: the client may come with it to another node.
        return _turn_away(state, command_id, refusal)
    outcomes: list[Any] | Error = (yield OpenAll(tuple(plan.open() for plan in plans))) if plans else []
    if isinstance(outcomes, Error) or any(isinstance(outcome, Error) for outcome in outcomes):
        return _turn_away(state, command_id, Disconnects.INTERNAL_ERROR)
    is_back = False
    chain = SessionChain((state.session,), state.now + state.unix_offset_s, entry.by_token)
    if claims:
        held = claims.chain.owners
        resumption = yield Resume(state.user, state.client, held, state.session)
        outcome = "unchecked" if isinstance(resumption, Error) else resumption.verdict
        is_back = isinstance(resumption, Error) or not resumption.lapsed
        state.emit(Reconnected(outcome, state.client))
        if outcome in ("reused", "revoked"):
            for plan in plans:
                state.emit(Abandon(plan.channel))
            return False
        owners = (state.session, *held) if outcome == "unchecked" else (state.session,)
        chain = replace(claims.chain, owners=owners[:HOLDERS_MAX])
        state.presented = held
    # The last thing before the connection counts: of many that come at once, none slips by.
    if refusal := (yield Admit(state.user, state.client if claims else "")):
        return _turn_away(state, command_id, refusal)

    state.connecting, state.connected = False, True
    state.chain = chain if state.context.reconnect else None
    if claims:
        resuming.keep(state, claims, is_back=is_back)
    expires, ttl = state.ttl(entry.expires_at)
    subs = {plan.channel: plan.result(state, opened) for plan, opened in zip(plans, outcomes, strict=True)}
    for plan in plans:
        plan.subscription.is_back = is_back and claims is not None and plan.channel in claims.channels
        state.subscriptions[plan.channel] = plan.subscription
    token = resuming.make_token(state)
    data = resuming.with_token(entry.data, token) if token else None
    result = m.ConnectResult(
        client=state.client,
        version=state.context.version,
        expires=expires,
        ttl=ttl,
        data=entry.data if data is None else data,
        subs=subs,
        ping=round(client.ping_interval_s) or 1,
        pong=not state.one_way,
        session=state.session,
        node=state.context.node,
        time=round((state.now + state.unix_offset_s) * 1000),
    )
    state.emit(Authenticated(state.user))
    state.send(m.Reply(command_id, connect=result))
    if token and data is None:
        resuming.push_token(state)
    for plan in plans:
        state.emit(Joined(plan.subscription))
    state.reschedule()
    return True


def _turn_away(state: SessionState, command_id: int, refusal: Error | Disconnect) -> bool:
    state.connecting = False
    state.refuse(command_id, refusal)
    return True


def refresh(state: SessionState, command_id: int, request: m.RefreshRequest) -> Flow:
    """Move the end of the connection to that of a new token of the same user."""
    verdict = yield Verify(request.token, "connection")
    if isinstance(verdict, Error):
        return state.refuse(command_id, verdict)
    if isinstance(verdict, Expired):
        # The client comes back at once, and is told 109 there: it fetches a token and stays.
        return state.end(Disconnects.EXPIRED)
    if not isinstance(verdict, ConnectionClaims) or verdict.user != state.user:
        return state.end(Disconnects.INVALID_TOKEN)
    state.expires_at = state.monotonic(verdict.expires_at)
    state.reschedule()
    if state.chain is not None:
        state.renew_soon()
    expires, ttl = state.ttl(verdict.expires_at)
    result = m.RefreshResult(state.client, state.context.version, expires, ttl)
    state.send(m.Reply(command_id, refresh=result))


def _event(state: SessionState, request: m.ConnectRequest, claims: ConnectionClaims | None) -> ConnectEvent:
    return ConnectEvent(
        client=state.client,
        user=claims.user if claims else "",
        data=m.value(request.data),
        name=request.name,
        version=request.version,
        headers=state.headers,
        has_token=claims is not None,
    )


def _identify(state: SessionState, claims: ConnectionClaims | None, answer: ConnectReply | None) -> float:
    """Set who the client is. Returns when the connection ends, in Unix seconds, 0 for never."""
    user, expires_at = "", 0.0
    info: m.Payload = m.NO_PAYLOAD
    if claims:
        user, info, expires_at = claims.user, claims.info, claims.expires_at
    if answer:
        if answer.user is not None:
            user = answer.user
        if answer.info is not None:
            info = m.payload(answer.info)
        if answer.ttl_s is not None:
            expires_at = state.now + state.unix_offset_s + answer.ttl_s
    state.user = user
    state.info = m.ClientInfo(user, state.client, info)
    state.expires_at = state.monotonic(expires_at)
    return expires_at


def _server_side(
    state: SessionState, claims: ConnectionClaims | None, answer: ConnectReply | None
) -> dict[str, Grant]:
    """The server-side subscriptions that a connection begins with."""
    grants = _personal(state)
    if claims:
        grants.update(dict.fromkeys(claims.channels, Grant()))
        for channel, granted in claims.subs.items():
            grants[channel] = Grant(granted.info, granted.data, 0, granted.override)
    if answer:
        for channel, reply in answer.channels.items():
            grants[channel] = subscribing.grant_of(state, reply)
    return grants


def _personal(state: SessionState) -> dict[str, Grant]:
    """The channel that every user is subscribed to, where the settings name one."""
    personal = state.context.client.user_personal_channel
    if not personal or not state.user:
        return {}
    return {personal.replace("{user}", quote(state.user, safe=_USER_SAFE)): Grant()}
