"""The client for asyncio."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Literal

from hub.client import values
from hub.client.address import endpoint
from hub.client.codec import CODECS
from hub.client.driver import Driver
from hub.client.errors import ClientDisconnectedError, SubscriptionUnsubscribedError
from hub.client.handlers import Handlers, SubscriptionEvents
from hub.client.machine import ClientMachine
from hub.client.state import ClientOptions, ClientState
from hub.client.subscription import SubscriptionMachine, SubscriptionOptions, SubscriptionState
from hub.protocol import messages as m


class Client(SubscriptionEvents):
    """A client of a hub. Make it and use it in one event loop.

    As a context manager it connects, and disconnects in the end: `async with Client(url) as client`. A call
    that is made before it is connected waits for that; a hundred may. Calls raise a kind of
    `RequestError`, and `TypeError` for data that has no form in the encoding.

    Args:
        url: of the hub, such as `https://hub.example`, or of its WebSocket endpoint.
        token: the first connection token, where the hub asks for one.
        get_token: is asked for a token where there is none, where it expired, and before its end. Where the
            user may not have any it raises `UnauthorizedError` or returns an empty one, and the client stops;
            any other exception is tried again.
        data: for the app, with each connect.
        encoding: `json`; `msgpack` or `protobuf`, where `bytes` are payloads as they are.
        name: what the hub calls this kind of client.
        version: of your app.
        headers: more headers of the handshake.
        timeout_s: how long opening a socket, connecting, or a call may take.
        min_reconnect_delay_s: the shortest wait before a try to come back.
        max_reconnect_delay_s: the longest.
        max_server_ping_delay_s: how late the hub's ping may be.
        ssl_context: for `wss`, in place of the default one.
        proxy: a proxy's URL, None for no proxy, True for the one in the environment.

    Raises:
        TypeError: `data` has no form in the encoding.
        ValueError: the URL is none of a hub.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        get_token: Callable[[], Awaitable[str]] | None = None,
        data: Any = None,
        encoding: Literal["json", "msgpack", "protobuf"] = "json",
        name: str = "python",
        version: str = "",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        min_reconnect_delay_s: float = 0.5,
        max_reconnect_delay_s: float = 20.0,
        max_server_ping_delay_s: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | Literal[True] | None = True,
    ) -> None:
        super().__init__()
        self.on_connecting: Handlers[values.Connecting] = Handlers()
        self.on_connected: Handlers[values.Connected] = Handlers()
        self.on_disconnected: Handlers[values.Disconnected] = Handlers()
        self.on_message: Handlers[values.Message] = Handlers()
        self.handlers |= {
            values.Connecting: self.on_connecting,
            values.Connected: self.on_connected,
            values.Disconnected: self.on_disconnected,
            values.Message: self.on_message,
        }
        self._codec = CODECS[encoding]
        options = ClientOptions(
            name=name,
            version=version,
            renewable=get_token is not None,
            timeout_s=timeout_s,
            min_reconnect_delay_s=min_reconnect_delay_s,
            max_reconnect_delay_s=max_reconnect_delay_s,
            max_server_ping_delay_s=max_server_ping_delay_s,
        )
        self._machine = ClientMachine(
            self._codec, options, chance=random.random, token=token, data=self._payload(data)
        )
        transport: dict[str, Any] = {"additional_headers": dict(headers or {}), "proxy": proxy}
        if ssl_context is not None:
            transport["ssl"] = ssl_context
        self._driver = Driver(self._machine, endpoint(url), transport, self._fetch_token, self._handlers_of)
        self._get_token = get_token
        self._timeout_s = timeout_s
        self._subscriptions: dict[str, Subscription] = {}

    async def __aenter__(self) -> Client:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def state(self) -> ClientState:
        """Where the client is."""
        return self._machine.state

    async def connect(self) -> None:
        """Begin to connect, and stay connected until `disconnect` or a refusal. `ready` waits for it."""
        self._driver.carry_out(self._machine.connect(self._driver.now))

    async def disconnect(self) -> None:
        """Leave, and wait for the goodbye and for the handlers. Only `connect` brings the client back."""
        self._driver.carry_out(self._machine.disconnect(self._driver.now))
        await self._driver.finish()

    async def ready(self) -> None:
        """Wait until the client is connected.

        Raises:
            ClientDisconnectedError: it stopped.
            OperationTimeoutError: it is not connected in time.
        """
        machine = self._machine
        await self._driver.until(
            lambda: self.state is ClientState.CONNECTED,
            lambda: ClientDisconnectedError(machine.why) if self.state is ClientState.DISCONNECTED else None,
            lambda: machine.why,
            self._timeout_s,
        )

    def set_token(self, token: str) -> None:
        """Use this token from the next connect on, and not the hub's reconnect token."""
        self._machine.set_token(token)

    def set_data(self, data: Any) -> None:
        """Send this from the next connect on."""
        self._machine.data = self._payload(data)

    def new_subscription(
        self,
        channel: str,
        *,
        token: str = "",
        get_token: Callable[[str], Awaitable[str]] | None = None,
        data: Any = None,
        recoverable: bool = False,
        positioned: bool = False,
        join_leave: bool = False,
        since: m.StreamPosition | None = None,
        delta: Literal["fossil"] | None = None,
        tags_filter: m.FilterNode | None = None,
        min_resubscribe_delay_s: float = 0.5,
        max_resubscribe_delay_s: float = 20.0,
    ) -> Subscription:
        """A subscription to a channel. Nothing is sent until its `subscribe`.

        Args:
            channel: its name.
            token: the first subscription token, where the channel needs one.
            get_token: as the client's; it is told the channel.
            data: for the app.
            recoverable: after a reconnect get what was missed, where the channel keeps history.
            positioned: have the hub watch for gaps.
            join_leave: be told who comes and goes.
            since: begin here: as in a `Subscribed` event, or in `history`.
            delta: be sent what changed since the publication before, where the channel allows it.
            tags_filter: be sent only what passes this, where the channel allows it.
            min_resubscribe_delay_s: the shortest wait before a subscribe that failed is tried again.
            max_resubscribe_delay_s: the longest.

        Raises:
            DuplicateSubscriptionError: there is one: `get_subscription` returns it.
        """
        options = SubscriptionOptions(
            token=token,
            renewable=get_token is not None,
            data=self._payload(data),
            recoverable=recoverable,
            positioned=positioned,
            join_leave=join_leave,
            since=since,
            delta=delta or "",
            tags_filter=tags_filter,
            min_delay_s=min_resubscribe_delay_s,
            max_delay_s=max_resubscribe_delay_s,
        )
        machine = self._machine.new_subscription(channel, options)
        subscription = self._subscriptions[channel] = Subscription(self, machine, get_token)
        return subscription

    def get_subscription(self, channel: str) -> Subscription | None:
        """The subscription to a channel, None for none."""
        return self._subscriptions.get(channel)

    def subscriptions(self) -> dict[str, Subscription]:
        """All subscriptions by channel."""
        return dict(self._subscriptions)

    async def remove_subscription(self, subscription: Subscription) -> None:
        """Unsubscribe, and forget the subscription, which is of no use any more."""
        if self._subscriptions.get(subscription.channel) is subscription:
            self._driver.carry_out(self._machine.remove_subscription(subscription.channel, self._driver.now))
            del self._subscriptions[subscription.channel]

    async def publish(self, channel: str, data: Any) -> None:
        """Publish to a channel."""
        await self._request(m.PublishRequest(channel, self._codec.payload(data)))

    async def history(
        self, channel: str, *, limit: int = 0, since: m.StreamPosition | None = None, reverse: bool = False
    ) -> values.HistoryResult:
        """Read a channel's history.

        Args:
            channel: its name.
            limit: most publications; 0 for the position alone, -1 for all that the hub gives.
            since: those after this position.
            reverse: the newest first.
        """
        result = await self._request(m.HistoryRequest(channel, limit, since, reverse))
        return values.history(self._codec, result)

    async def presence(self, channel: str) -> values.PresenceResult:
        """Who is in a channel."""
        return values.presence(self._codec, await self._request(m.PresenceRequest(channel)))

    async def presence_stats(self, channel: str) -> values.PresenceStatsResult:
        """How many are in a channel."""
        return values.presence_stats(await self._request(m.PresenceStatsRequest(channel)))

    async def rpc(self, method: str, data: Any = None) -> values.RPCResult:
        """Call a method of the app."""
        result = await self._request(m.RPCRequest(self._payload(data), method))
        return values.RPCResult(self._codec.value(result.data))

    async def send(self, data: Any) -> None:
        """Send the app a message that it does not answer, and wait until it left."""
        await self._request(m.SendRequest(self._codec.payload(data)))
        await self._driver.flushed()

    def _payload(self, value: Any) -> m.Payload:
        return m.NO_PAYLOAD if value is None else self._codec.payload(value)

    async def _request(self, request: m.Request, subscribed: str | None = None) -> Any:
        """Ask the hub, once connected, or once subscribed to a channel."""
        outcome = asyncio.get_running_loop().create_future()
        self._driver.carry_out(self._machine.call(outcome, request, self._driver.now, subscribed))
        return await outcome

    async def _fetch_token(self, channel: str) -> str:
        if not channel:
            assert self._get_token is not None, "only a client with a get_token asks for one"
            return await self._get_token()
        get_token = self._subscriptions[channel].get_token
        assert get_token is not None, "only a subscription with a get_token asks for one"
        return await get_token(channel)

    def _handlers_of(self, channel: str | None) -> Mapping[type, Handlers[Any]]:
        return self.handlers if channel is None else self._subscriptions[channel].handlers


class Subscription(SubscriptionEvents):
    """A subscription of a client, made by its `new_subscription`. Its calls wait until it is subscribed."""

    def __init__(
        self,
        client: Client,
        machine: SubscriptionMachine,
        get_token: Callable[[str], Awaitable[str]] | None,
    ) -> None:
        super().__init__()
        self.channel = machine.channel
        self.get_token = get_token
        self._client = client
        self._machine = machine

    @property
    def state(self) -> SubscriptionState:
        """Where the subscription is."""
        return self._machine.state

    @property
    def position(self) -> m.StreamPosition | None:
        """Where in the channel's history it is, for a later `since`; None where it cannot recover."""
        return self._machine.position

    async def subscribe(self) -> None:
        """Subscribe, now and after each reconnect, until `unsubscribe`; what was missed is recovered.

        Raises:
            SubscriptionUnsubscribedError: it was removed.
        """
        if not self._registered:
            raise SubscriptionUnsubscribedError
        driver = self._client._driver
        driver.carry_out(self._client._machine.subscribe(self.channel, driver.now))

    async def unsubscribe(self) -> None:
        """Leave the channel. Another `subscribe` takes it up where it was left."""
        if self._registered:
            driver = self._client._driver
            driver.carry_out(self._client._machine.unsubscribe(self.channel, driver.now))

    async def ready(self) -> None:
        """Wait until it is subscribed.

        Raises:
            SubscriptionUnsubscribedError: it ended, or was not begun.
            OperationTimeoutError: it is not subscribed in time.
        """
        machine, client = self._machine, self._client
        await client._driver.until(
            lambda: self.state is SubscriptionState.SUBSCRIBED,
            lambda: (
                SubscriptionUnsubscribedError(machine.why)
                if self.state is SubscriptionState.UNSUBSCRIBED
                else None
            ),
            lambda: machine.why or client._machine.why,
            client._timeout_s,
        )

    async def publish(self, data: Any) -> None:
        """Publish to the channel."""
        await self._request(m.PublishRequest(self.channel, self._client._codec.payload(data)))

    async def history(
        self, *, limit: int = 0, since: m.StreamPosition | None = None, reverse: bool = False
    ) -> values.HistoryResult:
        """Read the channel's history, as `Client.history`."""
        result = await self._request(m.HistoryRequest(self.channel, limit, since, reverse))
        return values.history(self._client._codec, result)

    async def presence(self) -> values.PresenceResult:
        """Who is in the channel."""
        result = await self._request(m.PresenceRequest(self.channel))
        return values.presence(self._client._codec, result)

    async def presence_stats(self) -> values.PresenceStatsResult:
        """How many are in the channel."""
        return values.presence_stats(await self._request(m.PresenceStatsRequest(self.channel)))

    @property
    def _registered(self) -> bool:
        return self._client.get_subscription(self.channel) is self

    async def _request(self, request: m.Request) -> Any:
        if not self._registered:
            raise SubscriptionUnsubscribedError
        return await self._client._request(request, self.channel)
