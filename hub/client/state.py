"""What a client knows, and what it does to itself: the link, the connection on it, and what goes out.

`ClientMachine` adds what happens to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hub.client import values
from hub.client.backoff import backoff_s
from hub.client.calls import Call, Calls, Done
from hub.client.codec import ClientCodec
from hub.client.effects import CloseSocket, Effect, Emit, GetToken, OpenSocket, Write
from hub.client.errors import (
    ClientDisconnectedError,
    MessageTooLargeError,
    OperationTimeoutError,
    SubscriptionUnsubscribedError,
    TransportClosedError,
    with_remedy,
)
from hub.client.server_side import ServerSide
from hub.client.subscription import ClientCalls, SubscriptionMachine, SubscriptionState
from hub.client.timers import Timer, Timers
from hub.client.token_manager import Fetched, TokenManager, TokenSource
from hub.errors import RequestError
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Errors, reconnects

STABLE_S: Final = 5.0
"""A link that lived so long was a good one: the back-off begins anew after it."""

FRAME_BYTES_MAX: Final = 16_384
"""Commands that leave together are joined up to this size, well under any hub's limit for a message."""

_PING_MAX_S: Final = 86_400
"""A longer period of pings is taken for this one."""

_TOO_BIG: Final = 1009
"""The close code of a message over the peer's limit (RFC 6455 section 7.4.1)."""


class ClientState(StrEnum):
    """Where a client is."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """What a client keeps to.

    Args:
        name: what the hub calls this kind of client.
        version: of the app.
        renewable: whether the app can be asked for a token.
        timeout_s: how long opening a socket, connecting, or a call may take.
        min_reconnect_delay_s: the shortest wait before a try to come back.
        max_reconnect_delay_s: the longest.
        max_server_ping_delay_s: how late the hub's ping may be.
    """

    name: str = "python"
    version: str = ""
    renewable: bool = False
    timeout_s: float = 5.0
    min_reconnect_delay_s: float = 0.5
    max_reconnect_delay_s: float = 20.0
    max_server_ping_delay_s: float = 10.0


class ClientMachineState:
    """One client's state.

    Args:
        codec: of its encoding.
        options: what it keeps to.
        token: the app's first one.
        data: a payload that goes with each connect.
        chance: a number from 0 up to 1, anew at each call.
    """

    def __init__(
        self,
        codec: ClientCodec,
        options: ClientOptions,
        *,
        chance: Callable[[], float],
        token: str = "",
        data: m.Payload = m.NO_PAYLOAD,
    ) -> None:
        self.codec = codec
        self.options = options
        self.chance = chance
        self.data = data
        self.state = ClientState.DISCONNECTED
        self.why = "connect was not called"
        """Why the client is not connected, in words; empty while it is, or where nothing has failed yet."""
        self.now = 0.0
        self.timers = Timers()
        self.reconnect_token = ""
        """From the hub: it stands for the app's token at the next connect."""
        self.message_bytes_max = 0
        """The hub's limit to a message; 0 if the hub did not tell the limit."""
        tokens = TokenSource(self.timers, lambda: self.now, lambda: self.chance(), self.ask)
        self.client_calls: Final = ClientCalls(
            codec,
            tokens,
            is_connected=lambda: self.connected,
            emit=self.emit,
            request=self.request,
            release=self.release,
            abandon=self.abandon,
            reconnect=self.retry,
        )
        """For the subscriptions."""
        self.token_manager = TokenManager(
            tokens,
            token,
            renewable=options.renewable,
            channel="",
            present=self._refresh,
            problem=lambda error: self.emit(values.Error(6, error)),
            refused=self.stop,
        )
        self.subscriptions: dict[str, SubscriptionMachine] = {}
        self._server_side = ServerSide(codec, self.emit)
        self.calls = Calls(self.timers, options.timeout_s, self._write, lambda: self.why)
        self.effects: list[Effect] = []
        self._out: list[bytes] = []
        self.asked: dict[int, Fetched] = {}
        self._tickets = 0
        self.link = 0
        self.attempt = 0
        self._connected_at = 0.0
        self._timer: Timer | None = None
        """Of the next try, or of the one that is under way."""
        self.is_waiting = False
        """Whether the next try waits for its time."""
        self._pongs = False
        self.patience_s = 0.0
        self.silent_at = 0.0
        self._silence: Timer | None = None

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self.state is ClientState.CONNECTED

    @property
    def deadline(self) -> float:
        """When `tick` has something to do next, in monotonic seconds; infinite for never."""
        return self.timers.deadline

    # What subscriptions and tokens need

    def emit(self, event: values.Event, subscription: str | None = None) -> None:
        """Tell the app of an event of the client's own, or of a channel's subscription."""
        self.effects.append(Emit(event, subscription))

    def ask(self, channel: str, fetched: Fetched) -> None:
        """Ask the app for a token."""
        self._tickets += 1
        self.asked[self._tickets] = fetched
        self.effects.append(GetToken(self._tickets, channel))

    def request(self, request: m.Request, done: Done) -> None:
        """Send a command now."""
        self.calls.begin(Call(request, done), self.now, ready=True)

    def release(self) -> None:
        """Transmit the calls that waited, and need not any longer."""
        self.calls.release(self.ready)

    def abandon(self, channel: str) -> None:
        """End the calls that wait for a subscription which is over."""
        self.calls.abandon(SubscriptionUnsubscribedError(self.subscriptions[channel].why), channel)

    def ready(self, call: Call) -> bool:
        """Whether a call can be transmitted."""
        if call.channel is None or not self.connected:
            return self.connected
        return self.subscriptions[call.channel].state is SubscriptionState.SUBSCRIBED

    # Out

    def take(self) -> list[Effect]:
        """The effects since the last time."""
        self.flush()
        taken, self.effects = self.effects, []
        return taken

    def _write(self, command: m.Command) -> RequestError | None:
        """Write a command, unless the hub would close the connection for its size."""
        encoded = self.codec.encode(command)
        if 0 < self.message_bytes_max < len(encoded):
            return MessageTooLargeError(len(encoded), self.message_bytes_max)
        self._out.append(encoded)
        return None

    def _refresh(self, token: str) -> None:
        """Present a new token of the app. The reconnect token is older, and may grant other channels."""
        self.reconnect_token = ""
        self.request(m.RefreshRequest(token), self.token_manager.answered)

    def flush(self) -> None:
        """Put what was written into as few messages as their size allows."""
        if not self._out:
            return
        most = min(FRAME_BYTES_MAX, self.message_bytes_max or FRAME_BYTES_MAX)
        batch: list[bytes] = []
        size = 0
        for command in self._out:
            if batch and size + len(command) >= most:
                self.effects.append(Write(self.codec.join(batch)))
                batch, size = [], 0
            batch.append(command)
            size += len(command) + 1
        self.effects.append(Write(self.codec.join(batch)))
        self._out = []

    # Connecting

    def open(self) -> None:
        """Try: fetch a token where one is needed, then open a socket."""
        self.is_waiting = False
        if self.token_manager.missing and not self.reconnect_token:
            self.token_manager.fetch(
                self._dial, lambda error: self.retry(1, "no token", values.Error(5, error))
            )
        else:
            self._dial()

    def _dial(self) -> None:
        self.link += 1
        self._limit()
        self.effects.append(OpenSocket(self.link))

    def _limit(self) -> None:
        """Give the try that is under way its time anew."""

        def end() -> None:
            problem = values.Error(2, OperationTimeoutError(), answer="no answer in time")
            self.retry(1, "connect timeout", problem)

        self._after(self.options.timeout_s, end)

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._wait_no_longer()
        self._timer = self.timers.at(self.now + delay_s, action)

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def greet(self) -> None:
        """The socket is open: say who comes."""
        self._limit()
        returning = self.reconnect_token
        subs = self._server_side.requests()
        request = m.ConnectRequest(
            returning or self.token_manager.token, self.data, subs, self.options.name, self.options.version
        )
        # Its limit is the timer of the try.
        self.request(request, lambda outcome: self._answered(outcome, returning))

    def _answered(self, outcome: Any, returning: str) -> None:
        """The hub answered to the connect.

        Args:
            outcome: its result, or an error.
            returning: the reconnect token that was used, or none.
        """
        match outcome:
            case TransportClosedError():
                return
            case m.ConnectResult():
                self._connected(outcome)
                return
            case RequestError(code=Errors.TOKEN_EXPIRED.code) if returning:
                self._fall_back()
            case RequestError(code=Errors.TOKEN_EXPIRED.code) if self.token_manager.renewable:
                self.token_manager.token = ""
            case RequestError(temporary=False):
                self.emit(_refused(outcome))
                self.stop(outcome.code, outcome.message)
                return
        self.retry(outcome.code, outcome.message, _refused(outcome))

    def _fall_back(self) -> None:
        """The hub does not take the reconnect token: the app's own is next, anew where it can be."""
        self.reconnect_token = ""
        if self.token_manager.renewable:
            self.token_manager.token = ""

    def _connected(self, result: m.ConnectResult) -> None:
        data = self.codec.value(result.data)
        self.message_bytes_max = 0
        if isinstance(data, Mapping):
            self._keep_reconnect_token(data)
            data = self._without_limit(data)
        self.state = ClientState.CONNECTED
        self.why = ""
        self._connected_at = self.now
        self._wait_no_longer()
        self._pongs = result.pong
        self._watch(result.ping)
        self.token_manager.hold(result.expires, result.ttl)
        self.emit(values.Connected(result.client, data, result.node, result.version))
        for subscription in self.subscriptions.values():
            if subscription.state is SubscriptionState.SUBSCRIBING:
                subscription.start()
        self.release()
        self._server_side.connected(result.subs)

    def _without_limit(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the hub's limit to messages out of the data of a connect result."""
        limit = data.get("message_bytes_max")
        if type(limit) is not int:
            return data
        self.message_bytes_max = limit
        return {name: value for name, value in data.items() if name != "message_bytes_max"}

    def _keep_reconnect_token(self, data: Mapping[str, Any]) -> bool:
        """Take the reconnect token out of what the hub sent. Returns whether there was one."""
        token = data.get("reconnect_token")
        if not isinstance(token, str):
            return False
        self.reconnect_token = token
        return True

    def _watch(self, ping_s: int) -> None:
        """The link is dead once nothing came for a ping's period and a delay beyond."""
        self.patience_s = min(ping_s, _PING_MAX_S) + self.options.max_server_ping_delay_s if ping_s else 0.0
        if self.patience_s:
            self.silent_at = self.now + self.patience_s
            self._silence = self.timers.at(self.silent_at, self._listen)

    def _listen(self) -> None:
        if self.now >= self.silent_at:
            self.retry(2, "no ping")
        else:
            self._silence = self.timers.at(self.silent_at, self._listen)

    # Connected

    def receive(self, reply: m.Reply) -> None:
        """The hub said something."""
        if reply.id:
            self.calls.answer(reply)
        elif reply.push is not None:
            self._push(reply.push)
        elif self._pongs:
            self._write(m.Command())

    def _push(self, push: m.Push) -> None:
        subscription = self.subscriptions.get(push.channel)
        if subscription is not None and subscription.state is not SubscriptionState.UNSUBSCRIBED:
            subscription.push(push)
        elif push.message is not None:
            self._message(self.codec.value(push.message.data))
        elif push.refresh is not None:
            self.token_manager.hold(push.refresh.expires, push.refresh.ttl)
        elif push.disconnect is not None:
            self.closed(push.disconnect.code, push.disconnect.reason)
        elif push.subscribe is not None:
            self._server_side.joined(push.channel, push.subscribe)
        elif push.channel in self._server_side:
            self._server_side.push(push)

    def _message(self, data: Any) -> None:
        # The hub's own word to the client is no message of the app's.
        if not (isinstance(data, Mapping) and len(data) == 1 and self._keep_reconnect_token(data)):
            self.emit(values.Message(data))

    # Disconnecting

    def closed(self, code: int, reason: str) -> None:
        """The link ended with this code: come back, or do not."""
        if code == _TOO_BIG or (code >= Disconnects.CONNECTION_CLOSED.code and not reconnects(code)):
            answer = f"close code {code}: {reason}" if reason else f"close code {code}"
            self.emit(values.Error(2, RequestError(code, reason or answer), answer=answer))
        if code == _TOO_BIG:
            self.stop(3, "message size limit")
        elif code == Disconnects.INVALID_TOKEN.code and not self.connected and self.reconnect_token:
            self._fall_back()
            self.retry(code, reason)
        elif code < Disconnects.CONNECTION_CLOSED.code:
            self.retry(1, "transport closed")
        elif reconnects(code):
            if code == Disconnects.STATE_INVALIDATED.code:
                self._invalidate()
            self.retry(code, reason)
        else:
            self.stop(code, reason)

    def _invalidate(self) -> None:
        """The hub no longer holds to anything that it said: begin as if it had said nothing."""
        self._fall_back()
        self._server_side.invalidate()
        for subscription in self.subscriptions.values():
            subscription.invalidate()

    def retry(
        self, code: int, reason: str, problem: values.Error | None = None, retry_after_s: float = 0.0
    ) -> None:
        """Leave this link, and try another one after a while."""
        options = self.options
        if self.connected and self.now - self._connected_at >= STABLE_S:
            self.attempt = 0
        delay_s = retry_after_s + backoff_s(
            self.attempt, options.min_reconnect_delay_s, options.max_reconnect_delay_s, self.chance()
        )
        self.attempt += 1
        self._leave(ClientState.CONNECTING, code, reason)
        self.why = (problem.answer or str(problem.error) if problem is not None else "") or reason
        if problem is not None:
            self.emit(problem)
        self.emit(values.Connecting(code, reason, self.attempt, delay_s))
        self.is_waiting = True
        self._after(delay_s, self.open)

    def stop(self, code: int, reason: str) -> None:
        """Leave this link, and try no other."""
        if self.state is ClientState.DISCONNECTED:
            return
        self.is_waiting = False
        self._leave(ClientState.DISCONNECTED, code, reason)
        self.why = with_remedy(code, reason)
        self._wait_no_longer()
        self.calls.abandon(ClientDisconnectedError(self.why))
        self.asked.clear()
        self.emit(values.Disconnected(code, reason))

    def _leave(self, state: ClientState, code: int, reason: str) -> None:
        """Give up the link, and what hangs on it, for a state without one."""
        was_connected, self.state = self.connected, state
        self.link += 1
        self._out = []
        self.patience_s = 0.0
        if self._silence is not None:
            self._silence.cancel()
        self.token_manager.stop()
        self.effects.append(CloseSocket())
        self.calls.lose()
        for subscription in self.subscriptions.values():
            subscription.suspend(code, reason)
        if was_connected:
            self._server_side.suspend(code, reason)


def _refused(error: RequestError) -> values.Error:
    """The event for a connect that the hub refused."""
    return values.Error(13, error, answer=f"error {error.code}: {error.message}")
