"""The code blocks of docs/browser.md that need no build step."""

from __future__ import annotations

import jwt
import pytest
from browser.conftest import OpenWindow
from playwright.async_api import Route, expect
from support.limits import WAIT_S
from support.server import Running
from support.snippets import blocks

from hub.settings import DEVELOPMENT_SECRET

pytestmark = pytest.mark.asyncio(loop_scope="session")

BLOCKS = blocks("browser.md")
PRELUDE = 'import { Hub, MessageExpiredError, QueueFullError } from "https://hub.example/static/hub.js";'
CONNECTED = 'const hub = new Hub("https://hub.example"); hub.connect();'


async def test_the_page(hub: Running, open_window: OpenWindow) -> None:
    [html] = [text for language, text in BLOCKS if language == "html"]
    token = jwt.encode({"sub": "ann"}, DEVELOPMENT_SECRET)

    async def serve(route: Route) -> None:
        is_token = route.request.url.endswith("/token")
        body = token if is_token else html.replace("https://hub.example", hub.url)
        await route.fulfill(body=body, content_type="text/plain" if is_token else "text/html")

    page = (await open_window("about:blank")).page
    for path in ("page", "token"):
        await page.route(f"{hub.url}/{path}", serve)
    await hub.app.state.hub.publish("news", "of yesterday")
    async with page.expect_console_message(lambda message: message.text == "of yesterday"):
        await page.goto(f"{hub.url}/page")
    async with page.expect_console_message(lambda message: message.text == "of today"):
        await hub.app.state.hub.publish("news", "of today")


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "js"])
async def test_each_script(hub: Running, open_window: OpenWindow, text: str) -> None:
    page = (await open_window(f"{hub.url}/livez")).page
    script = "\n".join([PRELUDE, "" if "new Hub(" in text else CONNECTED, text, "document.title = 'done';"])
    await page.add_script_tag(content=script.replace("https://hub.example", hub.url), type="module")
    await expect(page).to_have_title("done", timeout=1000 * WAIT_S)
    reply = await page.request.post(
        f"{hub.url}/api/history",
        headers={"X-API-Key": "dev"},
        data={"channel": "chat:lobby", "limit": 1},
    )
    assert (await reply.json())["result"]["publications"][0]["data"]["text"]


async def test_each_code_block_runs_in_a_test() -> None:
    # Here: html and js. In test_package.py: sh, ts, tsx, vue and svelte, of which there is one each.
    languages = [language for language, _ in BLOCKS]
    assert sorted(languages) == ["html", "js", "js", "sh", "svelte", "ts", "tsx", "vue"]
