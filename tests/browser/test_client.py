"""`hub.js` in a page of an app, without the chat page around it."""

from __future__ import annotations

from typing import Any

import pytest
from browser.conftest import OpenWindow
from browser.proxy import Proxy
from support.server import running

from hub import ConnectEvent, ConnectReply
from hub.app import create_app
from hub.config import load

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONNECT = """
async ([url, options]) => {
  const { Hub } = await import(`${url}/static/hub.js`);
  const hub = new Hub(url, { minReconnectDelay: 50, maxReconnectDelay: 100, ...options });
  return new Promise((resolve) => hub.on("connected", ({ data }) => resolve(data)).connect());
}
"""
PUBLISH = """
async ([url, size]) => {
  const { Hub, MessageTooLargeError } = await import(`${url}/static/hub.js`);
  const hub = new Hub(url);
  const ended = new Promise((resolve) => hub.on("disconnected", ({ code }) => resolve({ code })));
  hub.connect();
  await hub.publish("chat:a", "first");
  try {
    await Promise.race([hub.publish("chat:a", "x".repeat(size)), ended]);
  } catch (error) {
    await hub.publish("chat:a", "last");
    return { is: error instanceof MessageTooLargeError, message: error.message, state: hub.state };
  }
  return { state: hub.state };
}
"""


def cookie(event: ConnectEvent) -> ConnectReply:
    return ConnectReply(user="ann", data={"cookie": event.headers.get("cookie", "")})


@pytest.mark.parametrize(
    ("is_same_origin", "options", "sent"),
    [
        (True, {}, "user=ann"),
        (True, {"credentials": "omit"}, ""),
        (False, {}, ""),
        (False, {"credentials": "include"}, "user=ann"),
        (False, {"credentials": "omit"}, ""),
    ],
)
async def test_cookies_go_with_a_stream_where_the_page_wants_it(
    open_window: OpenWindow, is_same_origin: bool, options: dict[str, Any], sent: str
) -> None:
    app = create_app(load(overrides={"dev": True, "server": {"lag_max_s": 0}}, env={}))
    app.state.hub.on_connect(cookie)
    async with running(app) as server, Proxy(server.port) as proxy:
        proxy.refuses_websockets = True
        page = (await open_window(f"{(proxy if is_same_origin else server).url}/livez")).page
        await page.evaluate("document.cookie = 'user=ann'")
        data = await page.evaluate(CONNECT, [proxy.url, options])
        assert data["cookie"] == sent
        assert proxy.refused == 2


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_a_publish_over_the_hubs_limit_is_refused_and_the_connection_stays(
    open_window: OpenWindow, is_streaming: bool
) -> None:
    settings = load(overrides={"dev": True, "server": {"lag_max_s": 0}}, env={})
    async with running(settings) as server, Proxy(server.port) as proxy:
        proxy.refuses_websockets = is_streaming
        page = (await open_window(f"{server.url}/livez")).page
        outcome = await page.evaluate(PUBLISH, [proxy.url, 70_000])
        assert outcome["state"] == "connected"
        assert outcome["is"]
        assert "65536 (client.message_bytes_max)" in outcome["message"]
