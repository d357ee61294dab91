"""`/connection/http_stream` and `/connection/sse`: the hub writes to a client in a response that goes on.

`/connection/uni_http_stream` and `/connection/uni_sse` are the same for clients that send nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from hub.endpoints.asgi import ASGIStream
from hub.endpoints.body import BodyError, read_body
from hub.endpoints.handshake import (
    RequestChecks,
    address_of,
    busy,
    forget_query,
    is_binary,
    preflight,
)
from hub.node.node import Node
from hub.node.transport import EXTENSION
from hub.protocol.streaming import (
    JSON_EVENTS,
    JSON_LINES,
    PROTOBUF_MESSAGES,
    PUSH_EVENTS,
    PUSH_LINES,
    Streaming,
)

CONNECT_PARAMETER: Final = "cf_connect"
"""The query parameter that holds the connect command of an EventSource, which sends no body."""

_HEADERS: Final = {
    # Each of these keeps a proxy from holding the stream back until there is more of it.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class StreamKind:
    """One of the endpoints.

    Args:
        name: of the transport, and the last part of its path.
        method: GET with the connect command in the query, or POST with it in the body.
        text: the format of the stream.
        binary: the format for clients that connect in Protobuf; None where Protobuf is not taken.
        one_way: whether clients send nothing after the connect command.
    """

    name: str
    method: str
    text: Streaming
    binary: Streaming | None = None
    one_way: bool = False


KINDS: Final = (
    StreamKind("http_stream", "POST", JSON_LINES, PROTOBUF_MESSAGES),
    StreamKind("sse", "GET", JSON_EVENTS),
    StreamKind("uni_http_stream", "POST", PUSH_LINES, one_way=True),
    StreamKind("uni_sse", "GET", PUSH_EVENTS, one_way=True),
)


def routes(node: Node, checks: RequestChecks) -> list[BaseRoute]:
    """The endpoints, on a node."""
    return [Route(f"/connection/{kind.name}", StreamEndpoint(node, checks, kind)) for kind in KINDS]


class StreamEndpoint:
    """The ASGI app of one of them.

    Args:
        node: that holds the connections.
        checks: of requests.
        kind: which endpoint.
    """

    def __init__(self, node: Node, checks: RequestChecks, kind: StreamKind) -> None:
        self._node = node
        self._checks = checks
        self._kind = kind

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        claim = scope.get("extensions", {}).get(EXTENSION)
        direct = claim() if claim is not None else None
        answer = self._refusal(request)
        if answer is None and direct is not None and not await direct.admit():
            answer = busy(self._node.state)
        command = b""
        if answer is None:
            try:
                command = await self._command(request)
            except BodyError as exc:
                answer = PlainTextResponse(f"{exc.reason}\n", exc.status)
            else:
                answer = self._checks.refuse_excess(request)  # others may have come while the body did
        forget_query(scope)
        headers = self._checks.cors(request)
        if answer is not None:
            answer.headers.update(headers)
            await answer(scope, receive, send)
            return
        await self._stream(request, command, {**_HEADERS, **headers}, direct, send)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that gets no stream; None to all others."""
        kind, checks = self._kind, self._checks
        refusal = checks.refuse_token(request, besides=CONNECT_PARAMETER if kind.method == "GET" else "")
        refusal = refusal or checks.refuse_page(request)
        if refusal is not None:
            return refusal
        if request.method != kind.method:
            return preflight(request, kind.method)
        return checks.refuse_excess(request)

    async def _command(self, request: Request) -> bytes:
        if self._kind.method == "GET":
            return request.query_params.get(CONNECT_PARAMETER, "").encode()
        client = self._node.settings.client
        return await read_body(request, client.message_bytes_max, client.connect_timeout_s)

    async def _stream(
        self, request: Request, command: bytes, headers: Mapping[str, str], direct: Any, send: Any
    ) -> None:
        node, kind = self._node, self._kind
        way = kind.binary if kind.binary is not None and is_binary(request) else kind.text
        head = {"Content-Type": way.media_type, **headers}
        if direct is not None:
            head["Connection"] = "close"  # the socket goes with the stream
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in head.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        handshake, address = Headers(raw=list(request.headers.raw)), address_of(request)
        ways = {"one_way": kind.one_way, "emulated": not kind.one_way}
        if direct is not None and direct.is_ready:
            direct.name, direct.encoding = kind.name, way.chunks
            connection = node.connections.accept(direct, handshake, address, **ways)
            direct.attach(connection)
            connection.on_messages((command,))
            return
        transport = ASGIStream(
            request.receive, send, kind.name, way.body, node.settings.client, node.boundary.failed
        )
        await transport.run(node.connections.accept(transport, handshake, address, **ways), command)
