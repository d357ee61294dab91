"""The session of one client: a pure state machine that takes messages and a time, and returns effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hub.core.channel.subscription import Grant, Subscription
from hub.core.effects import Effect
from hub.core.rates import too_many
from hub.core.session import calls
from hub.core.session import connect as connecting
from hub.core.session import resume as resuming
from hub.core.session import subscribe as subscribing
from hub.core.session.state import GRACE_S, Flow, SessionState
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Errors, Unsubscribe, Unsubscribes

_CONNECT: Final = ""
"""The key of the connect flow. No channel has this name."""


class Session(SessionState):
    """The session of a client, from the accepted socket to its end.

    Methods return effects, which the node carries out in their order. Times are monotonic seconds. No message
    of a client makes a method raise.
    """

    __slots__ = ()

    def receive(self, command: m.Command | m.Fault, now: float) -> list[Effect]:
        """Process a command, or a message that the codec could not read."""
        self.now = now
        if self.closed or (self.one_way and (self.connecting or self.connected)):
            return []
        if isinstance(command, m.Fault):
            self._answer_fault(command)
            return self.take()
        if self.connected and command.is_publish() and command.id:
            assert command.publish is not None
            self._publish(command.id, command.publish)
            return self.take()
        if command is m.PONG and self.ping_sent is not None:
            self.pong()
            return []
        requests = command.requests()
        if len(requests) == 1:
            self._accept(command.id, requests[0])
        elif command.id and (self.connected or self.connecting):
            several = Errors.BAD_REQUEST.because("bad_request", "a command holds one request, not several")
            self.refuse(command.id, several if requests else Errors.METHOD_NOT_FOUND)
        elif command.id or requests or self.ping_sent is None:
            self._end_for_fault(
                "this is neither a command nor the answer to a ping: use an SDK of the client protocol's"
                " version 2"
            )
        else:
            self.pong()
        return self.take()

    def resume(self, ticket: int, outcome: Any, now: float) -> list[Effect]:
        """Process the outcome of an operation.

        Args:
            ticket: of the `Run` effect.
            outcome: as the operation's docstring says, or an `Error`.
            now: monotonic seconds.
        """
        self.now = now
        if self.closed:
            return []
        flow, key = self.flows.pop(ticket)
        self._step(flow, key, outcome)
        return self.take()

    def tick(self, now: float) -> list[Effect]:
        """Process the passing of time. The node calls this at `deadline` or later."""
        self.now = now
        if self.closed:
            return []
        if not self.connected or now >= self.ends_at or now >= self.pong_due:
            expired = [s for s in self.subscriptions.values() if now >= s.deadline + GRACE_S]
            if disconnect := self._overdue(expired):
                self.end(disconnect)
                return self.take()
            for subscription in expired:
                self.leave(subscription, Unsubscribes.EXPIRED)
        if self.connected:
            # A new token is sent together with a ping if possible, so that the radio of a phone wakes once.
            renew_by = now
            if now >= self.next_ping:
                self.ping()
                renew_by = self.next_ping
            if renew_by >= self.renew_at:
                resuming.push_token(self)
            if now >= self.restorable_until:
                resuming.expire_restorable(self)
            self.reschedule()
        return self.take()

    def disconnect(self, disconnect: Disconnect) -> list[Effect]:
        """End the connection. If the socket is closed, the reason is `Disconnects.CONNECTION_CLOSED`."""
        if not self.closed:
            self.end(disconnect)
        return self.take()

    def renew(self, now: float) -> list[Effect]:
        """Send the client a new reconnect token. The node calls this before it sends the client away."""
        self.now = now
        if self.connected and not self.closed:
            resuming.push_token(self)
        return self.take()

    def move(self) -> list[Effect]:
        """End the connection because another socket has resumed the session. No leaves are announced."""
        self.moved = True
        return self.disconnect(Disconnects.STATE_INVALIDATED)

    def subscribe(
        self, channel: str, grant: Grant, since: m.StreamPosition | None, now: float
    ) -> list[Effect]:
        """Subscribe the client to a channel, and tell the client.

        Args:
            channel: name of the channel.
            grant: data and options of the subscription.
            since: position to recover from; None without recovery.
            now: monotonic seconds.
        """
        self.now = now
        if self.connected and not self.closed:
            self.start(lambda: subscribing.subscribe_by_server(self, channel, grant, since), channel)
        return self.take()

    def unsubscribe(self, channel: str, unsubscribe: Unsubscribe, now: float) -> list[Effect]:
        """End a subscription, or one that is in progress, and tell the client.

        A server-side subscription that lost its position ends the connection with 3010 instead: no client
        subscribes again by itself to a channel that the server chose. When it reconnects, the server does.
        """
        self.now = now
        if self.connected and not self.closed:
            self.start(lambda: self._leave(channel, unsubscribe), channel)
        return self.take()

    def refresh(self, expires_at: float, now: float) -> list[Effect]:
        """Change when the connection expires, and tell the client.

        Args:
            expires_at: Unix seconds; 0 for never.
            now: monotonic seconds.
        """
        self.now = now
        if self.connected and not self.closed:
            self.set_expiry(expires_at)
            self.reschedule()
            if self.chain is not None:
                self.renew_soon()
            expires, ttl = self.ttl(expires_at)
            self.push(m.Push(refresh=m.RefreshPush(expires, ttl)))
        return self.take()

    def _overdue(self, expired: list[Subscription]) -> Disconnect | None:
        """Why the connection must end now; None if it goes on."""
        if not self.connected:
            if self.now < self.deadline:
                return None
            # A connect that waits for the app or the broker is not the client's fault. It may retry.
            return Disconnects.INTERNAL_ERROR if self.connecting else Disconnects.STALE
        if self.now >= self.pong_due:
            if not self.is_held:
                return Disconnects.NO_PONG
            self.pong_due = self.now + self.context.client.pong_timeout_s
        if self.now >= self.expires_at + GRACE_S:
            return Disconnects.EXPIRED
        # No client subscribes again by itself to a channel that the server chose. The server does when the
        # client reconnects.
        if any(subscription.server_side for subscription in expired):
            return Disconnects.SUBSCRIPTION_EXPIRED
        return None

    def _answer_fault(self, fault: m.Fault) -> None:
        if fault.id:
            self.refuse(fault.id, Errors.BAD_REQUEST.because("bad_request", fault.reason))
        else:
            self._end_for_fault(
                f"this is not a command of the Centrifuge client protocol: {fault.reason}; use an SDK"
            )

    def _end_for_fault(self, text: str) -> None:
        self.end(Disconnects.BAD_REQUEST.because("bad_request", text))

    def _accept(self, command_id: int, request: m.Request) -> None:
        """Process a command with one request, as the state of the session allows."""
        if not command_id and not isinstance(request, m.SendRequest):
            self._end_for_fault("a command has no id")
        elif self.connected:
            self._dispatch(command_id, request)
        elif self.connecting:
            self.start(lambda: self._after_connect(command_id, request), _CONNECT)
        elif isinstance(request, m.ConnectRequest):
            self.connecting = True
            self.start(lambda: connecting.connect(self, command_id, request), _CONNECT)
        else:
            self._end_for_fault("the first command is not connect: send connect before all other commands")

    def _after_connect(self, command_id: int, request: m.Request) -> Flow:
        """A command that arrived during the connect. It is dropped if the connect was refused."""
        # SDKs send connect and subscribes together. A disconnect with 3501 would stop an SDK for good that
        # only needs another token.
        if self.connected:
            self._dispatch(command_id, request)
        yield from ()

    def _publish(self, command_id: int, request: m.PublishRequest) -> None:
        context = self.context
        serial = context.serial_publishes
        if context.rates.limits_publishes and (wait_s := self.publish_wait_s()):
            self.refuse(command_id, too_many(wait_s))
        elif self._busy or serial:
            self._start_in(request.channel, lambda: calls.publish(self, command_id, request), serial=serial)
        else:
            self._step(calls.publish(self, command_id, request), None, None)

    def _dispatch(self, command_id: int, request: m.Request) -> None:
        match request:
            case m.PublishRequest():
                self._publish(command_id, request)
            case m.SubscribeRequest() if wait_s := self.subscribe_wait_s():
                self.refuse(command_id, too_many(wait_s))
            case m.SubscribeRequest(channel=channel):
                self._start_in(channel, lambda: subscribing.subscribe(self, command_id, request), serial=True)
            case m.UnsubscribeRequest(channel=channel):
                self._start_in(
                    channel, lambda: subscribing.unsubscribe(self, command_id, request), serial=True
                )
            case m.SubRefreshRequest(channel=channel):
                self._start_in(
                    channel, lambda: subscribing.sub_refresh(self, command_id, request), serial=True
                )
            case m.HistoryRequest(channel=channel):
                self._start_in(channel, lambda: calls.history(self, command_id, request))
            case m.PresenceRequest(channel=channel) | m.PresenceStatsRequest(channel=channel):
                self._start_in(channel, lambda: calls.presence(self, command_id, request))
            case m.RPCRequest():
                self.start(lambda: calls.rpc(self, command_id, request))
            case m.SendRequest():
                if "message" in self.context.hooks:
                    self.start(lambda: calls.send(self, request))
            case m.RefreshRequest():
                self.start(lambda: connecting.refresh(self, command_id, request))
            case m.PingRequest():
                self.send(m.Reply(command_id, ping=m.PingResult()))
            case _:
                self._end_for_fault("a second connect command")

    def _start_in(self, channel: str, flow: Callable[[], Flow], *, serial: bool = False) -> None:
        """Start a flow of a channel: after the others if it is serial or one of them is in progress."""
        self.start(flow, channel if serial or self.is_busy(channel) else None)

    def _leave(self, channel: str, unsubscribe: Unsubscribe) -> Flow:
        self.drop_restorable(channel)
        if subscription := self.subscriptions.get(channel):
            if subscription.server_side and unsubscribe is Unsubscribes.INSUFFICIENT_STATE:
                self.end(Disconnects.INSUFFICIENT_STATE)
            else:
                self.leave(subscription, unsubscribe)
        yield from ()
