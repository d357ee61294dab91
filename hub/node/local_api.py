"""What a node does to the connections that it holds itself, and what it knows of them."""

from __future__ import annotations

import base64
import binascii
import math
import os
import resource
import time
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from hub.core.channel.subscription import Grant
from hub.core.tokens import Override
from hub.node.connection import Connection
from hub.node.drain import Drain
from hub.node.node import Node
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors, Unsubscribes
from hub.protocol.json import one_line
from hub.settings import ChannelOptions


class LocalAPI:
    """The part of the server API that every node runs for itself.

    Args:
        node: whose connections these are.
        drain: of the node.
    """

    def __init__(self, node: Node, drain: Drain) -> None:
        self._node = node
        self._drain = drain

    async def run(self, method: str, request: api.Request) -> Any:
        """Run one of the methods below, by name."""
        return await getattr(self, method)(request)

    async def subscribe(self, request: api.SubscribeRequest) -> api.EmptyResult | Error:
        options = options_of(self._node, request.channel)
        if isinstance(options, Error):
            return options
        info = payload_of(request.info, request.b64info, required=False)
        data = payload_of(request.data, request.b64data, required=False)
        if isinstance(info, Error) or isinstance(data, Error):
            return Errors.BAD_REQUEST
        replaced = {
            name: value.value
            for name in Override.__slots__
            if (value := getattr(request.override, name, None)) is not None
        }
        grant = Grant(info, data, overrides=Override(**replaced))
        for connection in self._connections(request):
            session = connection.session
            connection.run(session.subscribe(request.channel, grant, request.recover_since, self._node.now()))
        return api.EmptyResult()

    async def unsubscribe(self, request: api.UnsubscribeRequest) -> api.EmptyResult | Error:
        options = options_of(self._node, request.channel)
        if isinstance(options, Error):
            return options
        self._void(request)
        for connection in self._connections(request):
            session = connection.session
            connection.run(session.unsubscribe(request.channel, Unsubscribes.SERVER, self._node.now()))
        return api.EmptyResult()

    async def disconnect(self, request: api.DisconnectRequest) -> api.EmptyResult | Error:
        disconnect = Disconnects.FORCE_NO_RECONNECT
        if request.disconnect and request.disconnect.code:
            try:
                disconnect = Disconnect(request.disconnect.code, request.disconnect.reason)
            except ValueError as exc:
                return Error(Errors.BAD_REQUEST.code, f"bad request: {exc}")
        if request.revoke:
            self._void(request)
        for connection in self._connections(request):
            if connection.client not in request.whitelist:
                connection.close(disconnect)
        return api.EmptyResult()

    async def refresh(self, request: api.RefreshRequest) -> api.EmptyResult | Error:
        if request.expired:
            self._void(request)
        for connection in self._connections(request):
            if request.expired:
                connection.close(Disconnects.EXPIRED)
                continue
            if request.expire_at and connection.session.expires_at > connection.session.monotonic(
                request.expire_at
            ):
                self._node.revoke_session(connection)
            connection.run(connection.session.refresh(request.expire_at, self._node.now()))
        return api.EmptyResult()

    async def history_remove(self, request: api.HistoryRemoveRequest) -> api.EmptyResult | Error:
        """Drop what the node keeps of a channel's history for those who come back."""
        self._node.followers.forget(request.channel)
        return api.EmptyResult()

    async def channels(self, request: api.ChannelsRequest) -> api.ChannelsResult | Error:
        return api.ChannelsResult(
            channels={
                channel.name: api.ChannelInfo(num_clients=channel.subscribers)
                for channel in self._node.registry.channels.values()
                if channel.groups and (not request.pattern or fnmatchcase(channel.name, request.pattern))
            }
        )

    async def info(self, request: api.InfoRequest) -> api.InfoResult | Error:
        node, registry = self._node, self._node.registry
        usage = resource.getrusage(resource.RUSAGE_SELF)
        info = api.NodeInfo(
            uid=node.id,
            name=f"{os.uname().nodename}_{node.settings.server.port}",
            version=node.context.version,
            num_clients=len(registry.clients),
            num_users=len(registry.users),
            num_subs=registry.subscriptions,
            num_channels=len(registry.channels),
            uptime=math.floor(time.time() - node.started_at),
            process=api.ProcessInfo(cpu=usage.ru_utime + usage.ru_stime, rss=usage.ru_maxrss * 1024),
        )
        return api.InfoResult(nodes=[info])

    async def drain(self, request: api.DrainRequest) -> api.EmptyResult | Error:
        if request.node in ("", self._node.id):
            if not request.restart:
                self._drain.begin(self._node.settings.server.drain_window_s)
            elif self._drain.restart is None:
                return Errors.NOT_AVAILABLE
            else:
                self._drain.restart()
        return api.EmptyResult()

    def _void(self, request: api.UnsubscribeRequest | api.DisconnectRequest | api.RefreshRequest) -> None:
        """Take no reconnect token of those that a request is about. The broker knows of users and clients."""
        if request.session:
            for connection in self._connections(request):
                self._node.revoke_session(connection)
        elif not request.client:
            self._node.revoke(request.user)

    def _connections(
        self,
        request: api.SubscribeRequest | api.UnsubscribeRequest | api.DisconnectRequest | api.RefreshRequest,
    ) -> list[Connection]:
        """The user's connections that a request is about."""
        return [
            connection
            for connection in self._node.registry.of_user(request.user)
            if request.client in ("", connection.client)
            and request.session in ("", connection.session.session)
        ]


def options_of(node: Node, channel: str) -> ChannelOptions | Error:
    """The options of a channel that a backend named."""
    if not node.rules.is_valid(channel):
        return Errors.BAD_REQUEST
    return node.rules.options(channel) or Errors.UNKNOWN_CHANNEL


def payload_of(data: m.Payload, base64_data: str, *, required: bool = True) -> m.Payload | Error:
    """The payload of a request; what is given as base64 is binary."""
    if base64_data:
        try:
            return base64.b64decode(base64_data, validate=True)
        except (binascii.Error, ValueError):
            return Error(Errors.BAD_REQUEST.code, "bad request: b64data is not base64")
    if isinstance(data, msgspec.Raw):
        return one_line(bytes(data))
    if data:
        return data
    if required:
        return Error(Errors.BAD_REQUEST.code, "bad request: data is required")
    return m.NO_PAYLOAD
