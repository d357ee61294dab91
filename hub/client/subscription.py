"""The state of one subscription of a client, and the events that change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hub.client import values
from hub.client.backoff import backoff_s
from hub.client.calls import Done
from hub.client.codec import ClientCodec
from hub.client.errors import OperationTimeoutError, TransportClosedError, with_remedy
from hub.client.quoted import DeltaDecoder
from hub.client.timers import Timer
from hub.client.token_manager import TokenManager, TokenSource
from hub.errors import RequestError
from hub.protocol import messages as m
from hub.protocol.codes import Errors, Unsubscribes

RESUBSCRIBES_FROM: Final = 2500
"""The least code of an unsubscribe after which the client subscribes again by itself."""


class SubscriptionState(StrEnum):
    """Where a subscription is."""

    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBING = "subscribing"
    SUBSCRIBED = "subscribed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionOptions:
    """How a client subscribes.

    Args:
        token: the first subscription token, where the channel needs one.
        renewable: whether the app can be asked for others.
        data: for the app; a payload.
        recoverable: get what was missed after a reconnect, where the channel keeps history.
        positioned: have the hub watch for gaps.
        join_leave: be told who comes and goes.
        since: where to begin.
        delta: the kind of deltas to take, where the channel allows them; empty for none.
        tags_filter: which publications are wanted; None for all.
        min_delay_s: the shortest wait before a subscribe that failed is tried again.
        max_delay_s: the longest.
    """

    token: str = ""
    renewable: bool = False
    data: m.Payload = m.NO_PAYLOAD
    recoverable: bool = False
    positioned: bool = False
    join_leave: bool = False
    since: m.StreamPosition | None = None
    delta: str = ""
    tags_filter: m.FilterNode | None = None
    min_delay_s: float = 0.5
    max_delay_s: float = 20.0


@dataclass(frozen=True, slots=True)
class ClientCalls:
    """What a subscription uses of its client.

    Args:
        codec: of the client's encoding.
        tokens: where tokens come from, and the client's time.
        is_connected: returns whether commands can be sent.
        emit: tells the app of an event of the subscription to a channel.
        request: sends a command now.
        release: transmits the calls that waited until this subscription was made.
        abandon: ends the calls that wait for the subscription to a channel, which is over.
        reconnect: closes this connection with a code and a reason, and opens another one after a delay.
    """

    codec: ClientCodec
    tokens: TokenSource
    is_connected: Callable[[], bool]
    emit: Callable[[values.Event, str], None]
    request: Callable[[m.Request, Done], None]
    release: Callable[[], None]
    abandon: Callable[[str], None]
    reconnect: Callable[[int, str], None]


class SubscriptionMachine:
    """One subscription of a client.

    Args:
        client: the calls of the client.
        channel: its name.
        options: how it subscribes.
    """

    def __init__(self, client: ClientCalls, channel: str, options: SubscriptionOptions) -> None:
        self.channel = channel
        self.state = SubscriptionState.UNSUBSCRIBED
        self.why = "subscribe was not called"
        """Why the client is not subscribed, in words; empty while it is, or where nothing has failed yet."""
        self.position = options.since
        """Of the last publication seen; None where there is nothing to recover from."""
        self.token_manager = TokenManager(
            client.tokens,
            options.token,
            renewable=options.renewable,
            channel=channel,
            present=self._present,
            problem=lambda error: self._emit(values.Error(9, error, channel)),
            refused=self._refused,
        )
        self._client = client
        self._options = options
        self._chain: DeltaDecoder | None = None
        """Where the hub sends deltas."""
        self._attempt = 0
        self._turn = 0
        self._timer: Timer | None = None

    def subscribe(self) -> None:
        """Subscribe, now or once the client is connected."""
        if self.state is SubscriptionState.UNSUBSCRIBED:
            self._set(SubscriptionState.SUBSCRIBING)
            self.why = ""
            self._emit(values.Subscribing(self.channel, 0, "subscribe called"))
            if self._client.is_connected():
                self.start()

    def unsubscribe(self) -> None:
        """Leave the channel. Its position is kept for another `subscribe`."""
        if self.state is not SubscriptionState.UNSUBSCRIBED:
            self._leave()
            self._end(0, "unsubscribe called")

    def start(self) -> None:
        """The connection stands: ask for the subscription."""
        self._next_turn()
        if self.token_manager.missing:
            self.token_manager.fetch(
                self._ask, lambda error: self._retry(values.Error(8, error, self.channel))
            )
        else:
            self._ask()

    def suspend(self, code: int, reason: str) -> None:
        """The connection is gone, or the hub wants this to begin again."""
        if self.state is SubscriptionState.SUBSCRIBED:
            self._set(SubscriptionState.SUBSCRIBING)
            self._emit(values.Subscribing(self.channel, code, reason))
        self._next_turn()

    def invalidate(self) -> None:
        """The hub no longer holds to what it said: forget the position, and a token that can be had anew."""
        self.position = None
        if self.token_manager.renewable:
            self.token_manager.token = ""

    def restored(self, result: m.SubscribeResult) -> None:
        """The hub subscribed the client to this channel."""
        self._next_turn()
        self.state = SubscriptionState.SUBSCRIBED
        self.why = ""
        self._attempt = 0
        self.token_manager.hold(result.expires, result.ttl)
        self._chain = DeltaDecoder(self._client.codec) if result.delta else None
        self._emit(values.subscribed(self._client.codec, self.channel, result))
        self.position = recovered_from(self.position, result)
        for pub in result.publications:
            self.publication(pub)
        if self.position is not None:
            self.position = m.StreamPosition(max(self.position.offset, result.offset), result.epoch)
        self._client.release()

    def publication(self, pub: m.Publication) -> None:
        """A publication came: it moves the position, or is one that was seen."""
        codec = self._client.codec
        data = self._chain.value(pub) if self._chain else codec.value(pub.data)
        position = self.position
        if position is not None and pub.offset:
            if pub.offset <= position.offset:
                return
            self.position = m.StreamPosition(pub.offset, position.epoch)
        self._emit(values.Published(self.channel, values.publication_of(codec, pub, data)))

    def push(self, push: m.Push) -> None:
        """The hub pushed something of this channel."""
        if self.state is not SubscriptionState.SUBSCRIBED:
            return
        if push.pub is not None:
            self.publication(push.pub)
        elif push.join is not None:
            info = values.client_info(self._client.codec, push.join.info)
            self._emit(values.Joined(self.channel, info))
        elif push.leave is not None:
            info = values.client_info(self._client.codec, push.leave.info)
            self._emit(values.Left(self.channel, info))
        elif push.unsubscribe is not None:
            self._unsubscribed(push.unsubscribe)

    def _unsubscribed(self, push: m.UnsubscribePush) -> None:
        if push.code < RESUBSCRIBES_FROM:
            self._end(push.code, push.reason)
            return
        if push.code == Unsubscribes.STATE_INVALIDATED.code:
            self.invalidate()
        elif push.code == Unsubscribes.EXPIRED.code and self.token_manager.renewable:
            self.token_manager.token = ""
        self.suspend(push.code, push.reason)
        self._start_later()  # not at once: all subscribers may have been told

    def _ask(self) -> None:
        options, position = self._options, self.position
        request = m.SubscribeRequest(
            self.channel,
            self.token_manager.token,
            data=options.data,
            positioned=options.positioned,
            recoverable=options.recoverable,
            join_leave=options.join_leave,
            delta=options.delta,
            tf=options.tags_filter,
        )
        if position is not None:
            request.recover, request.epoch, request.offset = True, position.epoch, position.offset
        self._next_turn()
        self._client.request(request, self._heard(self._answered))

    def _answered(self, outcome: Any) -> None:
        match outcome:
            case TransportClosedError():
                pass
            case OperationTimeoutError():
                self._client.reconnect(3, "subscribe timeout")
            case RequestError(code=Errors.TOKEN_EXPIRED.code) if self.token_manager.renewable:
                self.token_manager.token = ""
                self._retry(_refused(outcome, self.channel))
            case RequestError(temporary=True):
                self._retry(_refused(outcome, self.channel))
            case RequestError():
                self._emit(_refused(outcome, self.channel))
                self._end(outcome.code, outcome.message)
            case _:
                self.restored(outcome)

    def _retry(self, problem: values.Error) -> None:
        self.why = problem.answer or str(problem.error)
        self._emit(problem)
        self._start_later()

    def _start_later(self) -> None:
        options = self._options
        delay_s = backoff_s(
            self._attempt, options.min_delay_s, options.max_delay_s, self._client.tokens.chance()
        )
        self._attempt += 1
        self._timer = self._client.tokens.timers.at(self._client.tokens.now() + delay_s, self.start)

    def _present(self, token: str) -> None:
        request = m.SubRefreshRequest(self.channel, token)
        self._client.request(request, self._heard(self.token_manager.answered))

    def _refused(self, code: int, reason: str) -> None:
        if self.state is SubscriptionState.SUBSCRIBED:
            self._leave()
        self._end(code, reason)

    def _leave(self) -> None:
        if self._client.is_connected():
            request = m.UnsubscribeRequest(self.channel)
            self._client.request(request, self._left)

    def _left(self, outcome: Any) -> None:
        if isinstance(outcome, RequestError) and not isinstance(outcome, TransportClosedError):
            self._client.reconnect(4, "unsubscribe error")

    def _end(self, code: int, reason: str) -> None:
        self._set(SubscriptionState.UNSUBSCRIBED)
        self.why = with_remedy(code, reason)
        self._client.abandon(self.channel)
        self._emit(values.Unsubscribed(self.channel, code, reason))

    def _set(self, state: SubscriptionState) -> None:
        self.state = state
        self._next_turn()

    def _heard(self, done: Done) -> Done:
        """`done`, as long as nothing else has happened."""
        turn = self._turn

        def hear(outcome: Any) -> None:
            if turn == self._turn:
                done(outcome)

        return hear

    def _next_turn(self) -> None:
        """What was awaited before is no longer heard."""
        self._turn += 1
        self.token_manager.stop()
        if self._timer is not None:
            self._timer.cancel()

    def _emit(self, event: values.Event) -> None:
        self._client.emit(event, self.channel)


def _refused(error: RequestError, channel: str) -> values.Error:
    """The event for a subscribe that the hub refused."""
    return values.Error(14, error, channel, answer=f"error {error.code}: {error.message}")


def recovered_from(
    position: m.StreamPosition | None, result: m.SubscribeResult | m.SubscribePush
) -> m.StreamPosition | None:
    """The position before the publications of a result: where the client was, or where it now begins.

    Args:
        position: what the client asked to recover from.
        result: of the subscription.
    """
    if not result.recoverable:
        return None
    if position is not None and isinstance(result, m.SubscribeResult) and result.recovered:
        return m.StreamPosition(position.offset, result.epoch)
    return m.StreamPosition(result.offset, result.epoch)
