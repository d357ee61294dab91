"""The flows of the commands subscribe, unsubscribe and sub_refresh, and of server-side subscriptions."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final

from hub.core import access
from hub.core.channel.filter import Filter, compiled
from hub.core.channel.stream import Opened
from hub.core.channel.subscription import OPEN, Grant, Subscription, build
from hub.core.effects import CallHandler, CancelSubscribe, OpenChannel, Operation, SubscriptionStarted, Verify
from hub.core.hooks import SubscribeEvent, SubscribeReply
from hub.core.rules import wrong_type
from hub.core.session.state import Flow, SessionState
from hub.core.tokens import Expired, SubscriptionClaims, reason_of
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors, Unsubscribes
from hub.settings import ChannelOptions

FLAG_REJECT_UNRECOVERED: Final = 2
"""Bit of a subscribe request's `flag`: answer with error 112 if the subscription cannot be recovered."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A subscription that is permitted but does not exist yet."""

    request: m.SubscribeRequest
    grant: Grant
    subscription: Subscription

    @property
    def channel(self) -> str:
        return self.subscription.channel

    def open(self) -> OpenChannel:
        """The operation that opens the channel."""
        since = None
        if self.request.recover and self.subscription.recoverable:
            since = m.StreamPosition(self.request.offset, self.request.epoch)
        return OpenChannel(self.channel, self.subscription.has_position, since)

    def result(self, state: SessionState, opened: Opened) -> m.SubscribeResult:
        """The result for the client, once the channel is open."""
        expires, ttl = state.ttl(self.grant.expires_at)
        result = m.SubscribeResult(expires, ttl, data=self.grant.data, delta=self.subscription.delta)
        subscription, top = self.subscription, opened.top
        if subscription.has_position:
            result.recoverable = subscription.recoverable
            result.positioned = subscription.positioned
            result.epoch, result.offset = top.epoch, top.offset
            subscription.epoch, subscription.offset = top.epoch, top.offset
        if self.request.recover:
            result.was_recovering = True
        recovery = opened.recovery
        if recovery is not None:
            missed = recovery.publications
            result.recovered = recovery.recovered
            result.offset = subscription.offset = recovery.position.offset
            if missed and state.reserve_room(missed.size):
                result.publications = subscription.page(missed, state.context.deltas)
                subscription.offset += len(missed)
            if not result.publications:
                # If the filter passes none of them, none of them moves the client's position.
                result.offset = subscription.offset
            subscription.is_backlogged = subscription.offset < top.offset
        return result


def subscribe(state: SessionState, command_id: int, request: m.SubscribeRequest) -> Flow:
    """A client subscribes to a channel."""
    channel = request.channel
    options = state.context.rules.find(channel)
    if isinstance(options, Error):
        return state.refuse(command_id, options)
    if request.type or request.phase:
        return state.refuse(command_id, wrong_type(request.type))
    if channel in state.subscriptions:
        return state.refuse(command_id, Errors.ALREADY_SUBSCRIBED)
    wanted = _filter(request, options)
    if isinstance(wanted, Error):
        return state.refuse(command_id, wanted)
    grant = yield from _permission(state, request, options)
    if not isinstance(grant, Grant):
        return state.refuse(command_id, grant)
    plan = _plan(state, request, options, grant, server_side=False, wanted=wanted)
    opened = yield from _open(state, plan)
    if isinstance(opened, Error):
        return state.refuse(command_id, opened)
    result = plan.result(state, opened)
    if request.recover and not result.recovered and request.flag & FLAG_REJECT_UNRECOVERED:
        state.emit(CancelSubscribe(channel))
        return state.refuse(command_id, Errors.UNRECOVERABLE_POSITION)
    if request.recoverable and not result.recoverable:
        state.record(access.unrecoverable(channel, options))
    state.send(m.Reply(command_id, subscribe=result))
    _join(state, plan)


def subscribe_by_server(
    state: SessionState, channel: str, grant: Grant, since: m.StreamPosition | None
) -> Flow:
    """The server subscribes a client to a channel, and pushes the publications since a position.

    A backend asked for it, and has its answer already: a failure is logged.
    """
    if channel in state.subscriptions:
        return
    request = m.SubscribeRequest(channel)
    if since is not None:
        request.recover, request.offset, request.epoch = True, since.offset, since.epoch
    plan = plan_by_server(state, request, grant)
    opened = plan if isinstance(plan, Error) else (yield from _open(state, plan))
    if isinstance(plan, Error) or isinstance(opened, Error):
        text = f"{access.named(state.user)} was not subscribed to {channel}, as a backend asked:"
        cause = opened.cause.text if opened.cause else "the broker failed, so subscribe the client again"
        reason = opened.cause.reason if opened.cause else "broker"
        return state.record(opened.because(reason, f"{text} {cause}", channel))
    result = plan.result(state, opened)
    push = m.SubscribePush(result.recoverable, result.epoch, result.offset, result.positioned, result.data)
    state.push(m.Push(channel=channel, subscribe=push))
    for publication in result.publications:
        state.push(m.Push(channel=channel, pub=publication))
    _join(state, plan)


def unsubscribe(state: SessionState, command_id: int, request: m.UnsubscribeRequest) -> Flow:
    """A client unsubscribes from a channel. It is no error if it is not subscribed."""
    if not state.context.rules.is_valid(request.channel):
        return state.refuse(command_id, state.context.rules.refusal(request.channel))
    state.drop_restorable(request.channel)
    if subscription := state.subscriptions.get(request.channel):
        state.leave(subscription)
    state.send(m.Reply(command_id, unsubscribe=m.UnsubscribeResult()))
    yield from ()


def sub_refresh(state: SessionState, command_id: int, request: m.SubRefreshRequest) -> Flow:
    """Extend a subscription by a new token."""
    options = state.context.rules.find(request.channel)
    if isinstance(options, Error):
        return state.refuse(command_id, options)
    subscription = state.subscriptions.get(request.channel)
    if subscription is None:
        text = f"{access.named(state.user)} is not subscribed to {request.channel}, and cannot refresh it"
        return state.refuse(
            command_id, Errors.PERMISSION_DENIED.because("not_subscribed", text, request.channel)
        )
    claims = yield from _claims(state, request.channel, request.token)
    if request.channel not in state.subscriptions:
        return state.refuse(command_id, Errors.EXPIRED)
    if claims == Errors.TOKEN_EXPIRED:
        # Not error 109, on which SDKs give up the subscription: they subscribe again after this unsubscribe,
        # and fetch another token for it. A subscription that the server made comes back with the connection.
        if subscription.server_side:
            return state.end(Disconnects.SUBSCRIPTION_EXPIRED)
        state.leave(subscription, Unsubscribes.EXPIRED)
        return state.refuse(command_id, Errors.EXPIRED)
    if not isinstance(claims, SubscriptionClaims):
        return state.refuse(command_id, claims)
    subscription.deadline = state.monotonic(claims.expires_at)
    if subscription.grant is not OPEN:
        subscription.grant = replace(subscription.grant, expires_at=claims.expires_at)
    state.reschedule()
    state.changed(subscription)
    expires, ttl = state.ttl(claims.expires_at)
    state.send(m.Reply(command_id, sub_refresh=m.SubRefreshResult(expires, ttl)))


def plan_by_server(state: SessionState, request: m.SubscribeRequest, grant: Grant) -> Plan | Error:
    """Plan a subscription without asking for permission. Only the channel's name can be wrong."""
    options = state.context.rules.find(request.channel)
    if isinstance(options, Error):
        return options
    return _plan(state, request, options, grant, server_side=True)


def grant_of(state: SessionState, reply: SubscribeReply) -> Grant:
    """The grant in an app's reply."""
    return Grant(
        m.payload(reply.info) if reply.info is not None else m.NO_PAYLOAD,
        m.payload(reply.data) if reply.data is not None else m.NO_PAYLOAD,
        state.context.wall_clock() + reply.ttl_s if reply.ttl_s is not None else 0,
        reply,
    )


def _plan(
    state: SessionState,
    request: m.SubscribeRequest,
    options: ChannelOptions,
    grant: Grant,
    *,
    server_side: bool,
    wanted: Filter | None = None,
) -> Plan:
    readable = access.may(
        "history",
        options,
        request.channel,
        state.user,
        subscribed=True,
        insecure=state.context.client.insecure,
    )
    subscription = build(
        options,
        request,
        state.info,
        grant,
        server_side=server_side,
        may_read_history=readable,
        filter=wanted,
    )
    subscription.deadline = state.monotonic(grant.expires_at)
    return Plan(request, grant, subscription)


def _filter(request: m.SubscribeRequest, options: ChannelOptions) -> Filter | Error | None:
    """Compile the filter that a client asks for."""
    if request.tf is None:
        return None
    if not options.allow_tags_filter:
        return access.switched_off(request.channel, "a filter by tags", "allow_tags_filter")
    return compiled(request.tf) or Errors.BAD_REQUEST.because(
        "bad_request", "subscribe.tf is not a filter", request.channel
    )


def _open(state: SessionState, plan: Plan) -> Generator[Operation, Any, Any]:
    """Open the channel of a plan, unless the client has too many. Returns `Opened` or an error."""
    if len(state.subscriptions) + state.opening >= state.context.client.channels_max:
        most = state.context.client.channels_max
        text = f"{access.named(state.user)} has {most} subscriptions, as many as client.channels_max allows"
        return Errors.LIMIT_EXCEEDED.because("channels_max", text, plan.channel)
    state.opening += 1
    opened = yield plan.open()
    state.opening -= 1
    if isinstance(opened, Error):
        state.emit(CancelSubscribe(plan.channel))
    return opened


def _join(state: SessionState, plan: Plan) -> None:
    subscription = plan.subscription
    if restorable := state.restorable.pop(plan.channel, None):
        subscription.is_back = restorable.is_back
    state.subscriptions[plan.channel] = subscription
    state.reschedule()
    state.changed(subscription)
    state.emit(SubscriptionStarted(subscription))


def _permission(state: SessionState, request: m.SubscribeRequest, options: ChannelOptions) -> Any:
    """Check, in this order: the reconnect token, the token, the app, the channel's rules.

    Returns:
        A `Grant`, or an `Error` or `Disconnect` that refuses.
    """
    restorable = state.restorable.get(request.channel)
    if restorable is not None and restorable.grant is not OPEN:
        return restorable.grant
    grant: Grant | None = None
    if request.token:
        claims = yield from _claims(state, request.channel, request.token)
        if not isinstance(claims, SubscriptionClaims):
            return claims
        grant = Grant(claims.info, expires_at=claims.expires_at, overrides=claims.override)
    is_handled = state.handles("subscribe", request.channel)
    if is_handled:
        event = SubscribeEvent(
            state.client,
            state.user,
            request.channel,
            m.value(request.data),
            grant is not None,
            state=state.shared_state(),
        )
        outcome: SubscribeReply | Error | Disconnect | None = yield CallHandler(event)
        state.after_handler()
        if isinstance(outcome, SubscribeReply):
            return grant_of(state, outcome)
        if outcome is not None:
            doing = f"subscribe to {request.channel}"
            return access.refused_by_app(outcome, "subscribe", state.user, doing, request.channel)
    if grant is not None:
        return grant
    insecure = state.context.client.insecure
    if access.may_subscribe(options, request.channel, state.user, insecure=insecure):
        # A grant of its own is in the reconnect token, so that the app is not asked again after a reconnect.
        return Grant() if is_handled else OPEN
    return access.subscribe_refusal(options, request.channel, state.user)


def _claims(state: SessionState, channel: str, token: str) -> Any:
    """The claims of a subscription token for this client and channel, or an `Error` that refuses."""
    verdict = yield Verify(token, "subscription")
    if isinstance(verdict, Error):
        return verdict
    if isinstance(verdict, Expired):
        text = f"the subscription token of {access.named(state.user)} for {channel} has expired:"
        remedy = "let the client fetch another (get_token, getToken), or sign tokens that are good for longer"
        return Errors.TOKEN_EXPIRED.because("token", f"{text} {remedy}", channel)
    why = ""
    if not isinstance(verdict, SubscriptionClaims):
        why = reason_of(verdict)
    elif verdict.channel != channel:
        why = f"it is for the channel {verdict.channel}"
    elif verdict.user != state.user:
        why = f"it is for {access.named(verdict.user)}"
    if not why:
        return verdict
    text = f"the subscription token of {access.named(state.user)} for {channel} is refused: {why}"
    return Errors.PERMISSION_DENIED.because("token", text, channel)
