"""What a backend may ask of a hub: one method for each of the server API, and for `Hub` in an app.

Each returns the API's result, or the `Error` to answer with. A permission is not asked: a backend may do all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec

from hub.broker.base import Broker
from hub.core.access import switched_off, unknown_method
from hub.core.hooks import RPCEvent, RPCReply
from hub.core.rules import Rules
from hub.errors import BrokerError
from hub.node.bus_messages import LOGGED_BYTES_MAX
from hub.node.callbacks import Callbacks
from hub.node.channels import Channels
from hub.node.local_api import LocalAPI, options_of, payload_of
from hub.node.members import Confirmation, Members
from hub.node.refusals import Refusals
from hub.node.sessions import Sessions
from hub.protocol import api
from hub.protocol import messages as m
from hub.protocol.codes import Disconnect, Error, Errors
from hub.protocol.nulls import without_nulls
from hub.telemetry import Metrics, get_logger

REQUEST_BYTES_MAX: Final = LOGGED_BYTES_MAX - 1_024
"""What a request to all nodes may hold, as JSON."""

PUBLISHES_MAX: Final = 500
"""Channels of a broadcast that are published to at a time: clients have their turn between."""

_log = get_logger("hub.node")

_R = TypeVar("_R", bound=api.Result)
_Request = TypeVar("_Request", bound=api.Request)


def decoded(body: bytes | msgspec.Raw, request_type: type[_Request]) -> _Request:
    """Decode a request, JSON that was checked. A member that is null counts as absent.

    Raises:
        msgspec.ValidationError: a member is missing or of the wrong type.
    """
    try:
        return msgspec.json.decode(body, type=request_type)
    except msgspec.ValidationError:
        return msgspec.json.decode(without_nulls(bytes(body), msgspec.json), type=request_type)


class API:
    """The server API, on a node.

    Args:
        node: id of the node that is called.
        rules: the options of channels.
        broker: reads history and presence, revokes sessions.
        channels: publish.
        sessions: how long a revocation is remembered.
        callbacks: the app's handlers.
        local: what the node does by itself.
        members: the other nodes.
        refusals: counts and logs refusals.
        metrics: count failures of the broker.
    """

    def __init__(
        self,
        node: str,
        rules: Rules,
        broker: Broker,
        channels: Channels,
        sessions: Sessions,
        callbacks: Callbacks,
        local: LocalAPI,
        members: Members,
        refusals: Refusals,
        metrics: Metrics,
    ) -> None:
        self._node = node
        self._rules = rules
        self._broker = broker
        self._channels = channels
        self._sessions = sessions
        self._callbacks = callbacks
        self._local = local
        self._members = members
        self._refusals = refusals
        self._metrics = metrics

    async def call(self, method: str, body: bytes | msgspec.Raw) -> Any:
        """Run a method of `api.METHODS` on its request, JSON that was checked: its result, or an `Error`."""
        request_type, _ = api.METHODS[method]
        try:
            request = decoded(body, request_type)
        except msgspec.ValidationError as exc:
            return Error(Errors.BAD_REQUEST.code, f"bad request: {exc}")
        return await self.run(method, request)

    async def run(self, method: str, request: api.Request) -> Any:
        """Run a method of `api.METHODS` on its request. Returns its result or an `Error`."""
        try:
            outcome = await getattr(self, method)(request)
        except BrokerError as error:
            return self._broker_failed(error)
        if isinstance(outcome, Error):
            self._refusals.call(method, outcome)
        return outcome

    async def publish(self, request: api.PublishRequest) -> api.PublishResult | Error:
        data = payload_of(request.data, request.b64data)
        if isinstance(data, Error):
            return data
        return await self._publish(request.channel, data, request)

    async def broadcast(self, request: api.BroadcastRequest) -> api.BroadcastResult | Error:
        data = payload_of(request.data, request.b64data)
        if isinstance(data, Error):
            return data
        outcomes: list[api.PublishResult | Error] = []
        for start in range(0, len(request.channels), PUBLISHES_MAX):
            names = request.channels[start : start + PUBLISHES_MAX]
            outcomes += await asyncio.gather(*(self._publish(name, data, request) for name in names))
            await asyncio.sleep(0)
        return api.BroadcastResult(
            responses=[
                api.PublishResponse(
                    error=api.ErrorResult(code=outcome.code, message=outcome.in_full().message)
                )
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
        options = options_of(self._rules, request.channel)
        if isinstance(options, Error):
            return options
        if not options.history_size:
            return switched_off(request.channel, "the history", "history_size and history_ttl_s")
        stream = await self._broker.history(
            request.channel, since=request.since, limit=request.limit, reverse=request.reverse
        )
        if request.since and request.since.epoch not in ("", stream.top.epoch):
            return Errors.UNRECOVERABLE_POSITION
        return api.HistoryResult(
            publications=stream.publications, offset=stream.top.offset, epoch=stream.top.epoch
        )

    async def history_remove(self, request: api.HistoryRemoveRequest) -> api.EmptyResult | Error:
        options = options_of(self._rules, request.channel)
        if isinstance(options, Error):
            return options
        if not options.history_size:
            return switched_off(request.channel, "the history", "history_size and history_ttl_s")
        await self._broker.history_remove(request.channel)
        outcome = await self._everywhere("history_remove", request)
        return outcome if isinstance(outcome, Error) else api.EmptyResult()

    async def channels(self, request: api.ChannelsRequest) -> api.ChannelsResult | Error:
        total: Counter[str] = Counter()
        for result in await self._survey("channels", request, api.ChannelsResult):
            total.update({name: channel.num_clients for name, channel in result.channels.items()})
        channels = {name: api.ChannelInfo(num_clients=count) for name, count in total.items()}
        return api.ChannelsResult(channels=channels)

    async def info(self, request: api.InfoRequest) -> api.InfoResult | Error:
        results = await self._survey("info", request, api.InfoResult)
        return api.InfoResult(nodes=[node for result in results for node in result.nodes])

    async def drain(self, request: api.DrainRequest) -> api.ConfirmedResult | Error:
        if request.node in ("", self._node):
            outcome = await self._local.drain(request)
            return outcome if isinstance(outcome, Error) else _result(Confirmation(1, 1))
        if request.node not in self._members.others:
            return Error(Errors.BAD_REQUEST.code, f"bad request: no node {request.node!r}")
        done = await self._members.call_one(request.node, "drain", msgspec.json.encode(request))
        return done.refusal or _result(done)

    async def rpc(self, request: api.RPCRequest) -> api.RPCResult | Error:
        if "rpc" not in self._callbacks:
            return Errors.NOT_AVAILABLE.because("switched_off", "the app has no on_rpc handler; decorate one")
        if not self._callbacks.is_handled("rpc", request.method):
            return unknown_method(request.method)
        answer = await self._callbacks.call(RPCEvent("", "", request.method, m.value(request.data)))
        if isinstance(answer, Disconnect):
            return Error(answer.code, answer.reason)
        if isinstance(answer, Error):
            return answer
        return api.RPCResult(data=answer.data if isinstance(answer, RPCReply) else None)

    async def _publish(
        self, channel: str, data: m.Payload, request: api.PublishRequest | api.BroadcastRequest
    ) -> api.PublishResult | Error:
        options = options_of(self._rules, channel)
        if isinstance(options, Error):
            return options
        try:
            position = await self._channels.publish(
                channel,
                data,
                tags=request.tags,
                skip_history=request.skip_history,
                idempotency_key=request.idempotency_key,
                delta=request.delta,
            )
        except BrokerError as error:
            return self._broker_failed(error)
        return api.PublishResult(offset=position.offset, epoch=position.epoch)

    def _broker_failed(self, error: BrokerError) -> Error:
        """Count a failure of the broker. A backend is told of the cause; a client never is."""
        self._metrics.broker_errors.inc()
        return replace(Errors.INTERNAL, message=f"{Errors.INTERNAL.message}: {error}")

    async def _present(self, channel: str) -> dict[str, m.ClientInfo] | Error:
        options = options_of(self._rules, channel)
        if isinstance(options, Error):
            return options
        if not options.presence:
            return switched_off(channel, "the presence", "presence")
        return await self._broker.presence(channel)

    async def _everywhere(self, method: str, request: Any, *, void: bool = False) -> Any:
        """Have every node do it. What is wrong with the request, this one says.

        Args:
            void: whether the reconnect tokens that the client or the user holds are not good any more.
        """
        body = msgspec.json.encode(request)
        if len(body) > REQUEST_BYTES_MAX:
            return Error(Errors.BAD_REQUEST.code, f"bad request: at most {REQUEST_BYTES_MAX} bytes")
        if void and (request.client or not request.session):
            await self._broker.session_revoke(request.user, request.client, self._sessions.ttl_s)
        outcome = await self._local.run(method, request)
        if isinstance(outcome, Error):
            return outcome
        return _result(await self._members.call_all(method, body))

    async def _survey(self, method: str, request: api.Request, result_type: type[_R]) -> list[_R]:
        """What every node knows."""
        own = await self._local.run(method, request)
        others = await self._members.survey(method, msgspec.json.encode(request))
        known = [own]
        for result in others:
            try:
                known.append(msgspec.json.decode(result, type=result_type))
            except msgspec.MsgspecError as error:
                _log.warning("message.ignored", reason=f"an answer to {method}: {error}", suppressed=0)
        return known


def _result(done: Confirmation) -> api.ConfirmedResult:
    nodes = api.ConfirmedNodes(confirmed=done.confirmed, total=done.total)
    return api.ConfirmedResult(confirmed=done.is_complete, nodes=nodes)
