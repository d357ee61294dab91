"""WebSockets: `/connection/websocket`, and `/connection/uni_websocket` for clients that only listen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from hub.endpoints.asgi import ASGIWebSocket
from hub.endpoints.handshake import address_of, refuse_crowd, refuse_page, refuse_token
from hub.node.node import Node
from hub.node.transport import EXTENSION
from hub.protocol.encoding import JSON, PUSHES, SUBPROTOCOLS, WebSocketEncodings


def routes(node: Node) -> list[BaseRoute]:
    """The endpoints, on a node; each answers plain HTTP too, to say what it is."""
    endpoints = {
        "/connection/websocket": WebSocketEndpoint(node),
        "/connection/uni_websocket": WebSocketEndpoint(node, one_way=True),
    }
    return [kind(path, endpoint) for path, endpoint in endpoints.items() for kind in (WebSocketRoute, Route)]


class WebSocketEndpoint:
    """The ASGI app of the endpoint.

    Args:
        node: that holds the connections.
        one_way: whether clients send a connect request, and nothing after it.
    """

    def __init__(self, node: Node, *, one_way: bool = False) -> None:
        self._node = node
        self._one_way = one_way

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            response = PlainTextResponse("this is a WebSocket endpoint: connect with ws:// or wss://\n", 426)
            await response(scope, receive, send)
            return
        node = self._node
        websocket = WebSocket(scope, receive, send)
        refusal = refuse_token(websocket) or refuse_page(node, websocket) or refuse_crowd(node, websocket)
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
        transport = ASGIWebSocket(websocket, encodings.messages, node.settings.client)
        await transport.run(node.connections.accept(transport, headers, address, one_way=self._one_way))

    def _choose(self, offered: Sequence[str]) -> tuple[str | None, WebSocketEncodings]:
        """The subprotocol to accept with, and what it is encoded in."""
        if self._one_way:
            return None, PUSHES
        subprotocol = next((name for name in offered if name in SUBPROTOCOLS), None)
        return subprotocol, SUBPROTOCOLS[subprotocol] if subprotocol else JSON


async def _deny(websocket: WebSocket, response: Response) -> None:
    """Refuse a handshake; a server that cannot send the response answers 403 by itself."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
    else:
        await websocket.close()
