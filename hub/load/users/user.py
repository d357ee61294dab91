"""`HubUser`: a Locust user that holds a connection to a hub, and measures what it is like to be on it."""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import gevent
import jwt
from gevent.event import AsyncResult, Event
from locust import User
from locust.exception import StopUser
from websockets.exceptions import InvalidHandshake, InvalidStatus

from hub.client import effects as e
from hub.client import values
from hub.client.address import endpoint
from hub.client.backoff import retry_after_s
from hub.client.codec import CODECS
from hub.client.machine import ClientMachine
from hub.client.state import ClientOptions
from hub.client.subscription import SubscriptionMachine, SubscriptionOptions
from hub.errors import RequestError
from hub.load.users import clock
from hub.load.users.counting import COUNTS, DISCONNECTS
from hub.load.users.ledger import Ledgers
from hub.load.users.link import Link
from hub.load.users.watched import WatchedCodec
from hub.protocol import messages as m

KIND = "hub"
"""The request type of everything that is measured."""

TIMEOUT_S = 10.0
SETTLE_S = 2.0
"""How long a user that stops waits for what was published before."""

_numbers = itertools.count(random.randrange(2**32))


class DeliveryError(Exception):
    """A publication that is missing, came again, or came late."""


class HubUser(User):
    """A user with one connection. A scenario is a subclass: `ready` sets it up, its tasks do what it does.

    What is measured, in milliseconds, each under one name for all users: `connect`, from the socket to the
    hub's answer; `subscribe`; `publish`, to the hub's answer; `receive`, from the call that published to
    here; `receive late`, the same for what was published before the user was subscribed; `reconnect`, from
    the loss of a connection until every channel is recovered. A publication that is lost, repeated or out of
    order is a failed `receive`.

    Args:
        environment: Locust's.
    """

    abstract = True
    ordered: ClassVar[bool] = True
    """Whether offsets that are left out are a fault. A reader who is meant to be too slow is not owed all."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        self.number = next(_numbers)
        self.ledgers = Ledgers(COUNTS)
        self._urls = [endpoint(url.strip()) for url in (self.host or environment.host).split(",")]
        self._turn = self.number
        self._key = options.token_key
        self.codec = WatchedCodec(CODECS[options.encoding], self.ledgers, self._fault)
        self.machine = ClientMachine(
            self.codec,
            ClientOptions(name="locust", renewable=bool(self._key), timeout_s=TIMEOUT_S),
            chance=random.random,
        )
        self._link: Link | None = None
        self._reader: gevent.Greenlet[[], None] | None = None
        self._timer: gevent.Greenlet[[], None] | None = None
        self._due = 0.0
        self._pending: deque[e.Effect] = deque()
        self._running = False
        self._opened_at = 0.0
        self._lost_at = 0.0
        self._asked_at: dict[str, float] = {}
        self._subscribed_at: dict[str, float] = {}
        self._connected = Event()
        self._stopped = ""
        self._reported = ""
        """The last error that counted, as `_stopped` would name it."""

    # For scenarios

    def ready(self) -> None:
        """The user is connected: subscribe to what it follows."""

    def on_publication(self, channel: str, publication: values.Publication) -> None:
        """A publication came. This is called where it was read: what waits belongs in a task."""

    def subscribe(self, channel: str) -> SubscriptionMachine:
        """Follow a channel from now on, over reconnects, and wait until that stands."""
        subscription = self.machine.new_subscription(channel, SubscriptionOptions(recoverable=True))
        self.carry_out(self.machine.subscribe(channel, _now()))
        deadline = _now() + TIMEOUT_S
        while not self._subscribed_at.get(channel) and not self._stopped and _now() < deadline:
            gevent.sleep(0.01)
        return subscription

    def publish(self, channel: str, **data: Any) -> bool:
        """Publish, and wait for the answer. Returns whether it was taken.

        Args:
            channel: its name.
            data: the payload's fields, beside the clock that readers measure by.
        """
        request = m.PublishRequest(channel, self.codec.payload({"at": clock.now(), **data}))
        return not isinstance(self.call("publish", request), Exception)

    def history(self, channel: str, limit: int) -> m.HistoryResult | None:
        """Read the newest of a channel, as on entry. None where that failed."""
        result = self.call("history", m.HistoryRequest(channel, limit, reverse=True))
        return result if isinstance(result, m.HistoryResult) else None

    def call(self, name: str, request: m.Request) -> Any:
        """Ask the hub, wait for the answer, and measure it under a name. Returns the result or the error."""
        began = _now()
        waiting: AsyncResult[Any] = AsyncResult()
        self.carry_out(self.machine.call(waiting, request, began))
        outcome = waiting.get()
        failed = outcome if isinstance(outcome, RequestError) else None
        self.fire(name, _now() - began, failed)
        return outcome

    def drop(self) -> None:
        """Lose the connection without a goodbye. The client comes back by itself."""
        if self._link is not None:
            self._link.abort()

    def fire(self, name: str, seconds: float | None, exception: Exception | None = None) -> None:
        """Tell Locust of a measurement, or of a failure."""
        self.environment.events.request.fire(
            request_type=KIND,
            name=name,
            response_time=None if seconds is None else seconds * 1000,
            response_length=0,
            exception=exception,
            context={},
        )

    # Locust's

    def on_start(self) -> None:
        clock.OFFSET.begun.wait(TIMEOUT_S)
        self.carry_out(self.machine.connect(_now()))
        self._connected.wait()
        if self._stopped:
            raise StopUser(self._stopped)
        self.ready()
        self.wait()  # who comes does not act at once, or the first act of all would measure their arrival

    def on_stop(self) -> None:
        try:
            self._settle()
        finally:
            # In this order: a reader whose socket was closed under it would call that a loss.
            for greenlet in (self._timer, self._reader):
                if greenlet is not None and greenlet is not gevent.getcurrent():
                    greenlet.kill()
            self._reader = None
            self.carry_out(self.machine.disconnect(_now()))

    def _settle(self) -> None:
        """Wait for what others have published before, so that what is lost in the end is found too."""
        if not (self.machine.connected and self.ordered):
            return
        for channel, ledger in self.ledgers.channels.items():
            waiting: AsyncResult[Any] = AsyncResult()
            self.carry_out(self.machine.call(waiting, m.HistoryRequest(channel), _now()))
            top = waiting.get()
            if not isinstance(top, m.HistoryResult) or top.epoch != ledger.epoch:
                continue
            deadline = _now() + SETTLE_S
            while not ledger.is_whole(top.offset) and _now() < deadline and self.machine.connected:
                gevent.sleep(0.05)
            if self.machine.connected and (fault := ledger.end(top.offset)):
                self._fault(fault)

    # The machine

    def carry_out(self, effects: list[e.Effect]) -> None:
        """Do what the machine decided, in its order, whichever greenlet asks."""
        self._pending.extend(effects)
        if self._running:
            return
        self._running = True
        try:
            while self._pending:
                self._carry_out(self._pending.popleft())
        finally:
            self._running = False
        self._schedule()

    def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.Write(data):
                if self._link is not None:
                    self._link.write(data)
            case e.Emit(event):
                self._on_event(event)
            case e.Settle(waiting, outcome):
                waiting.set(outcome)
            case e.OpenSocket(link):
                self._opened_at = _now()
                self._reader = self._spawn(lambda: self._serve(link))
            case e.GetToken(ticket):
                token = jwt.encode({"sub": f"user-{self.number}"}, self._key, "HS256")
                self._pending.extend(self.machine.token_fetched(ticket, token, _now()))
            case e.CloseSocket():
                self._close()

    def _schedule(self) -> None:
        """Have a timer for the machine's next deadline. One that fires too early sets itself anew."""
        deadline = self.machine.deadline
        if deadline == float("inf") or (
            self._timer is not None and not self._timer.dead and self._due <= deadline
        ):
            return
        if self._timer is not None:
            self._timer.kill(block=False)
        self._due = deadline
        self._timer = self._spawn(self._tick, max(0.0, deadline - _now()))

    def _tick(self) -> None:
        self._timer = None
        self.carry_out(self.machine.tick(_now()))

    def _spawn(self, function: Callable[[], None], delay_s: float = 0.0) -> gevent.Greenlet[[], None]:
        """A greenlet whose death is a failure of the run, and not its silence."""
        greenlet = gevent.spawn_later(delay_s, function) if delay_s else gevent.spawn(function)
        greenlet.link_exception(self._died)
        return greenlet

    def _died(self, greenlet: gevent.Greenlet[[], None]) -> None:
        error = greenlet.exception
        assert isinstance(error, Exception)
        self.fire("user", None, error)
        self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)
        self.carry_out(self.machine.disconnect(_now()))

    # The socket

    def _serve(self, number: int) -> None:
        url = self._urls[self._turn % len(self._urls)]
        try:
            link = Link(url, self.codec.subprotocol, binary=self.codec.binary, timeout_s=TIMEOUT_S)
        except (OSError, InvalidHandshake) as exc:
            self._turn += 1
            headers = exc.response.headers if isinstance(exc, InvalidStatus) else {}
            wait_s = retry_after_s(headers.get("Retry-After"), time.time())
            self.carry_out(self.machine.refused(number, exc, wait_s, _now()))
            return
        if number != self.machine.link:
            link.abort()
            return
        self._link = link
        self.carry_out(self.machine.opened(number, _now()))
        for message in link.messages():
            self.carry_out(self.machine.received(number, message, _now()))
            self.on_read()
        if number == self.machine.link:
            self._turn += 1  # to another node, where there is one
            DISCONNECTS[str(link.close_code)] += 1
        self.carry_out(self.machine.lost(number, link.close_code, link.close_reason, _now()))

    def on_read(self) -> None:
        """A message was read, and nothing more is until this returns."""

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        reader, self._reader = self._reader, None
        if reader is not None and reader is not gevent.getcurrent() and link is None:
            reader.kill(block=False)  # it is still opening one

    # What is measured

    def _on_event(self, event: values.Event) -> None:
        now = _now()
        match event:
            case values.Published(channel, pub):
                self._received(channel, pub)
            case values.Connected():
                self.fire("connect", now - self._opened_at)
                self._connected.set()
                if self._lost_at and not self.machine.subscriptions:
                    self._recovered(now)
            case values.Subscribing(channel):
                self._asked_at[channel] = now
                self._subscribed_at[channel] = 0.0
            case values.Subscribed(channel):
                self._subscribed(channel, now)
            case values.Unsubscribed(channel, code, reason) if code:
                self.fire("subscribe", None, RequestError(code, reason))
            case values.Error(error=error, channel=channel):
                self._reported = str(error)
                self.fire("subscribe" if channel else "connect", None, error)
            case values.Connecting(attempt=attempt) if attempt == 1 or not self._lost_at:
                self._lost_at = now if attempt else 0.0
            case values.Disconnected(code, reason):
                self._stopped = f"{reason} (code {code})"
                self._connected.set()
                if code and self._stopped != self._reported:
                    self.fire("connect", None, RequestError(code, reason))

    def _subscribed(self, channel: str, now: float) -> None:
        self._subscribed_at[channel] = clock.now()
        if not self._lost_at:
            self.fire("subscribe", now - max(self._asked_at.get(channel, 0.0), self._opened_at))
        elif all(self._subscribed_at.get(each) for each in self.machine.subscriptions):
            self._recovered(now)

    def _recovered(self, now: float) -> None:
        self.fire("reconnect", now - self._lost_at)
        self._lost_at = 0.0

    def _received(self, channel: str, pub: values.Publication) -> None:
        at = pub.data.get("at") if isinstance(pub.data, dict) else None
        if isinstance(at, float):
            late = at < self._subscribed_at.get(channel, 0.0)
            self.fire("receive late" if late else "receive", clock.now() - at)
        self.on_publication(channel, pub)

    def _fault(self, fault: str) -> None:
        if self.ordered:
            self.fire("receive", None, DeliveryError(fault))


def _now() -> float:
    return time.monotonic()
