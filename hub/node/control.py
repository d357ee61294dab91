"""What a backend may ask of a hub: one method for each of the server API, and for `Hub` in an app.

Each returns the API's result, or the `Error` to answer with. A permission is not asked: a backend may do all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import os
import resource
import time
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from hub.core.hooks import RPCEvent, RPCReply
from hub.core.subscription import Grant
from hub.core.tokens import Override
from hub.errors import BrokerError
from hub.node.connection import Connection
from hub.node.node import Node
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Disconnects, Error, Errors, Unsubscribes
from hub.protocol.json import one_line
from hub.settings import ChannelOptions


class Control:
    """The server API, on a node.

    Args:
        node: that carries it out.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def call(self, method: str, body: bytes | msgspec.Raw) -> Any:
        """Run a method of `api.METHODS` on its request, JSON that was checked: its result, or an `Error`."""
        request_type, _ = api.METHODS[method]
        try:
            request = msgspec.json.decode(body, type=request_type)
        except msgspec.ValidationError as exc:
            return Error(Errors.BAD_REQUEST.code, f"bad request: {exc}")
        return await self.run(method, request)

    async def run(self, method: str, request: api.Request) -> Any:
        """Run a method of `api.METHODS` on its request. Returns its result or an `Error`."""
        try:
            return await getattr(self, method)(request)
        except BrokerError:
            self._node.metrics.broker_errors.inc()
            return Errors.INTERNAL

    async def publish(self, request: api.PublishRequest) -> api.PublishResult | Error:
        data = _payload(request.data, request.b64data)
        if isinstance(data, Error):
            return data
        return await self._publish(request.channel, data, request)

    async def broadcast(self, request: api.BroadcastRequest) -> api.BroadcastResult | Error:
        data = _payload(request.data, request.b64data)
        if isinstance(data, Error):
            return data
        outcomes = await asyncio.gather(
            *(self._publish(channel, data, request) for channel in request.channels)
        )
        return api.BroadcastResult(
            responses=[
                api.PublishResponse(error=api.ErrorResult(code=outcome.code, message=outcome.message))
                if isinstance(outcome, Error)
                else api.PublishResponse(result=outcome)
                for outcome in outcomes
            ]
        )

    async def subscribe(self, request: api.SubscribeRequest) -> api.EmptyResult | Error:
        options = self._options(request.channel)
        if isinstance(options, Error):
            return options
        info = _payload(request.info, request.b64info, required=False)
        data = _payload(request.data, request.b64data, required=False)
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
        options = self._options(request.channel)
        if isinstance(options, Error):
            return options
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
        for connection in self._connections(request):
            if connection.client not in request.whitelist:
                connection.close(disconnect)
        return api.EmptyResult()

    async def refresh(self, request: api.RefreshRequest) -> api.EmptyResult | Error:
        for connection in self._connections(request):
            if request.expired:
                connection.close(Disconnects.EXPIRED)
            else:
                connection.run(connection.session.refresh(request.expire_at, self._node.now()))
        return api.EmptyResult()

    async def presence(self, request: api.PresenceRequest) -> api.PresenceResult | Error:
        present = await self._present(request.channel)
        return present if isinstance(present, Error) else api.PresenceResult(presence=present)

    async def presence_stats(self, request: api.PresenceStatsRequest) -> api.PresenceStatsResult | Error:
        present = await self._present(request.channel)
        if isinstance(present, Error):
            return present
        users = {info.user for info in present.values()}
        return api.PresenceStatsResult(num_clients=len(present), num_users=len(users))

    async def history(self, request: api.HistoryRequest) -> api.HistoryResult | Error:
        options = self._options(request.channel)
        if isinstance(options, Error):
            return options
        if not options.history_size:
            return Errors.NOT_AVAILABLE
        stream = await self._node.broker.history(
            request.channel, since=request.since, limit=request.limit, reverse=request.reverse
        )
        if request.since and request.since.epoch not in ("", stream.top.epoch):
            return Errors.UNRECOVERABLE_POSITION
        return api.HistoryResult(
            publications=stream.publications, offset=stream.top.offset, epoch=stream.top.epoch
        )

    async def history_remove(self, request: api.HistoryRemoveRequest) -> api.EmptyResult | Error:
        options = self._options(request.channel)
        if isinstance(options, Error):
            return options
        if not options.history_size:
            return Errors.NOT_AVAILABLE
        await self._node.broker.history_remove(request.channel)
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

    async def rpc(self, request: api.RPCRequest) -> api.RPCResult | Error:
        if "rpc" not in self._node.context.hooks:
            return Errors.NOT_AVAILABLE
        answer = await self._node.ask(RPCEvent("", "", request.method, m.value(request.data)))
        if isinstance(answer, Disconnect):
            return Error(answer.code, answer.reason)
        if isinstance(answer, Error):
            return answer
        return api.RPCResult(data=answer.data if isinstance(answer, RPCReply) else None)

    def _options(self, channel: str) -> ChannelOptions | Error:
        if not self._node.rules.is_valid(channel):
            return Errors.BAD_REQUEST
        return self._node.rules.options(channel) or Errors.UNKNOWN_CHANNEL

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

    async def _publish(
        self, channel: str, data: m.Payload, request: api.PublishRequest | api.BroadcastRequest
    ) -> api.PublishResult | Error:
        options = self._options(channel)
        if isinstance(options, Error):
            return options
        try:
            position = await self._node.publish(
                channel,
                data,
                tags=request.tags,
                skip_history=request.skip_history,
                idempotency_key=request.idempotency_key,
            )
        except BrokerError:
            self._node.metrics.broker_errors.inc()
            return Errors.INTERNAL
        return api.PublishResult(offset=position.offset, epoch=position.epoch)

    async def _present(self, channel: str) -> dict[str, m.ClientInfo] | Error:
        options = self._options(channel)
        if isinstance(options, Error):
            return options
        if not options.presence:
            return Errors.NOT_AVAILABLE
        return await self._node.broker.presence(channel)


def _payload(data: m.Payload, base64_data: str, *, required: bool = True) -> m.Payload | Error:
    """The payload of a request. Binary ones reach a JSON subscriber as base64 text (protocol, encodings)."""
    if base64_data:
        try:
            base64.b64decode(base64_data, validate=True)
        except (binascii.Error, ValueError):
            return Error(Errors.BAD_REQUEST.code, "bad request: b64data is not base64")
        return m.payload(base64_data)
    if isinstance(data, msgspec.Raw):
        return one_line(bytes(data))
    if required:
        return Error(Errors.BAD_REQUEST.code, "bad request: data is required")
    return m.NO_PAYLOAD
