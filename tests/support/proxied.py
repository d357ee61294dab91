"""A hub behind a proxy of docs/proxies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support import sdk
from support.certificate import Certificate
from support.limits import WAIT_S
from support.reverse_proxy import APPS, ReverseProxy
from support.server import running

from hub import Hub, RPCEvent

PAGE: Final = "a page of the app"
"""What the app answers at `/page`."""


class Served:
    """A hub behind a proxy, which has it as both of its nodes.

    Args:
        hub: that serves, in this event loop.
        proxy: in front of it.
    """

    def __init__(self, hub: Hub, proxy: ReverseProxy) -> None:
        self.hub = hub
        self.proxy = proxy
        self.url = proxy.url + proxy.prefix
        self.trust = proxy.certificate.trust

    def http(self) -> httpx.AsyncClient:
        """A client of the proxy."""
        return httpx.AsyncClient(base_url=self.url, verify=self.trust, timeout=WAIT_S)

    async def websocket(self, source: str = "127.0.0.1", **headers: str) -> websockets.ClientConnection:
        """Open a WebSocket from an address of this machine."""
        url = f"wss{self.url.removeprefix('https')}/connection/websocket"
        return await websockets.connect(
            url, ssl=self.trust, additional_headers=headers, local_addr=(source, 0), proxy=None
        )

    async def noticed(self) -> None:
        """Wait until a proxy that checks its nodes has noticed that no node takes clients."""
        async with self.http() as http, asyncio.timeout(WAIT_S):
            while "nginx" not in self.proxy.name:
                # HAProxy closes a request that it is about to repeat when it has no node left.
                with contextlib.suppress(httpx.RemoteProtocolError):
                    if not (await http.get("/readyz")).content:
                        return  # the answer is the proxy's own


@contextlib.asynccontextmanager
async def served(
    name: str, certificate: Certificate, *, rpc: Callable[[RPCEvent], None] | None = None, **server: Any
) -> AsyncIterator[Served]:
    """A hub, in an app where the configuration is for an app, and the proxy in front of it.

    Args:
        rpc: handles the calls of clients.
        server: more of the `server` section of the hub's settings.
    """

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(PAGE)

    settings = sdk.settings(
        # No ping tells a proxy that a client has left.
        {"anonymous": True, "ping_interval_s": 600.0},
        server={"lag_max_s": 0, "drain_window_s": 0, **server},
    )
    hub = Hub(settings)
    if rpc is not None:
        hub.on_rpc(rpc)
    app = Starlette(routes=[Route("/page", page)])
    hub.install(app, "/live" if name in APPS else "")
    async with (
        running(app, settings, drain=hub.drain) as node,
        ReverseProxy(name, certificate, [node.port, node.port]) as proxy,
    ):
        yield Served(hub, proxy)
