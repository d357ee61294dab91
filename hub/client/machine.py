"""The client as a state machine: what the app wants, what a socket brings and the time in, effects out.

It knows no socket, loop or clock, so that it runs under asyncio, gevent or a test alike. Whoever drives it
carries the effects out in their order, and calls `tick` when `deadline` is reached.
"""

from __future__ import annotations

from typing import Any

from hub.client import values
from hub.client.calls import Call
from hub.client.effects import Effect, Settle
from hub.client.errors import (
    ClientDisconnectedError,
    DuplicateSubscriptionError,
    SubscriptionUnsubscribedError,
)
from hub.client.state import ClientMachineState, ClientState
from hub.client.subscription import SubscriptionMachine, SubscriptionOptions, SubscriptionState
from hub.protocol import messages as m


class ClientMachine(ClientMachineState):
    """One client, through all its connections.

    Each input takes monotonic seconds, and returns effects. Nothing that a peer sends makes one raise.
    """

    # What the app wants

    def connect(self, now: float) -> list[Effect]:
        """Connect, and stay connected until `disconnect` or a refusal."""
        self.now = now
        if self.state is ClientState.DISCONNECTED:
            self.state = ClientState.CONNECTING
            self.why = ""
            self.attempt = 0
            self.emit(values.Connecting(0, "connect called", 0, 0.0))
            self.open()
        return self.take()

    def disconnect(self, now: float) -> list[Effect]:
        """Leave. Nothing but `connect` brings the client back."""
        self.now = now
        self.flush()
        self.stop(0, "disconnect called")
        return self.take()

    def hurry(self, now: float) -> list[Effect]:
        """Try to come back at once, in place of after the delay: the network is there again."""
        self.now = now
        if self.is_waiting:
            self._wait_no_longer()
            self.open()
        return self.take()

    def set_token(self, token: str) -> None:
        """Use this token of the app from the next connect on."""
        self.token_manager.token, self.reconnect_token = token, ""

    def new_subscription(self, channel: str, options: SubscriptionOptions) -> SubscriptionMachine:
        """Register a subscription, which `subscribe` begins.

        Raises:
            DuplicateSubscriptionError: the channel has one.
        """
        if channel in self.subscriptions:
            raise DuplicateSubscriptionError(channel)
        subscription = self.subscriptions[channel] = SubscriptionMachine(self.client_calls, channel, options)
        return subscription

    def remove_subscription(self, channel: str, now: float) -> list[Effect]:
        """Unsubscribe where that was not done, and forget the subscription."""
        effects = self.unsubscribe(channel, now)
        del self.subscriptions[channel]
        return effects

    def subscribe(self, channel: str, now: float) -> list[Effect]:
        """Begin a subscription that is registered."""
        self.now = now
        self.subscriptions[channel].subscribe()
        return self.take()

    def unsubscribe(self, channel: str, now: float) -> list[Effect]:
        """End a subscription; it stays registered, with its position."""
        self.now = now
        self.subscriptions[channel].unsubscribe()
        return self.take()

    def call(self, key: Any, request: m.Request, now: float, channel: str | None = None) -> list[Effect]:
        """Ask the hub for something. `Settle` with the key has the outcome.

        Args:
            key: anything.
            request: what to ask.
            now: monotonic seconds.
            channel: wait until the client's subscription to this channel stands.
        """
        self.now = now

        def settle(outcome: Any) -> None:
            self.effects.append(Settle(key, outcome))

        subscription = self.subscriptions.get(channel) if channel is not None else None
        if self.state is ClientState.DISCONNECTED:
            settle(ClientDisconnectedError(self.why))
        elif channel is not None and (
            subscription is None or subscription.state is SubscriptionState.UNSUBSCRIBED
        ):
            settle(SubscriptionUnsubscribedError(subscription.why if subscription else ""))
        else:
            call = Call(request, settle, channel)
            self.calls.begin(call, now, ready=self.ready(call))
        return self.take()

    # What the driver brings

    def opened(self, link: int, now: float) -> list[Effect]:
        """The socket is open."""
        self.now = now
        if link == self.link:
            self.greet()
        return self.take()

    def refused(
        self, link: int, error: Exception, retry_after_s: float, now: float, answer: str = ""
    ) -> list[Effect]:
        """The socket could not be opened, or its handshake was refused.

        Args:
            link: its number.
            error: why.
            retry_after_s: what the server asks to wait (`Retry-After`); 0 where it does not.
            now: monotonic seconds.
            answer: what came back, in words.
        """
        self.now = now
        if link == self.link:
            problem = values.Error(2, error, answer=answer or str(error))
            self.retry(1, "transport closed", problem, retry_after_s)
        return self.take()

    def received(self, link: int, message: bytes, now: float) -> list[Effect]:
        """A message came over the open socket."""
        self.now = now
        if link == self.link:
            self.silent_at = now + self.patience_s
            try:
                for reply in self.codec.decode(message):
                    if link != self.link:
                        break
                    self.receive(reply)
            except ValueError:
                self.stop(2, "bad protocol")
        return self.take()

    def lost(self, link: int, code: int, reason: str, now: float) -> list[Effect]:
        """The socket closed, by whoever's wish.

        Args:
            link: its number.
            code: that of the close frame; 1006 where there was none.
            reason: that of the close frame.
            now: monotonic seconds.
        """
        self.now = now
        if link == self.link:
            self.closed(code, reason)
        return self.take()

    def token_fetched(self, ticket: int, outcome: str | Exception, now: float) -> list[Effect]:
        """The app was asked for a token.

        Args:
            ticket: that of `GetToken`.
            outcome: the token; empty, or `UnauthorizedError`, where the user may not have one; any other
                exception where there is none for now.
            now: monotonic seconds.
        """
        self.now = now
        if fetched := self.asked.pop(ticket, None):
            fetched(outcome)
        return self.take()

    def tick(self, now: float) -> list[Effect]:
        """The time is at `deadline`, or past it."""
        self.now = now
        self.timers.run(now)
        return self.take()
