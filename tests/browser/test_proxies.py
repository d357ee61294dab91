"""`hub.js` behind each proxy of docs/proxies, over TLS and the HTTP version that the browser chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser
from support import sdk
from support.certificate import Certificate
from support.proxied import served
from support.reverse_proxy import APPS, HUBS

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONNECT = """
async ([url, token]) => {
    const { Hub } = await import(url + "/static/hub.js");
    const hub = new Hub(url, { token, minReconnectDelay: 10, maxReconnectDelay: 100 });
    const published = new Promise((resolve) => hub.on("publication", ({ data }) => resolve(data)));
    const connected = new Promise((resolve) => hub.on("connected", resolve));
    hub.connect();
    await connected;
    window.published = published;
}
"""


@pytest.mark.parametrize("name", [*HUBS, *APPS])
async def test_a_page_is_connected(name: str, browser: Browser, tmp_path: Path) -> None:
    async with served(name, Certificate(tmp_path)) as behind:
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"{behind.url}/readyz")
        token = sdk.token("ann", channels=["own:news"])
        await page.evaluate(CONNECT, [behind.url, token])
        await behind.hub.publish("own:news", {"number": 1})
        assert await page.evaluate("window.published") == {"number": 1}
        await context.close()
