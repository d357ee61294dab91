"""Links in messages of the chat page."""

from __future__ import annotations

import pytest
from browser.conftest import OpenWindow
from browser.window import Window
from playwright.async_api import expect
from support.server import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADDRESSES = [
    ("see https://example.org/a?b=1&c=2#d", ["https://example.org/a?b=1&c=2#d"]),
    ("Is it http://example.org?", ["http://example.org"]),
    ("(at https://example.org/x_(y)), then", ["https://example.org/x_(y)"]),
    ("https://a.example, HTTPS://B.EXAMPLE/Path.", ["https://a.example", "HTTPS://B.EXAMPLE/Path"]),
    ("https://münchen.example/straße", ["https://münchen.example/straße"]),
    ("http://[::1]:8000/ [https://a.example]", ["http://[::1]:8000/", "https://a.example"]),
    ('https://a.example/"onclick="alert(1)', ["https://a.example/"]),
    ("https://a.example/<img/src=x/onerror=alert(1)>", ["https://a.example/"]),
    ("https://bank.example@evil.example/", []),
    ("https://bank.example:443@evil.example/", []),
    ("javascript:alert(1) data:text/html,x file:///etc/passwd", []),
    ("javascript://https://a.example/%0aalert(1)", ["https://a.example/%0aalert(1)"]),
    ("https:// http://: https://[", []),
    ("xhttps://a.example", []),
    ("https://a.example/" + 500 * ")" + 500 * ".", ["https://a.example/"]),
    ("https://a.example/" + 2000 * "a", []),
]
"""A text, and the links in it."""


async def test_web_addresses_are_links_and_the_rest_is_text(two: tuple[Window, Window]) -> None:
    ada, zoe = two
    for text, _ in ADDRESSES:
        await ada.say(text)
    await ada.shows(*(text for text, _ in ADDRESSES))
    await zoe.shows(*(text for text, _ in ADDRESSES))
    for window in (ada, zoe):
        bodies = window.page.locator(".message .text")
        for index, (_, links) in enumerate(ADDRESSES):
            await expect(bodies.nth(index).locator("a")).to_have_text(links)
        for link in await bodies.locator("a").all():
            assert await link.get_attribute("href") == await link.inner_text()
            assert await link.get_attribute("target") == "_blank"
            assert "noopener" in (await link.get_attribute("rel") or "").split()
        assert await bodies.locator(":not(a)").count() == 0


async def test_a_message_of_brackets_does_not_stop_the_page(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url)
    await ada.enter("Ada")
    text = "https://a.example/" + 60_000 * ")"
    await ada.page.request.post(
        f"{hub.url}/api/publish",
        headers={"X-API-Key": "dev"},
        data={"channel": "chat:lobby", "data": {"text": text}},
    )
    await ada.shows(text)
    await expect(ada.page.locator(".message a")).to_have_text("https://a.example/")
    await ada.say("still here")
    await ada.shows_status("still here", "Delivered")


async def test_a_link_opens_a_window_that_cannot_reach_the_page(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(hub.url)
    await ada.enter("Ada")
    await ada.say(f"{hub.url}/livez")
    async with ada.page.expect_popup() as popup:
        await ada.page.locator(".message .text a").click()
    page = await popup.value
    await page.wait_for_url("**/livez")
    assert await page.evaluate("opener") is None
    assert await page.evaluate("document.referrer") == ""
    await ada.is_in()
