"""The client state machine, one for each connection: messages and a time in, effects out."""

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
"""The key of the connect flow: no channel has this name."""


class Session(SessionState):
    """What happens to a client, from the accepted socket to its end.

    Each method takes monotonic seconds where time matters, and returns effects for the node to carry out in
    their order. Nothing that a client sends makes one raise.
    """

    __slots__ = ()

    def receive(self, command: m.Command | m.Fault, now: float) -> list[Effect]:
        """A command came, or what a codec could not read as one."""
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
            self.refuse(command.id, Errors.BAD_REQUEST if requests else Errors.METHOD_NOT_FOUND)
        elif command.id or requests or self.ping_sent is None:
            self.end(Disconnects.BAD_REQUEST)
        else:
            self.pong()
        return self.take()

    def resume(self, ticket: int, outcome: Any, now: float) -> list[Effect]:
        """The outcome of an operation is known."""
        self.now = now
        if self.closed:
            return []
        self.step(ticket, outcome)
        return self.take()

    def tick(self, now: float) -> list[Effect]:
        """The time is at `deadline` or past it."""
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
            # A new token goes with a ping where it can: a phone's radio wakes once.
            renew_by = now
            if now >= self.next_ping:
                self.ping()
                renew_by = self.next_ping
            if renew_by >= self.renew_at:
                resuming.push_token(self)
            if now >= self.kept_until:
                resuming.give_up_kept(self)
            self.reschedule()
        return self.take()

    def disconnect(self, disconnect: Disconnect) -> list[Effect]:
        """End the connection. A socket that is gone ends with `Disconnects.CONNECTION_CLOSED`."""
        if not self.closed:
            self.end(disconnect)
        return self.take()

    def renew(self, now: float) -> list[Effect]:
        """Give the client another reconnect token: it is about to be sent away."""
        self.now = now
        if self.connected and not self.closed:
            resuming.push_token(self)
        return self.take()

    def move(self) -> list[Effect]:
        """End the connection, since the session goes on on another socket: nobody is told of it."""
        self.moved = True
        return self.disconnect(Disconnects.STATE_INVALIDATED)

    def subscribe(
        self, channel: str, grant: Grant, since: m.StreamPosition | None, now: float
    ) -> list[Effect]:
        """Make a server-side subscription, and tell the client."""
        self.now = now
        if self.connected and not self.closed:
            self.start(lambda: subscribing.subscribe_by_server(self, channel, grant, since), channel)
        return self.take()

    def unsubscribe(self, channel: str, unsubscribe: Unsubscribe, now: float) -> list[Effect]:
        """End a subscription, or one that is being made, and tell the client."""
        self.now = now
        if self.connected and not self.closed:
            self.start(lambda: self._leave(channel, unsubscribe), channel)
        return self.take()

    def refresh(self, expires_at: float, now: float) -> list[Effect]:
        """Move the end of the connection, and tell the client.

        Args:
            expires_at: Unix seconds; 0 for no end.
            now: monotonic seconds.
        """
        self.now = now
        if self.connected and not self.closed:
            self.expires_at = self.monotonic(expires_at)
            self.reschedule()
            if self.chain is not None:
                self.renew_soon()
            expires, ttl = self.ttl(expires_at)
            self.push(m.Push(refresh=m.RefreshPush(expires, ttl)))
        return self.take()

    def _overdue(self, expired: list[Subscription]) -> Disconnect | None:
        """Why the connection ends now, where a time has run out."""
        if not self.connected:
            if self.now < self.deadline:
                return None
            # A connect that waits for the app or the broker is not the client's fault: it may come back.
            return Disconnects.INTERNAL_ERROR if self.connecting else Disconnects.STALE
        if self.now >= self.pong_due:
            return Disconnects.NO_PONG
        if self.now >= self.expires_at + GRACE_S:
            return Disconnects.EXPIRED
        # Clients do not make a server-side subscription anew; the server does, when they connect again.
        if any(subscription.server_side for subscription in expired):
            return Disconnects.SUBSCRIPTION_EXPIRED
        return None

    def _answer_fault(self, fault: m.Fault) -> None:
        if fault.id:
            self.refuse(fault.id, Errors.BAD_REQUEST)
        else:
            self.end(Disconnects.BAD_REQUEST)

    def _accept(self, command_id: int, request: m.Request) -> None:
        """Take a command that has one request, in the state that the session is in."""
        if not command_id and not isinstance(request, m.SendRequest):
            self.end(Disconnects.BAD_REQUEST)
        elif self.connected:
            self._dispatch(command_id, request)
        elif self.connecting:
            self.start(lambda: self._after_connect(command_id, request), _CONNECT)
        elif isinstance(request, m.ConnectRequest):
            self.connecting = True
            self.start(lambda: connecting.connect(self, command_id, request), _CONNECT)
        else:
            self.end(Disconnects.BAD_REQUEST)

    def _after_connect(self, command_id: int, request: m.Request) -> Flow:
        """A command that came behind the connect. It is dropped where that was refused."""
        # SDKs send connect and subscribes at once: 3501 would stop one that needs no more than another token.
        if self.connected:
            self._dispatch(command_id, request)
        yield from ()

    def _publish(self, command_id: int, request: m.PublishRequest) -> None:
        if wait_s := self.publish_wait_s():
            self.refuse(command_id, too_many(wait_s))
        elif self._busy or self.allows("publish"):
            self._start_in(
                request.channel,
                lambda: calls.publish(self, command_id, request),
                serial=self.allows("publish"),
            )
        else:
            self.run(calls.publish(self, command_id, request))

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
                if self.allows("message"):
                    self.start(lambda: calls.send(self, request))
            case m.RefreshRequest():
                self.start(lambda: connecting.refresh(self, command_id, request))
            case m.PingRequest():
                self.send(m.Reply(command_id, ping=m.PingResult()))
            case _:  # a second connect
                self.end(Disconnects.BAD_REQUEST)

    def _start_in(self, channel: str, flow: Callable[[], Flow], *, serial: bool = False) -> None:
        """Start a flow of a channel: behind others where the order shows, beside them where it does not."""
        self.start(flow, channel if serial or self.is_busy(channel) else None)

    def _leave(self, channel: str, unsubscribe: Unsubscribe) -> Flow:
        self.drop_kept(channel)
        if subscription := self.subscriptions.get(channel):
            self.leave(subscription, unsubscribe)
        yield from ()
