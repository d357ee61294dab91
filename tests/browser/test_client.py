"""`hub.js` in a page of an app, without the chat page around it."""

from __future__ import annotations

import asyncio
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
PUBLISH_MANY = """
async ([url, count]) => {
  const { Hub } = await import(`${url}/static/hub.js`);
  const hub = new Hub(url, { minReconnectDelay: 20, maxReconnectDelay: 50, timeout: 500 });
  hub.connect();
  const sent = [];
  for (let number = 0; number < count; number++) {
    sent.push(hub.publish("chat:a", number));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const outcomes = await Promise.allSettled(sent);
  return outcomes.filter(({ status }) => status === "rejected").map(({ reason }) => reason.message);
}
"""
COUNT = 90


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


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_publishes_over_a_link_that_breaks_arrive_once_and_in_their_order(
    open_window: OpenWindow, is_streaming: bool
) -> None:
    settings = load(overrides={"dev": True, "server": {"lag_max_s": 0}}, env={})
    async with running(settings) as server, Proxy(server.port) as proxy:
        proxy.refuses_websockets = is_streaming
        page = (await open_window(f"{server.url}/livez")).page
        # The scripts come over the same link, and must be there before it breaks.
        await page.evaluate("(url) => import(url + '/static/hub.js').then(() => null)", proxy.url)
        publishing = asyncio.create_task(page.evaluate(PUBLISH_MANY, [proxy.url, COUNT]))
        for swallow in ("swallow_down", "swallow_up", "swallow_down", "swallow_up"):
            await asyncio.sleep(0.1)  # the link works meanwhile
            setattr(proxy, swallow, True)
            await asyncio.sleep(0.1)
            proxy.cut()
            proxy.heal()
        assert await publishing == []
        reply = await page.request.post(
            f"{server.url}/api/history", headers={"X-API-Key": "dev"}, data={"channel": "chat:a", "limit": -1}
        )
        publications = (await reply.json())["result"]["publications"]
        assert [publication["data"] for publication in publications] == list(range(COUNT))
