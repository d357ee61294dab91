"""`/emulation`: commands of clients whose connection is a stream. Any node takes them, and passes them on."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from hub.endpoints.body import BodyError, read_body
from hub.endpoints.handshake import RequestChecks, forget_query, is_binary, preflight
from hub.errors import BrokerError
from hub.node.admission import retry_after
from hub.node.bus_messages import Relay
from hub.node.node import Node
from hub.protocol.emulation import from_json, from_protobuf
from hub.protocol.json import MalformedError

_ROOM_BYTES = 1024
"""What a body may hold beside its commands."""


class EmulationEndpoint:
    """The ASGI app of the endpoint.

    Args:
        node: that got the request.
        checks: of requests.
    """

    def __init__(self, node: Node, checks: RequestChecks) -> None:
        self._checks = checks
        self._node = node

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        forget_query(scope)
        request = Request(scope, receive, send)
        response = await self._respond(request)
        response.headers.update(self._checks.cors(request))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if refusal := self._checks.refuse_page(request):
            return refusal
        if request.method != "POST":
            return preflight(request, "POST")
        client = self._node.settings.client
        try:
            # As text in JSON, the quotes of JSON commands take two bytes each.
            body = await read_body(
                request, 2 * client.message_bytes_max + _ROOM_BYTES, client.connect_timeout_s
            )
            emulated = from_protobuf(body) if is_binary(request) else from_json(body)
        except BodyError as exc:
            return PlainTextResponse(f"{exc.reason}\n", exc.status)
        except MalformedError as exc:
            return PlainTextResponse(f"not an emulation request: {exc}\n", 400)
        if len(emulated.data) > client.message_bytes_max:
            return PlainTextResponse(f"commands are at most {client.message_bytes_max} bytes\n", 413)
        return await self._pass_on(emulated.node, emulated.session, emulated.data)

    async def _pass_on(self, node: str, session: str, data: bytes) -> Response:
        if node == self._node.id:
            known = self._node.connections.take(session, data)
        elif known := node in self._node.members.others:
            try:
                reached = await self._node.bus.send(Relay(session=session, data=data), node)
            except BrokerError:
                self._node.metrics.broker_errors.inc()
                reached = 0
            if not reached:
                text = "the other nodes cannot be reached: retry later\n"
                return PlainTextResponse(text, 503, {"Retry-After": retry_after()})
        if not known:
            # An SDK takes this for the end of its connection, and connects again.
            return PlainTextResponse("no such session, or its node is gone\n", 404)
        return Response(status_code=204)
