"""The flows of the commands connect and refresh."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final

from hub.core import access
from hub.core.channel.subscription import Grant
from hub.core.effects import (
    Admit,
    Authenticated,
    CallHandler,
    CancelSubscribe,
    OpenChannels,
    Operation,
    Reconnected,
    ResumeSession,
    SubscriptionStarted,
    Verify,
    WaitForTurn,
)
from hub.core.hooks import ConnectEvent, ConnectReply
from hub.core.rates import too_many
from hub.core.reconnect import (
    OWNERS_MAX,
    ReconnectClaims,
    SessionChain,
    is_reconnect_token,
    needs_login_token,
)
from hub.core.rules import personal_channel
from hub.core.session import resume as resuming
from hub.core.session import subscribe as subscribing
from hub.core.session.state import Flow, SessionState
from hub.core.tokens import ConnectionClaims, Expired, reason_of
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors

_NO_LOGIN: Final = (
    "an anonymous client may not connect: it sent no token, and no on_connect handler let it in;"
    " send a connection token, or set client.anonymous"
)


_EXPIRED: Final = (
    "the connection token has expired: let the client fetch another (get_token, getToken), or sign tokens"
    " that are good for longer"
)


@dataclass(frozen=True, slots=True)
class _Login:
    """The outcome of an authentication.

    Args:
        grants: server-side subscriptions by channel.
        data: sent with the connect result.
        by_token: whether the client logged in with a token of the app.
        channels: `ConnectionClaims.channels_digest` of this token.
        claims: of the reconnect token that replaces the login; None for a login.
    """

    grants: dict[str, Grant]
    data: m.Payload = m.NO_PAYLOAD
    by_token: bool = False
    channels: str = ""
    claims: ReconnectClaims | None = None


def connect(state: SessionState, command_id: int, request: m.ConnectRequest) -> Flow:
    """Authenticate the client, make its server-side subscriptions, and answer with all of them."""
    if refusal := (yield WaitForTurn()):
        state.connecting = False
        return state.refuse(command_id, refusal)
    token = request.token
    if token and is_reconnect_token(token):
        if (yield from _resume(state, command_id, request)):
            return
        if needs_login_token(token):
            state.connecting = False
            return state.refuse(command_id, Errors.TOKEN_EXPIRED)
        token = ""  # the client logged in without a token of the app, and can do so again
    claims: ConnectionClaims | None = None
    if token:
        verdict = yield Verify(token, "connection")
        if not isinstance(verdict, ConnectionClaims):
            state.connecting = False
            if isinstance(verdict, Expired):
                verdict = Errors.TOKEN_EXPIRED.because("token", _EXPIRED)
            return state.refuse(command_id, verdict if isinstance(verdict, Error) else _invalid(verdict))
        claims = verdict
    answer: ConnectReply | None = None
    if "connect" in state.context.hooks:
        state.app_state = {}
        outcome = yield CallHandler(_event(state, request, claims))
        if outcome is not None and not isinstance(outcome, ConnectReply):
            state.connecting = False
            user = claims.user if claims else ""
            return state.refuse(command_id, access.refused_by_app(outcome, "connect", user, "connect"))
        answer = outcome
        if answer is not None and answer.state is not None:
            state.app_state = answer.state
    client = state.context.client
    if not (claims or answer or client.anonymous or client.insecure):
        state.connecting = False
        return state.refuse(command_id, Errors.UNAUTHORIZED.because("no_login", _NO_LOGIN))
    _identify(state, claims, answer)
    data = m.payload(answer.data) if answer and answer.data is not None else m.NO_PAYLOAD
    channels = claims.channels_digest() if claims else ""
    login = _Login(_server_side(state, claims, answer), data, by_token=claims is not None, channels=channels)
    yield from _enter(state, command_id, request, login)


def _resume(
    state: SessionState, command_id: int, request: m.ConnectRequest
) -> Generator[Operation, Any, bool]:
    """Connect a client by its reconnect token. Returns False if the client has to log in instead."""
    tokens = state.context.reconnect
    if tokens is None:
        state.emit(Reconnected("invalid", reason="this hub has no keys for reconnect tokens"))
        return False
    claims = tokens.verify(request.token, state.context.wall_clock())
    if not isinstance(claims, ReconnectClaims):
        back = (
            Reconnected("expired")
            if isinstance(claims, Expired)
            else Reconnected("invalid", reason=claims.reason)
        )
        state.emit(back)
        return False
    try:
        app_state = state.context.read_state(claims.state) if claims.state else None
    except Exception as error:  # the app's type of the state may raise anything
        state.emit(Reconnected("invalid", claims.client, f"the app cannot read its state: {error}"))
        return False
    new_client, state.client = state.client, claims.client
    state.app_state = app_state
    state.user = claims.user
    state.info = m.ClientInfo(claims.user, claims.client, claims.info)
    state.set_expiry(claims.expires_at)
    grants = _personal(state)
    grants |= {channel: each.grant for channel, each in claims.channels.items() if each.server_side}
    login = _Login(grants, by_token=claims.chain.by_token, channels=claims.chain.channels, claims=claims)
    if (yield from _enter(state, command_id, request, login)):
        return True
    state.client, state.user, state.info = new_client, "", m.ClientInfo(client=new_client)
    state.app_state = None
    state.set_expiry(0)
    return False


def _enter(
    state: SessionState, command_id: int, request: m.ConnectRequest, login: _Login
) -> Generator[Operation, Any, bool]:
    """Open the channels, and answer. Returns False if a reconnect token turns out to be unusable."""
    client, claims = state.context.client, login.claims
    if wait_s := state.context.rates.user_connect.take(state.user, state.now):
        return _refuse(state, command_id, too_many(wait_s))
    plans = []
    for channel, grant in login.grants.items():
        asked = request.subs.get(channel) or m.SubscribeRequest()
        asked.channel = channel
        plan = subscribing.plan_by_server(state, asked, grant)
        if isinstance(plan, Error):
            if claims:
                state.emit(
                    Reconnected("invalid", claims.client, f"its channel {channel} is no longer configured")
                )
                return False
            return _refuse(state, command_id, plan)
        plans.append(plan)
    if len(plans) > client.channels_max:
        limit = f"client.channels_max is {client.channels_max}, and the client gets {len(plans)} channels"
        text = f"{access.named(state.user)} may not connect: {limit}"
        return _refuse(state, command_id, Disconnects.CHANNEL_LIMIT.because("channels_max", text))
    if claims and (refusal := (yield Admit(state.user, state.client))):
        # Before the token is used up: the client may present it to another node.
        return _refuse(state, command_id, refusal)
    outcomes: list[Any] | Error = (yield OpenChannels(tuple(plan.open() for plan in plans))) if plans else []
    if isinstance(outcomes, Error) or any(isinstance(outcome, Error) for outcome in outcomes):
        return _refuse(state, command_id, Disconnects.INTERNAL_ERROR)
    chain = SessionChain((state.session,), state.context.wall_clock(), login.by_token, login.channels)
    present: set[str] = set()
    if claims:
        presented = claims.chain.owners
        resumption = yield ResumeSession(state.user, state.client, presented, state.session)
        outcome = "unchecked" if isinstance(resumption, Error) else resumption.verdict
        present = _present(claims, resumption)
        state.emit(Reconnected(outcome, state.client))
        if outcome in ("reused", "revoked"):
            for plan in plans:
                state.emit(CancelSubscribe(plan.channel))
            return False
        owners = (state.session, *presented) if outcome == "unchecked" else (state.session,)
        chain = replace(claims.chain, owners=owners[:OWNERS_MAX])
        state.presented = presented
        state.resumed_at = state.context.wall_clock()
    # The last step before the connection counts, so that the limit holds for concurrent connects too.
    if refusal := (yield Admit(state.user, state.client if claims else "")):
        return _refuse(state, command_id, refusal)

    state.connecting, state.connected = False, True
    state.chain = chain if state.context.reconnect else None
    state.login_channels = login.channels
    if claims:
        resuming.offer(state, claims, present - login.grants.keys())
    expires, ttl = state.ttl(state.expires_at_unix)
    subs = {plan.channel: plan.result(state, opened) for plan, opened in zip(plans, outcomes, strict=True)}
    for plan in plans:
        plan.subscription.is_back = plan.channel in present
        state.subscriptions[plan.channel] = plan.subscription
    token = resuming.make_token(state)
    bytes_max = 0 if state.one_way else client.message_bytes_max
    data = resuming.with_token(login.data, token, bytes_max) if token else None
    result = m.ConnectResult(
        client=state.client,
        version=state.context.version,
        expires=expires,
        ttl=ttl,
        data=login.data if data is None else data,
        subs=subs,
        ping=round(client.ping_interval_s) or 1,
        pong=not state.one_way,
        session=state.session,
        node=state.context.node,
        time=round(state.context.wall_clock() * 1000),
        idempotency_ttl=0 if state.one_way else m.IDEMPOTENCY_TTL_S,
    )
    state.emit(Authenticated(state.user))
    state.send(m.Reply(command_id, connect=result))
    if token and data is None:
        resuming.push_token(state)
    for plan in plans:
        state.emit(SubscriptionStarted(plan.subscription))
    state.reschedule()
    return True


def _present(claims: ReconnectClaims, resumption: Any) -> set[str]:
    """The channels in which other clients still see a client that is back.

    The token may lack the last changes before the connection was lost. The broker remembers them.
    """
    if isinstance(resumption, Error):
        return set(claims.channels)
    present = set() if resumption.lapsed else set(claims.channels)
    for channel, is_joined in resumption.announced.items():
        if is_joined:
            present.add(channel)
        else:
            present.discard(channel)
    return present


def _refuse(state: SessionState, command_id: int, refusal: Error | Disconnect) -> bool:
    state.connecting = False
    state.refuse(command_id, refusal)
    return True


def refresh(state: SessionState, command_id: int, request: m.RefreshRequest) -> Flow:
    """Extend the connection by a new token of the same user.

    If the token names other server-side subscriptions, the client reconnects, and gets them.
    """
    verdict = yield Verify(request.token, "connection")
    if isinstance(verdict, Error):
        return state.refuse(command_id, verdict)
    if isinstance(verdict, Expired):
        # The client reconnects at once and gets error 109 there, so that it fetches a new token.
        return state.end(Disconnects.EXPIRED)
    if not isinstance(verdict, ConnectionClaims):
        return state.end(_invalid(verdict))
    if verdict.user != state.user:
        text = f"the connection token is refused: it is for {access.named(verdict.user)}, and the connection"
        text = f"{text} belongs to {access.named(state.user)}"
        return state.end(Disconnects.INVALID_TOKEN.because("token", text))
    if verdict.channels_digest() != state.login_channels:
        return state.end(Disconnects.INSUFFICIENT_STATE)
    state.set_expiry(verdict.expires_at)
    state.reschedule()
    if state.chain is not None:
        state.renew_soon()
    expires, ttl = state.ttl(verdict.expires_at)
    result = m.RefreshResult(state.client, state.context.version, expires, ttl)
    state.send(m.Reply(command_id, refresh=result))


def _invalid(verdict: object) -> Disconnect:
    """The disconnect for a connection token that is refused."""
    return Disconnects.INVALID_TOKEN.because(
        "token", f"the connection token is refused: {reason_of(verdict)}"
    )


def _event(state: SessionState, request: m.ConnectRequest, claims: ConnectionClaims | None) -> ConnectEvent:
    return ConnectEvent(
        client=state.client,
        user=claims.user if claims else "",
        data=m.value(request.data),
        name=request.name,
        version=request.version,
        headers=state.headers,
        has_token=claims is not None,
        state=state.shared_state(),
    )


def _identify(state: SessionState, claims: ConnectionClaims | None, answer: ConnectReply | None) -> None:
    """Set the client's user and info, and when the connection expires."""
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
            expires_at = state.context.wall_clock() + answer.ttl_s
    state.user = user
    state.info = m.ClientInfo(user, state.client, info)
    state.set_expiry(expires_at)


def _server_side(
    state: SessionState, claims: ConnectionClaims | None, answer: ConnectReply | None
) -> dict[str, Grant]:
    """The server-side subscriptions of a new connection."""
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
    """The user's personal channel, if the settings name one."""
    personal = state.context.client.user_personal_channel
    if not personal or not state.user:
        return {}
    return {personal_channel(personal, state.user): Grant()}
