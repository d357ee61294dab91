"""An app with a hub, and what the tests of `hub.testing` share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from hub import (
    Hub,
    Settings,
)
from hub.settings import ChannelOptions, ClientSettings, RedisSettings, TokenSettings
from hub.testing import (
    TestHub,
)

SECRET = "s" * 32
KEYS = TokenSettings(hmac_secret=SecretStr(SECRET))

OPEN: dict[str, Any] = {"allow_subscribe_for_client": True, "allow_publish_for_subscriber": True}
ORDERS = ChannelOptions(history_size=10, history_ttl_s=60, allow_history_for_subscriber=True, **OPEN)
ROOM = ChannelOptions(presence=True, join_leave=True, allow_presence_for_subscriber=True, **OPEN)
NEWS = ChannelOptions(**OPEN)
LOCAL = ChannelOptions(when_degraded="local", **OPEN)
FILTERED = ChannelOptions(allow_tags_filter=True, **OPEN)

CHANNELS = {"orders": ORDERS, "room": ROOM, "news": NEWS, "local": LOCAL, "filtered": FILTERED}
NO_REDIS = RedisSettings(url="redis://127.0.0.1:1")
"""A Redis that nobody runs: an app's settings name one, and its tests need none."""


def shop(*, client: ClientSettings | None = None, redis: RedisSettings = NO_REDIS) -> tuple[Starlette, Hub]:
    """An app with a hub at `/live`, and an endpoint that publishes."""
    hub = Hub(Settings(client=client or ClientSettings(), channels=CHANNELS, redis=redis))

    async def paid(request: Request) -> JSONResponse:
        position = await hub.publish(f"orders:{request.path_params['order']}", {"status": "paid"})
        return JSONResponse({"offset": position.offset})

    def shipped(request: Request) -> JSONResponse:
        hub.publish_from_thread(f"orders:{request.path_params['order']}", {"status": "shipped"})
        return JSONResponse({})

    routes = [
        Route("/orders/{order}/paid", paid, methods=["POST"]),
        Route("/orders/{order}/shipped", shipped, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    hub.install(app, "/live")
    return app, hub


@asynccontextmanager
async def running_shop(**options: Any) -> AsyncIterator[tuple[TestHub, Hub]]:
    app, inner = shop(**options)
    async with TestHub(app) as hub:
        yield hub, inner


def web(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
