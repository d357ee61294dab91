"""WebSockets: `/connection/websocket`, and `/connection/uni_websocket` for clients that only listen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from hub.endpoints.asgi import ASGIWebSocket
from hub.endpoints.handshake import RequestChecks, address_of, forget_query
from hub.node.admission import READABLE
from hub.node.node import Node
from hub.node.transport import EXTENSION
from hub.protocol.encoding import JSON, PUSHES, SUBPROTOCOLS, WebSocketEncodings

_NO_WEBSOCKETS: Final = (
    "the server under the app does not speak WebSocket: for uvicorn, install the package websockets, and do"
    " not set --ws none\n"
)
_NO_UPGRADE: Final = (
    "this WebSocket handshake lost its headers on the way: have the proxy pass Upgrade and Connection on,"
    " over HTTP/1.1\n"
)


def routes(node: Node, checks: RequestChecks) -> list[BaseRoute]:
    """The endpoints, on a node. Each answers plain HTTP too, to say what it is."""
    endpoints = {
        "/connection/websocket": WebSocketEndpoint(node, checks),
        "/connection/uni_websocket": WebSocketEndpoint(node, checks, one_way=True),
    }
    return [kind(path, endpoint) for path, endpoint in endpoints.items() for kind in (WebSocketRoute, Route)]


def unknown() -> BaseRoute:
    """The answer to a WebSocket at a path where none is: 404. It goes behind every other route."""

    return WebSocketRoute("/{path:path}", partial(_refuse_path, ""))


def elsewhere(path: str, default: ASGIApp) -> ASGIApp:
    """The answer of an app with a hub to requests that none of its routes takes: 404.

    Args:
        path: where the hub is in the app.
        default: answers all but WebSockets.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse_path(path, WebSocket(scope, receive, send))
        else:
            await default(scope, receive, send)

    return answer


class WebSocketEndpoint:
    """The ASGI app of the endpoint.

    Args:
        node: that holds the connections.
        checks: of handshakes.
        one_way: whether clients send a connect request, and nothing after it.
    """

    def __init__(self, node: Node, checks: RequestChecks, *, one_way: bool = False) -> None:
        self._node = node
        self._checks = checks
        self._one_way = one_way

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        node, checks = self._node, self._checks
        if scope["type"] != "websocket":
            # A page is shown nothing of a handshake that failed, but it may ask here what is wrong.
            request = HTTPConnection(scope)
            answer = checks.refuse_page(request) or _explain(scope, request.headers)
            forget_query(scope)
            answer.headers.update(READABLE)
            await answer(scope, receive, send)
            return
        websocket = WebSocket(scope, receive, send)
        refusal = (
            checks.refuse_token(websocket) or checks.refuse_page(websocket) or checks.refuse_excess(websocket)
        )
        forget_query(scope)
        if refusal:
            await _deny(websocket, refusal)
            return
        subprotocol, encodings = self._choose(websocket.scope["subprotocols"])
        claim = scope.get("extensions", {}).get(EXTENSION)
        direct = claim(encodings) if claim is not None else None
        await websocket.accept(subprotocol)
        headers, address = Headers(raw=list(websocket.headers.raw)), address_of(websocket)
        if direct is not None:
            direct.attach(node.connections.accept(direct, headers, address, one_way=self._one_way))
            return
        transport = ASGIWebSocket(websocket, encodings.messages, node.settings.client, node.boundary.failed)
        await transport.run(node.connections.accept(transport, headers, address, one_way=self._one_way))

    def _choose(self, offered: Sequence[str]) -> tuple[str | None, WebSocketEncodings]:
        """The subprotocol to accept with, and what it is encoded in."""
        if self._one_way:
            return None, PUSHES
        subprotocol = next((name for name in offered if name in SUBPROTOCOLS), None)
        return subprotocol, SUBPROTOCOLS[subprotocol] if subprotocol else JSON


def _explain(scope: Scope, headers: Headers) -> Response:
    """Answer a request without an upgrade, or one whose upgrade was lost on its way to here."""
    text = "this is a WebSocket endpoint: connect with ws:// or wss://\n"
    if "sec-websocket-key" in headers:
        upgrades = scope["http_version"] == "1.1" and "upgrade" in headers.get("connection", "").lower()
        is_whole = upgrades and headers.get("upgrade", "").lower() == "websocket"
        text = _NO_WEBSOCKETS if is_whole else _NO_UPGRADE
    if scope["method"] in ("GET", "HEAD"):
        return PlainTextResponse(text, 426, {"Upgrade": "websocket", "Connection": "Upgrade"})
    return PlainTextResponse(text, 405, {"Allow": "GET, HEAD"})


async def _refuse_path(path: str, websocket: WebSocket) -> None:
    """Refuse a handshake at a path where no WebSocket is, and say where the hub's is.

    Args:
        path: of the hub, in the app that refuses.
        websocket: of the handshake.
    """
    address = f"{websocket.scope.get('root_path', '')}{path}/connection/websocket"
    text = f"no WebSocket is at this path: clients of the hub connect to {address}\n"
    await _deny(websocket, PlainTextResponse(text, 404))


async def _deny(websocket: WebSocket, response: Response) -> None:
    """Refuse a handshake; a server that cannot send the response answers 403 by itself."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
    else:
        await websocket.close()
