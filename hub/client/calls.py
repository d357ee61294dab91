"""Calls: commands that the app waits for, those that wait for the connection among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hub.client.errors import OperationTimeoutError, QueueFullError, ReplyError, TransportClosedError
from hub.client.timers import Timer, Timers
from hub.errors import RequestError
from hub.protocol import messages as m

QUEUE_MAX: Final = 100
"""Most calls that wait for the connection, or for their subscription."""

Done: TypeAlias = Callable[[Any], None]
"""Takes a call's outcome: the reply's result, None for a `send`, or a `RequestError`."""

_FIELDS: Final[dict[type, str]] = {
    m.SubscribeRequest: "subscribe",
    m.UnsubscribeRequest: "unsubscribe",
    m.PublishRequest: "publish",
    m.PresenceRequest: "presence",
    m.PresenceStatsRequest: "presence_stats",
    m.HistoryRequest: "history",
    m.SendRequest: "send",
    m.RPCRequest: "rpc",
    m.RefreshRequest: "refresh",
    m.SubRefreshRequest: "sub_refresh",
    m.ConnectRequest: "connect",
}


class Call:
    """One call, from its beginning to its outcome.

    Args:
        request: what is asked.
        done: takes the outcome, once.
        channel: of the subscription that it waits for; None where the connection is enough.
    """

    __slots__ = ("channel", "done", "id", "request", "timer")

    def __init__(self, request: m.Request, done: Done, channel: str | None = None) -> None:
        self.request = request
        self.done = done
        self.channel = channel
        self.id = 0
        self.timer: Timer | None = None


class Calls:
    """The calls of one client.

    Args:
        timers: those of the client.
        timeout_s: how long a call may take, its wait for the connection included.
        write: sends a command. Returns the error of a command that cannot be sent, else None.
        why: why the client is not connected, in words; empty while it is.
    """

    __slots__ = ("_last_id", "_pending", "_timeout_s", "_timers", "_waiting", "_why", "_write")

    def __init__(
        self,
        timers: Timers,
        timeout_s: float,
        write: Callable[[m.Command], RequestError | None],
        why: Callable[[], str],
    ) -> None:
        self._timers = timers
        self._timeout_s = timeout_s
        self._write = write
        self._why = why
        self._last_id = 0
        self._waiting: list[Call] = []
        self._pending: dict[int, Call] = {}

    def begin(self, call: Call, now: float, *, ready: bool) -> None:
        """Transmit a call, or hold it back until `release` where it is not ready."""
        if not ready and len(self._waiting) >= QUEUE_MAX:
            call.done(QueueFullError(QUEUE_MAX))
            return
        call.timer = self._timers.at(now + self._timeout_s, lambda: self._expire(call))
        if ready:
            self._transmit(call)
        else:
            self._waiting.append(call)

    def release(self, ready: Callable[[Call], bool]) -> None:
        """Transmit the calls that waited, and are ready now."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if ready(call):
                self._transmit(call)
            else:
                self._waiting.append(call)

    def answer(self, reply: m.Reply) -> None:
        """A reply came. One that nobody waits for any longer is dropped.

        Raises:
            ValueError: it has neither an error nor the result of what was asked.
        """
        call = self._pending.get(reply.id)
        if call is None:
            return
        if (error := reply.error) is not None:
            self._end(call, ReplyError(error.code, error.message, error.temporary))
        elif (result := getattr(reply, _FIELDS[type(call.request)])) is not None:
            self._end(call, result)
        else:
            raise ValueError("a reply of another kind")

    def lose(self) -> None:
        """The link broke: nobody knows what became of what was transmitted."""
        for call in list(self._pending.values()):
            self._end(call, TransportClosedError())

    def abandon(self, error: RequestError, channel: str | None = None) -> None:
        """End the calls that wait, all or those for a subscription."""
        for call in [call for call in self._waiting if channel is None or call.channel == channel]:
            self._end(call, error)

    def _transmit(self, call: Call) -> None:
        field = _FIELDS[type(call.request)]
        if field == "send":
            self._end(call, self._write(m.Command(send=call.request)))  # type: ignore[arg-type]
            return
        self._last_id += 1
        call.id = self._last_id
        self._pending[call.id] = call
        if error := self._write(m.Command(call.id, **{field: call.request})):  # type: ignore[arg-type]
            self._end(call, error)

    def _expire(self, call: Call) -> None:
        self._end(call, OperationTimeoutError(self._why()))

    def _end(self, call: Call, outcome: Any) -> None:
        assert call.timer is not None, "a call that began has a timer"
        call.timer.cancel()
        self._pending.pop(call.id, None)
        if not call.id and call in self._waiting:
            self._waiting.remove(call)
        call.done(outcome)
