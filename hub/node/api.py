"""What a backend may ask of a hub: one method for each of the server API, and for `Hub` in an app.

Each returns the API's result, or the `Error` to answer with. A permission is not asked: a backend may do all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, TypeVar

import msgspec

from hub.core.hooks import RPCEvent, RPCReply
from hub.errors import BrokerError
from hub.node.bus import Bus
from hub.node.local_api import LocalAPI, options_of, payload_of
from hub.node.node import Node
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Error, Errors

_R = TypeVar("_R", bound=api.Result)


class API:
    """The server API, on a node.

    Args:
        node: that it was called on.
        local: what the node does by itself.
        peers: the other nodes.
    """

    def __init__(self, node: Node, local: LocalAPI, peers: Bus) -> None:
        self._node = node
        self._local = local
        self._peers = peers

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
        data = payload_of(request.data, request.b64data)
        if isinstance(data, Error):
            return data
        return await self._publish(request.channel, data, request)

    async def broadcast(self, request: api.BroadcastRequest) -> api.BroadcastResult | Error:
        data = payload_of(request.data, request.b64data)
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

    async def subscribe(self, request: api.SubscribeRequest) -> Any:
        return await self._everywhere("subscribe", request)

    async def unsubscribe(self, request: api.UnsubscribeRequest) -> Any:
        # Tokens made before would bring the channel back.
        return await self._everywhere("unsubscribe", request, void=True)

    async def disconnect(self, request: api.DisconnectRequest) -> Any:
        return await self._everywhere("disconnect", request, void=request.revoke)

    async def refresh(self, request: api.RefreshRequest) -> Any:
        return await self._everywhere("refresh", request, void=request.expired)

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
        options = options_of(self._node, request.channel)
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
        options = options_of(self._node, request.channel)
        if isinstance(options, Error):
            return options
        if not options.history_size:
            return Errors.NOT_AVAILABLE
        await self._node.broker.history_remove(request.channel)
        outcome: api.EmptyResult | Error = await self._everywhere("history_remove", request)
        return outcome

    async def channels(self, request: api.ChannelsRequest) -> api.ChannelsResult | Error:
        total: Counter[str] = Counter()
        for result in await self._survey("channels", request, api.ChannelsResult):
            total.update({name: channel.num_clients for name, channel in result.channels.items()})
        channels = {name: api.ChannelInfo(num_clients=count) for name, count in total.items()}
        return api.ChannelsResult(channels=channels)

    async def info(self, request: api.InfoRequest) -> api.InfoResult | Error:
        results = await self._survey("info", request, api.InfoResult)
        return api.InfoResult(nodes=[node for result in results for node in result.nodes])

    async def drain(self, request: api.DrainRequest) -> api.EmptyResult | Error:
        if request.node in ("", self._node.id):
            return await self._local.drain(request)
        if request.node not in self._peers.others:
            return Error(Errors.BAD_REQUEST.code, f"bad request: no node {request.node!r}")
        await self._peers.call("drain", request)
        return api.EmptyResult()

    async def rpc(self, request: api.RPCRequest) -> api.RPCResult | Error:
        if "rpc" not in self._node.context.hooks:
            return Errors.NOT_AVAILABLE
        answer = await self._node.ask(RPCEvent("", "", request.method, m.value(request.data)))
        if isinstance(answer, Disconnect):
            return Error(answer.code, answer.reason)
        if isinstance(answer, Error):
            return answer
        return api.RPCResult(data=answer.data if isinstance(answer, RPCReply) else None)

    async def _publish(
        self, channel: str, data: m.Payload, request: api.PublishRequest | api.BroadcastRequest
    ) -> api.PublishResult | Error:
        options = options_of(self._node, channel)
        if isinstance(options, Error):
            return options
        try:
            position = await self._node.publish(
                channel,
                data,
                tags=request.tags,
                skip_history=request.skip_history,
                idempotency_key=request.idempotency_key,
                delta=request.delta,
            )
        except BrokerError:
            self._node.metrics.broker_errors.inc()
            return Errors.INTERNAL
        return api.PublishResult(offset=position.offset, epoch=position.epoch)

    async def _present(self, channel: str) -> dict[str, m.ClientInfo] | Error:
        options = options_of(self._node, channel)
        if isinstance(options, Error):
            return options
        if not options.presence:
            return Errors.NOT_AVAILABLE
        return await self._node.broker.presence(channel)

    async def _everywhere(self, method: str, request: Any, *, void: bool = False) -> Any:
        """Have every node do it. What is wrong with the request, this one says.

        Args:
            void: whether the reconnect tokens that the client or the user holds are not good any more.
        """
        if void and (request.client or not request.session):
            await self._node.broker.session_revoke(request.user, request.client, self._node.session_ttl_s)
        outcome = await getattr(self._local, method)(request)
        if not isinstance(outcome, Error):
            await self._peers.call(method, request)
        return outcome

    async def _survey(self, method: str, request: api.Request, result_type: type[_R]) -> list[_R]:
        """What every node knows."""
        own = await getattr(self._local, method)(request)
        others = await self._peers.ask(method, request)
        return [own, *(msgspec.json.decode(result, type=result_type) for result in others)]
