"""`/connection/websocket`: a client's connection over a WebSocket."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from hub.endpoints.asgi import ASGIWebSocket
from hub.endpoints.handshake import address_of, refuse_crowd, refuse_page, refuse_token
from hub.node.node import Node
from hub.node.transport import EXTENSION
from hub.protocol.encoding import JSON, SUBPROTOCOLS


class WebSocketEndpoint:
    """The ASGI app of the endpoint.

    Args:
        node: that holds the connections.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

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
        offered = websocket.scope["subprotocols"]
        subprotocol = next((name for name in offered if name in SUBPROTOCOLS), None)
        encodings = SUBPROTOCOLS[subprotocol] if subprotocol else JSON
        claim = scope.get("extensions", {}).get(EXTENSION)
        direct = claim(encodings) if claim is not None else None
        await websocket.accept(subprotocol)
        headers, address = Headers(raw=list(websocket.headers.raw)), address_of(websocket)
        if direct is not None:
            direct.attach(node.accept(direct, headers, address))
            return
        transport = ASGIWebSocket(websocket, encodings.messages, node.settings.client)
        await transport.run(node.accept(transport, headers, address))


async def _deny(websocket: WebSocket, response: Response) -> None:
    """Refuse a handshake; a server that cannot send the response answers 403 by itself."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
    else:
        await websocket.close()
