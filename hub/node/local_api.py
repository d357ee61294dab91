"""What a node does to the connections that it holds itself, and what it knows of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import time
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

import msgspec

from hub.core.channel.registry import Registry
from hub.core.channel.subscription import Grant
from hub.core.rules import Rules
from hub.core.tokens import ChannelOverrides
from hub.node.channels import Channels
from hub.node.connection import Connection
from hub.node.drain import Drain
from hub.node.environment import Clock
from hub.node.overload import memory_bytes
from hub.node.sessions import Sessions
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors, Unsubscribes
from hub.protocol.json import one_line
from hub.settings import ChannelOptions

LOCAL_METHODS: Final = frozenset(
    {"subscribe", "unsubscribe", "disconnect", "refresh", "history_remove", "channels", "info", "drain"}
)
"""The methods that a node runs when another node asks."""


_AboutConnections: TypeAlias = (
    api.SubscribeRequest | api.UnsubscribeRequest | api.DisconnectRequest | api.RefreshRequest
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node tells of itself.

    Args:
        id: unique over all nodes and their lives.
        name: of the machine and the port, the same for all workers of a server.
        version: of the hub.
        started_at: monotonic seconds.
    """

    id: str
    name: str
    version: str
    started_at: float


class LocalAPI:
    """The part of the server API that every node runs for itself.

    Args:
        identity: what this node tells of itself.
        rules: the options of channels.
        registry: the clients of this node.
        channels: their channels.
        sessions: revokes them.
        drain: of the node.
        drain_window_s: seconds over which a drain asks clients to leave.
        restart: drains the process and restarts it. Returns None, or why the process goes on.
        clock: of the node.
    """

    def __init__(
        self,
        identity: Identity,
        rules: Rules,
        registry: Registry[Connection],
        channels: Channels,
        sessions: Sessions,
        drain: Drain,
        drain_window_s: float,
        restart: Callable[[], str | None],
        clock: Clock,
    ) -> None:
        self._now = clock.now
        self._identity = identity
        self._rules = rules
        self._registry = registry
        self._channels = channels
        self._sessions = sessions
        self._drain = drain
        self._drain_window_s = drain_window_s
        self._restart = restart

    async def run(self, method: str, request: api.Request) -> Any:
        """Run one of the methods below, by name."""
        return await getattr(self, method)(request)

    async def perform(self, method: str, request: bytes) -> bytes | Error:
        """Run a method that another node asks for, on its request as JSON. Returns its result as JSON."""
        if method not in LOCAL_METHODS:
            raise ValueError(f"another node asks for {method!r}, which this release does not know")
        request_type, _ = api.METHODS[method]
        outcome = await self.run(method, msgspec.json.decode(request, type=request_type))
        return outcome if isinstance(outcome, Error) else msgspec.json.encode(outcome)

    async def subscribe(self, request: api.SubscribeRequest) -> api.EmptyResult | Error:
        options = options_of(self._rules, request.channel)
        if isinstance(options, Error):
            return options
        info = payload_of(request.info, request.b64info, required=False)
        data = payload_of(request.data, request.b64data, required=False)
        if isinstance(info, Error) or isinstance(data, Error):
            return Errors.BAD_REQUEST
        replaced = {
            name: value.value
            for name in ChannelOverrides.__slots__
            if (value := getattr(request.override, name, None)) is not None
        }
        grant = Grant(info, data, overrides=ChannelOverrides(**replaced))

        def act(connection: Connection) -> None:
            session = connection.session
            connection.run(session.subscribe(request.channel, grant, request.recover_since, self._now()))

        self._for_each(request, act)
        return api.EmptyResult()

    async def unsubscribe(self, request: api.UnsubscribeRequest) -> api.EmptyResult | Error:
        options = options_of(self._rules, request.channel)
        if isinstance(options, Error):
            return options

        def act(connection: Connection) -> None:
            session = connection.session
            connection.run(session.unsubscribe(request.channel, Unsubscribes.SERVER, self._now()))

        revocations = self._revoke(request)
        self._for_each(request, act)
        await asyncio.gather(*revocations)
        return api.EmptyResult()

    async def disconnect(self, request: api.DisconnectRequest) -> api.EmptyResult | Error:
        disconnect = Disconnects.FORCE_NO_RECONNECT
        if request.disconnect and request.disconnect.code:
            try:
                disconnect = Disconnect(request.disconnect.code, request.disconnect.reason)
            except ValueError as exc:
                return Error(Errors.BAD_REQUEST.code, f"bad request: {exc}")

        def act(connection: Connection) -> None:
            if connection.client not in request.whitelist:
                connection.close(disconnect)

        revocations = self._revoke(request) if request.revoke else []
        self._for_each(request, act)
        await asyncio.gather(*revocations)
        return api.EmptyResult()

    async def refresh(self, request: api.RefreshRequest) -> api.EmptyResult | Error:
        revocations = self._revoke(request) if request.expired else []

        def act(connection: Connection) -> None:
            session = connection.session
            if request.expired:
                connection.close(Disconnects.EXPIRED)
                return
            if request.expire_at and session.expires_at > session.monotonic(request.expire_at):
                revocations.append(self._sessions.revoke(connection))
            connection.run(session.refresh(request.expire_at, self._now()))

        self._for_each(request, act)
        await asyncio.gather(*revocations)
        return api.EmptyResult()

    async def history_remove(self, request: api.HistoryRemoveRequest) -> api.EmptyResult | Error:
        """Drop what the node keeps of a channel's history for those who come back."""
        self._channels.followers.forget(request.channel)
        return api.EmptyResult()

    async def channels(self, request: api.ChannelsRequest) -> api.ChannelsResult | Error:
        return api.ChannelsResult(
            channels={
                channel.name: api.ChannelInfo(num_clients=channel.subscribers)
                for channel in self._registry.channels.values()
                if channel.groups and (not request.pattern or fnmatchcase(channel.name, request.pattern))
            }
        )

    async def info(self, request: api.InfoRequest) -> api.InfoResult | Error:
        registry = self._registry
        info = api.NodeInfo(
            uid=self._identity.id,
            name=self._identity.name,
            version=self._identity.version,
            num_clients=len(registry.clients),
            num_users=len(registry.users),
            num_subs=registry.subscriptions,
            num_channels=len(registry.channels),
            uptime=math.floor(self._now() - self._identity.started_at),
            process=api.ProcessInfo(cpu=time.process_time(), rss=memory_bytes()),
        )
        return api.InfoResult(nodes=[info])

    async def drain(self, request: api.DrainRequest) -> api.EmptyResult | Error:
        if request.node in ("", self._identity.id):
            if not request.restart:
                self._drain.begin(self._drain_window_s)
            elif reason := self._restart():
                return Error(Errors.NOT_AVAILABLE.code, f"{Errors.NOT_AVAILABLE.message}: {reason}")
        return api.EmptyResult()

    def _revoke(
        self, request: api.UnsubscribeRequest | api.DisconnectRequest | api.RefreshRequest
    ) -> list[Future[None]]:
        """Revoke the reconnect tokens of a request's clients. The API itself tells the broker of a user or a
        client; the futures are of what this node tells it.
        """
        if request.session:
            return [self._sessions.revoke(connection) for connection in self._connections(request)]
        if not request.client:
            self._sessions.revoke_user(request.user)
        return []

    def _for_each(self, request: _AboutConnections, act: Callable[[Connection], None]) -> None:
        """Do something to each connection that a request is about. One that raises ends, and no other."""
        for connection in self._connections(request):
            try:
                act(connection)
            except Exception as error:
                connection.fail("api", error)

    def _connections(self, request: _AboutConnections) -> list[Connection]:
        """The user's connections that a request is about."""
        return [
            connection
            for connection in self._registry.of_user(request.user)
            if request.client in ("", connection.client)
            and request.session in ("", connection.session.session)
        ]


def options_of(rules: Rules, channel: str) -> ChannelOptions | Error:
    """The options of a channel that a backend named."""
    options = rules.options(channel) if rules.is_valid(channel) else None
    return options or rules.refusal(channel)


def payload_of(data: m.Payload, base64_data: str, *, required: bool = True) -> m.Payload | Error:
    """The payload of a request; what is given as base64 is binary."""
    if base64_data:
        try:
            return base64.b64decode(base64_data, validate=True)
        except (binascii.Error, ValueError):
            text = "bad request: b64data is not base64: use the standard alphabet, with padding"
            return Error(Errors.BAD_REQUEST.code, text)
    if isinstance(data, msgspec.Raw):
        return one_line(bytes(data))
    if data:
        return data
    if required:
        return Error(Errors.BAD_REQUEST.code, "bad request: data is missing: send data, or b64data")
    return m.NO_PAYLOAD
