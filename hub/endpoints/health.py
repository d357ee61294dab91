"""`/livez`, `/readyz` and `/metrics`: what orchestrators and monitors ask."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hub.node.admission import READABLE, retry_after
from hub.node.node import Node


def routes(node: Node) -> list[Route]:
    """The health endpoints of a node."""

    async def livez(request: Request) -> Response:
        """Alive: the event loop turns. Never depends on anything outside the process."""
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        """Ready: new connections are welcome. The body names the state."""
        if node.is_serving:
            return JSONResponse({"status": node.state}, headers=READABLE)
        return JSONResponse({"status": node.state}, 503, {"Retry-After": retry_after(), **READABLE})

    async def metrics(request: Request) -> Response:
        body, content_type = node.metrics.render()
        return Response(body, media_type=content_type)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
