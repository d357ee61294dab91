"""The flows that make a connection and keep it: connect and refresh."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from hub.core import subscribing
from hub.core.effects import Admit, Ask, Authenticated, Joined, OpenAll, Verify
from hub.core.hooks import ConnectEvent, ConnectReply
from hub.core.rates import too_many
from hub.core.state import Flow, SessionState
from hub.core.subscription import Grant
from hub.core.tokens import ConnectionClaims, Expired
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Error, Errors

_USER_SAFE: Final = "@:+=$&!|/"
"""What a user id keeps in its personal channel's name; the rest, a comma above all, is percent-encoded."""


def connect(state: SessionState, command_id: int, request: m.ConnectRequest) -> Flow:
    """Authenticate the client, make its server-side subscriptions, and answer with all of it at once."""
    claims: ConnectionClaims | None = None
    if request.token:
        verdict = yield Verify(request.token, "connection")
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
    if wait_s := state.context.rates.user_connect.take(state.user, state.now):
        state.connecting = False
        return state.refuse(command_id, too_many(wait_s))

    grants = _server_side(state, claims, answer)
    plans = []
    for channel, grant in grants.items():
        asked = request.subs.get(channel) or m.SubscribeRequest()
        asked.channel = channel
        plan = subscribing.plan_by_server(state, asked, grant)
        if isinstance(plan, Error):
            state.connecting = False
            return state.refuse(command_id, plan)
        plans.append(plan)
    if len(plans) > client.channels_max:
        return state.end(Disconnects.CHANNEL_LIMIT)
    outcomes: list[Any] | Error = (yield OpenAll(tuple(plan.open() for plan in plans))) if plans else []
    if isinstance(outcomes, Error) or any(isinstance(outcome, Error) for outcome in outcomes):
        return state.end(Disconnects.INTERNAL_ERROR)
    # The last thing before the connection counts: of many that come at once, none slips by.
    if refusal := (yield Admit(state.user)):
        return state.end(refusal)

    state.connecting, state.connected = False, True
    expires, ttl = state.ttl(expires_at)
    result = m.ConnectResult(
        client=state.client,
        version=state.context.version,
        expires=expires,
        ttl=ttl,
        data=m.payload(answer.data) if answer and answer.data is not None else m.NO_PAYLOAD,
        subs={plan.channel: plan.result(state, opened) for plan, opened in zip(plans, outcomes, strict=True)},
        ping=round(client.ping_interval_s) or 1,
        pong=not state.one_way,
        session=state.session,
        node=state.context.node,
        time=round((state.now + state.unix_offset_s) * 1000),
    )
    state.emit(Authenticated(state.user))
    state.send(m.Reply(command_id, connect=result))
    for plan in plans:
        state.subscriptions[plan.channel] = plan.subscription
        state.emit(Joined(plan.subscription))
    state.reschedule()


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
    grants: dict[str, Grant] = {}
    personal = state.context.client.user_personal_channel
    if personal and state.user:
        grants[personal.replace("{user}", quote(state.user, safe=_USER_SAFE))] = Grant()
    if claims:
        grants.update(dict.fromkeys(claims.channels, Grant()))
        for channel, granted in claims.subs.items():
            grants[channel] = Grant(granted.info, granted.data, 0, granted.override)
    if answer:
        for channel, reply in answer.channels.items():
            grants[channel] = subscribing.grant_of(state, reply)
    return grants
