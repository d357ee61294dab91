"""The flows of the commands publish, history, presence, presence_stats, rpc and send."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Literal

from hub.core import access
from hub.core.effects import CallHandler, Publish, ReadHistory, ReadPresence
from hub.core.hooks import MessageEvent, PublishEvent, PublishReply, RPCEvent, RPCReply
from hub.core.rules import wrong_type
from hub.core.session.state import Flow, SessionState
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Error, Errors
from hub.settings import ChannelOptions

HISTORY_REPLY_BYTES_MAX: Final = 262_144
"""Payload bytes of one history reply, about. In JSON, with names and escapes, such a reply stays below the
1 MiB that client libraries commonly accept in a message, and well below an outbox of the default size."""


APP_CODES_FROM: Final = 1000
"""Error codes from here on are the app's own: in reply to an RPC they are an answer, not a refusal."""


def publish(state: SessionState, command_id: int, request: m.PublishRequest) -> Flow:
    """A client publishes to a channel."""
    channel = request.channel
    context = state.context
    options = context.rules.find(channel)
    if isinstance(options, Error):
        return state.refuse(command_id, options)
    if request.type or request.key or request.removed:
        return state.refuse(command_id, wrong_type(request.type))
    if not request.data:
        refusal = Errors.BAD_REQUEST.because("bad_request", "publish.data is missing", channel)
        return state.refuse(command_id, refusal)
    key = request.idempotency_key
    if key and (len(key) > m.IDEMPOTENCY_KEY_CHARS_MAX or not (key.isascii() and key.isprintable())):
        limit = m.IDEMPOTENCY_KEY_CHARS_MAX
        fault = f"publish.idempotency_key is not 1 to {limit} printable ASCII characters"
        return state.refuse(command_id, Errors.BAD_REQUEST.because("bad_request", fault, channel))
    answer: PublishReply | None = None
    if "publish" in context.hooks and context.is_handled("publish", channel):
        data = m.value(request.data)
        event = PublishEvent(state.client, state.user, channel, data, key, state=state.shared_state())
        outcome = yield CallHandler(event)
        state.after_handler()
        if outcome is not None and not isinstance(outcome, PublishReply):
            doing = f"publish to {channel}"
            return state.refuse(
                command_id, access.refused_by_app(outcome, "publish", state.user, doing, channel)
            )
        answer = outcome
    subscription = state.subscriptions.get(channel)
    if answer is None and not access.may(
        "publish",
        options,
        channel,
        state.user,
        subscribed=subscription is not None,
        insecure=context.client.insecure,
    ):
        refusal = access.refusal("publish", options, channel, state.user, subscribed=subscription is not None)
        return state.refuse(command_id, refusal)
    operation = Publish(channel, request.data, subscription.info if subscription else state.info)
    if answer:
        data = request.data if answer.data is None else m.payload(answer.data)
        tags = None if answer.tags is None else dict(answer.tags)
        operation = Publish(channel, data, operation.info, tags, answer.skip_history)
    if key:
        # No client can take a key of another user or of the app. No key holds the separator.
        operation.idempotency_key = f"\0{state.user}\0{key}"
    position = yield operation
    if isinstance(position, Error):
        return state.refuse(command_id, position)
    state.send(m.Reply(command_id, publish=m.PublishResult()))


def history(state: SessionState, command_id: int, request: m.HistoryRequest) -> Flow:
    """A client reads the history of a channel. The client continues a long one from its last offset."""
    options = state.context.rules.find(request.channel)
    if isinstance(options, Error):
        return state.refuse(command_id, options)
    if not options.history_size:
        remedy = "history_size and history_ttl_s"
        return state.refuse(command_id, access.switched_off(request.channel, "the history", remedy))
    if refusal := _refusal(state, "history", request.channel, options):
        return state.refuse(command_id, refusal)
    most = state.context.client.history_limit_max
    limit = min(request.limit, most) if request.limit >= 0 else most
    operation = ReadHistory(request.channel, limit, request.since, request.reverse, HISTORY_REPLY_BYTES_MAX)
    outcome = yield from _read(state, operation)
    if isinstance(outcome, Error):
        return state.refuse(command_id, outcome)
    if request.since and request.since.epoch not in ("", outcome.top.epoch):
        return state.refuse(command_id, Errors.UNRECOVERABLE_POSITION)
    result = m.HistoryResult(outcome.publications, outcome.top.epoch, outcome.top.offset)
    state.send(m.Reply(command_id, history=result))


def presence(
    state: SessionState, command_id: int, request: m.PresenceRequest | m.PresenceStatsRequest
) -> Flow:
    """A client asks which clients are present in a channel, or how many."""
    options = state.context.rules.find(request.channel)
    if isinstance(options, Error):
        return state.refuse(command_id, options)
    if not options.presence:
        return state.refuse(command_id, access.switched_off(request.channel, "the presence", "presence"))
    if refusal := _refusal(state, "presence", request.channel, options):
        return state.refuse(command_id, refusal)
    outcome = yield from _read(state, ReadPresence(request.channel))
    if isinstance(outcome, Error):
        return state.refuse(command_id, outcome)
    if isinstance(request, m.PresenceRequest):
        state.send(m.Reply(command_id, presence=m.PresenceResult(outcome)))
    else:
        stats = m.PresenceStatsResult(len(outcome), len({info.user for info in outcome.values()}))
        state.send(m.Reply(command_id, presence_stats=stats))


def rpc(state: SessionState, command_id: int, request: m.RPCRequest) -> Flow:
    """A client calls a method of the app."""
    method = request.method
    if "rpc" not in state.context.hooks:
        text = f"no one answers the method {method!r}: the app has no on_rpc handler; decorate one"
        return state.refuse(command_id, Errors.NOT_AVAILABLE.because("switched_off", text))
    if not state.context.is_handled("rpc", method):
        return state.refuse(command_id, access.unknown_method(method))
    event = RPCEvent(state.client, state.user, method, m.value(request.data), state=state.shared_state())
    outcome = yield CallHandler(event)
    state.after_handler()
    if isinstance(outcome, (Error, Disconnect)):
        if outcome.code < APP_CODES_FROM or isinstance(outcome, Disconnect):
            outcome = access.refused_by_app(outcome, "rpc", state.user, f"call {method!r}")
        return state.refuse(command_id, outcome)
    data = m.payload(outcome.data) if isinstance(outcome, RPCReply) else m.NO_PAYLOAD
    state.send(m.Reply(command_id, rpc=m.RPCResult(data)))


def send(state: SessionState, request: m.SendRequest) -> Flow:
    """A client sends a message that has no reply."""
    event = MessageEvent(state.client, state.user, m.value(request.data), state=state.shared_state())
    outcome = yield CallHandler(event)
    state.after_handler()
    if isinstance(outcome, Disconnect):
        state.end(outcome)
    elif isinstance(outcome, Error):
        state.record(outcome)


def _read(
    state: SessionState, operation: ReadHistory | ReadPresence
) -> Generator[ReadHistory | ReadPresence, Any, Any]:
    """Count a read while it is in progress: its reply may be large."""
    state.reads += 1
    outcome = yield operation
    state.reads -= 1
    return outcome


def _refusal(
    state: SessionState,
    action: Literal["history", "presence"],
    channel: str,
    options: ChannelOptions,
) -> Error | None:
    """The error where the client may not read; None where it may."""
    subscribed, insecure = channel in state.subscriptions, state.context.client.insecure
    if access.may(action, options, channel, state.user, subscribed=subscribed, insecure=insecure):
        return None
    return access.refusal(action, options, channel, state.user, subscribed=subscribed)
