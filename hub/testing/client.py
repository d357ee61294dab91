"""A client of a hub under test: the state machine of `hub.client`, on a link in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, overload

from hub.client import values
from hub.client.machine import ClientMachine
from hub.client.state import ClientState
from hub.client.subscription import SubscriptionOptions, SubscriptionState
from hub.errors import RequestError, SetupError
from hub.protocol import messages as m
from hub.protocol.codes import Disconnects, Unsubscribes
from hub.testing.clock import ManualClock
from hub.testing.driver import MachineDriver
from hub.testing.errors import ClientError, NextTimeoutError
from hub.testing.link import MemoryLink

WAIT_S: Final = 15.0
"""Real seconds that a call waits for the hub: longer than a handler of the app may take."""

NEXT_S: Final = 5.0
"""Real seconds that `next` waits unless it is told otherwise."""

RECEIVED_SHOWN_MAX: Final = 10
"""Events that the text of a `NextTimeoutError` shows."""

T = TypeVar("T", bound=values.Event)


class HubClient:
    """A client of a hub under test. `TestHub.connect` makes it.

    It does what a client in a page does: it answers pings, resumes its session with its reconnect token, and
    recovers its channels. It differs in two points: a refusal raises, where a page would try again, and a
    client whose link was dropped stays away until `reconnect`.

    Args:
        name: what errors call it.
        machine: its state.
        clock: of the test.
        open_link: asks the hub for a WebSocket. Returns why it was refused, empty where the link is open.
        catch_up: waits for the time that the test lets pass.
    """

    def __init__(
        self,
        name: str,
        machine: ClientMachine,
        clock: ManualClock,
        open_link: Callable[[MemoryLink], Awaitable[str]],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self.name: Final = name
        self.id = ""
        """Id of the connection, as the hub knows it; a reconnect with the token keeps it."""
        self.received: Final[list[values.Event]] = []
        """Everything that came, in order: all that `next` takes, whether it was taken or not."""
        self._driver = MachineDriver(machine, clock, open_link, self._on_event)
        self._machine = machine
        self._clock = clock
        self._catch_up = catch_up
        self._unread: list[values.Event] = []
        self._refusal: values.Error | None = None
        """Why the last try to connect failed."""
        self._refused: dict[str, values.Error] = {}
        """By channel, why the last subscribe failed."""
        self._subscribed: dict[str, values.Subscribed] = {}
        """By channel, what the hub last answered to a subscribe."""
        self._ended: values.Disconnected | None = None

    def __repr__(self) -> str:
        return f"<HubClient {self.name}: {self._state()}>"

    @property
    def is_connected(self) -> bool:
        """Whether the client has a connection to the hub."""
        return self._machine.state is ClientState.CONNECTED

    @property
    def channels(self) -> list[str]:
        """The channels that the client is subscribed to by itself, in the order of the subscriptions."""
        return [
            channel
            for channel, each in self._machine.subscriptions.items()
            if each.state is SubscriptionState.SUBSCRIBED
        ]

    # Channels

    async def subscribe(
        self,
        channel: str,
        *,
        token: str = "",
        data: Any = None,
        recoverable: bool = True,
        positioned: bool = False,
        join_leave: bool = False,
        since: m.StreamPosition | None = None,
        tags_filter: m.FilterNode | None = None,
    ) -> values.Subscribed:
        """Subscribe to a channel.

        Args:
            channel: its name.
            token: a subscription token, where the channel needs one.
            data: for the app's `on_subscribe`.
            recoverable: recover what was missed after a reconnect, where the channel keeps history that the
                client may read.
            positioned: have the hub watch for gaps.
            join_leave: be told who comes and goes.
            since: begin here: as in a `Subscribed`.
            tags_filter: be sent only what passes this, where the channel allows it.

        Raises:
            ClientError: the hub refused; with its code and its reason.
            SetupError: the client is subscribed already, or has no connection.
        """
        await self._ready("subscribe")
        if channel in self._machine.subscriptions:
            raise SetupError(f"{self.name} is subscribed to {channel} already")
        options = SubscriptionOptions(
            token=token,
            data=self._payload(data),
            recoverable=recoverable,
            positioned=positioned,
            join_leave=join_leave,
            since=since,
            tags_filter=tags_filter,
        )
        self._machine.new_subscription(channel, options)
        self._refused.pop(channel, None)
        self._subscribed.pop(channel, None)
        self._driver.do(self._machine.subscribe(channel, self._driver.now))
        await self._until(
            lambda: channel in self._subscribed or channel in self._refused or not self.is_connected,
            f"subscribe to {channel}",
        )
        if subscribed := self._subscribed.get(channel):
            return subscribed
        self._forget(channel)
        if refused := self._refused.get(channel):
            raise self._error(f"subscribe to {channel}", refused.error)
        raise self._lost(f"subscribe to {channel}")

    async def unsubscribe(self, channel: str) -> None:
        """Leave a channel.

        Raises:
            SetupError: the client is not subscribed to it.
        """
        await self._ready("unsubscribe")
        if channel not in self._machine.subscriptions:
            raise SetupError(f"{self.name} is not subscribed to {channel}, but to {self._subscribed_to()}")
        self._forget(channel)
        await self._clock.settle()

    async def publish(self, channel: str, data: Any) -> None:
        """Publish to a channel, as a page does.

        Raises:
            ClientError: the hub refused; with its code and its reason.
            SetupError: the client has no connection.
        """
        await self._ask(f"publish to {channel}", m.PublishRequest(channel, self._machine.codec.payload(data)))

    async def history(
        self, channel: str, *, limit: int = -1, since: m.StreamPosition | None = None, reverse: bool = False
    ) -> values.HistoryResult:
        """Read a channel's history: args as of `hub.client.Client.history`, errors as of `publish`."""
        request = m.HistoryRequest(channel, limit, since, reverse)
        return values.history(self._machine.codec, await self._ask(f"history of {channel}", request))

    async def presence(self, channel: str) -> dict[str, values.ClientInfo]:
        """Return who is in a channel, by id of the connection. Errors are those of `publish`."""
        result = await self._ask(f"presence of {channel}", m.PresenceRequest(channel))
        return values.presence(self._machine.codec, result).clients

    # The app

    async def rpc(self, method: str, data: Any = None) -> Any:
        """Call a method of the app, and return its answer. Errors are those of `publish`."""
        result = await self._ask(f"rpc {method}", m.RPCRequest(self._payload(data), method))
        return self._machine.codec.value(result.data)

    async def send(self, data: Any) -> None:
        """Send the app a message that is not answered, for `on_message`. Errors are those of `publish`."""
        await self._ask("send", m.SendRequest(self._machine.codec.payload(data)))
        await self._clock.settle()

    @overload
    async def next(self, *, timeout: float = ...) -> values.Published: ...  # noqa: ASYNC109

    @overload
    async def next(self, kind: type[T], *, timeout: float = ...) -> T: ...  # noqa: ASYNC109

    async def next(
        self,
        kind: type[Any] = values.Published,
        *,
        timeout: float = NEXT_S,  # noqa: ASYNC109
    ) -> Any:
        """Wait for the next publication, or the next event of another kind, and return it.

        Args:
            kind: `Published`, `Joined`, `Left`, `Message`, `Unsubscribed` or `Disconnected`. Events of other
                kinds stay for a `next` of their kind.
            timeout: real seconds to wait. The hub's own time stands still meanwhile.

        Raises:
            NextTimeoutError: none came. The text says what the client is subscribed to, and what came.
            ClientError: none will come: the hub sent the client away.
            SetupError: none will come: the client has no connection.
        """
        await self._catch_up()
        found: list[values.Event] = []

        def is_over() -> bool:
            index = next((index for index, event in enumerate(self._unread) if isinstance(event, kind)), None)
            if index is not None:
                found.append(self._unread.pop(index))
            return bool(found) or self._driver.is_away or self._machine.state is ClientState.DISCONNECTED

        try:
            async with asyncio.timeout(timeout):
                await self._driver.until(is_over)
        except TimeoutError:
            raise NextTimeoutError(f"no {kind.__name__} within {timeout:g} s: {self.describe()}") from None
        if found:
            return found[0]
        raise self._lost(f"next {kind.__name__}")

    # The connection

    def drop_link(self) -> Awaitable[None]:
        """Break the connection, as a tunnel does: what is under way is lost, and the hub gets no goodbye.

        The client stays away until `reconnect`. The hub keeps its session for the disconnect grace.

        Returns:
            Something to await until all that follows has happened; it happens without that, too.

        Raises:
            SetupError: the client has no connection.
        """
        if not self._driver.has_link:
            raise SetupError(f"{self.name} has no link to drop: it is {self._state()}")
        return self._driver.drop()

    async def reconnect(self) -> None:
        """Come back after `drop_link`, `disconnect`, or a disconnect by the hub, and recover the channels.

        It returns once each of the client's channels is subscribed again or was refused. Without effect while
        the client is connected.

        Raises:
            ClientError: the hub refused; with its code and its reason.
        """
        await self._catch_up()
        await self._connect()
        await self._until(
            lambda: all(
                each.state is not SubscriptionState.SUBSCRIBING or channel in self._refused
                for channel, each in self._machine.subscriptions.items()
            ),
            "reconnect",
        )
        await self._clock.settle()

    async def disconnect(self) -> None:
        """Leave, as a page that is closed does. The hub tells the app's `on_disconnect` at once."""
        await self._catch_up()
        self._driver.leave()
        await self._clock.settle()

    def describe(self) -> str:
        """Say in a sentence where the client is, and what came to it."""
        shown = self.received[-RECEIVED_SHOWN_MAX:]
        more = f"{len(self.received) - len(shown)} more, " if len(shown) < len(self.received) else ""
        came = "; ".join(map(str, shown)) or "nothing"
        place = f"{self.name} is {self._state()}, is subscribed to {self._subscribed_to()}"
        return f"{place}, and received {more}{came}"

    # Inside

    async def _connect(self) -> None:
        """Connect, and wait for the outcome."""
        self._refused.clear()
        while True:
            returning = self._machine.reconnect_token
            self._refusal = self._ended = None
            self._driver.come_back()
            await self._until(
                lambda: self.is_connected or self._refusal is not None or self._ended is not None, "connect"
            )
            if self.is_connected:
                return
            if not returning or self._machine.reconnect_token or not self._machine.is_waiting:
                break
            # The hub refused the reconnect token. The client's next try is a login, as in a page.
        error = self._lost("connect")
        self._driver.leave()
        raise error

    async def _close(self) -> None:
        """End with the hub, and leave no task behind."""
        await self._driver.close()

    async def _ready(self, what: str) -> None:
        await self._catch_up()
        if not self.is_connected:
            raise self._lost(what)

    async def _ask(self, what: str, request: m.Request) -> Any:
        await self._ready(what)
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._driver.call(request)
        except RequestError as error:
            raise self._error(what, error) from None
        except TimeoutError:
            raise ClientError(f"{self.name}: {what}", 0, f"no answer within {WAIT_S:g} s", True) from None

    def _forget(self, channel: str) -> None:
        if channel in self._machine.subscriptions:
            self._driver.do(self._machine.remove_subscription(channel, self._driver.now))

    def _error(self, what: str, error: Exception) -> ClientError:
        if isinstance(error, RequestError):
            return ClientError(f"{self.name}: {what}", error.code, error.message, error.temporary)
        failure = ClientError(f"{self.name}: {what}", 0, f"the app raised {error!r}")
        failure.__cause__ = error
        return failure

    def _lost(self, what: str) -> Exception:
        """Why something cannot be done without a connection."""
        if self._ended is not None and self._ended.code:
            return ClientError(f"{self.name}: {what}", self._ended.code, self._ended.reason)
        if self._refusal is not None:
            return self._error(what, self._refusal.error)
        remedy = "await its reconnect() first"
        if not self._driver.is_away and self._machine.state is ClientState.CONNECTING:
            remedy = (
                "it comes back by itself as the hub's time passes: hub.advance(…), or await its reconnect()"
            )
        return SetupError(f"{self.name}: {what}: the client is {self._state()}; {remedy}")

    def _state(self) -> str:
        if self.is_connected:
            return "connected"
        if self._driver.is_away:
            return "away, since its link was dropped"
        if self._machine.is_waiting:
            return "waiting to come back"
        if self._ended is not None and self._ended.code:
            return f"disconnected by the hub: {self._ended.reason} (code {self._ended.code})"
        return self._machine.state.value

    def _subscribed_to(self) -> str:
        return ", ".join(self.channels) or "no channel"

    def _payload(self, value: Any) -> m.Payload:
        return m.NO_PAYLOAD if value is None else self._machine.codec.payload(value)

    async def _until(self, is_over: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._driver.until(is_over)
        except TimeoutError:
            text = f"no answer within {WAIT_S:g} s; {self.describe()}"
            raise ClientError(f"{self.name}: {what}", 0, text, True) from None

    def _on_event(self, event: values.Event) -> None:
        match event:
            case values.Connected(client):
                self.id = client
                self._refusal = self._ended = None
            case values.Error(channel=""):
                self._refusal = event
            case values.Error(channel=channel):
                self._refused[channel] = event
            case values.Subscribed(channel):
                self._refused.pop(channel, None)
                self._subscribed[channel] = event
            case values.Disconnected(code):
                self._ended = event
                if code:
                    self._keep(event)
            case values.Unsubscribed(code=code) | values.Subscribing(code=code):
                if Unsubscribes.SERVER.code <= code < Disconnects.CONNECTION_CLOSED.code:
                    self._keep(event)
            case values.Published() | values.Joined() | values.Left() | values.Message():
                self._keep(event)

    def _keep(self, event: values.Event) -> None:
        self.received.append(event)
        self._unread.append(event)
