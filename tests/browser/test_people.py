"""Who is typing, joins and leaves in a room of the chat page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from browser.conftest import OpenWindow
from browser.window import Window
from playwright.async_api import expect
from support.server import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _stop_clock(window: Window) -> None:
    """Stop the page's clock, so that what it shows for a while stays until the test moves the clock."""
    now = datetime.now(UTC)
    await window.page.clock.install(time=now)
    await window.page.clock.pause_at(now + timedelta(seconds=30))


async def test_the_others_see_who_is_typing(two: tuple[Window, Window]) -> None:
    ada, zoe = two
    await _stop_clock(zoe)
    typing = zoe.page.locator("#typing")
    await expect(typing).to_be_hidden()
    await ada.page.get_by_label("Message", exact=True).fill("I wonder")
    await expect(typing).to_have_text("Ada is typing")
    await expect(ada.page.locator("#typing")).to_be_hidden()
    await ada.page.keyboard.press("Enter")
    await zoe.shows("I wonder")
    await expect(typing).to_be_hidden()
    await ada.page.get_by_label("Message", exact=True).fill("no")
    await expect(typing).to_be_visible()
    await ada.page.get_by_label("Message", exact=True).fill("")
    await expect(typing).to_be_hidden()


async def test_typing_ends_by_itself(two: tuple[Window, Window]) -> None:
    ada, zoe = two
    await _stop_clock(zoe)
    typing = zoe.page.locator("#typing")
    await ada.page.get_by_label("Message", exact=True).fill("I wonder")
    await expect(typing).to_be_visible()
    await zoe.page.clock.run_for(4900)
    assert await typing.is_visible()
    await zoe.page.clock.run_for(200)
    await expect(typing).to_be_hidden()


async def test_typing_names_two_people_and_counts_more(
    hub: Running, open_window: OpenWindow, two: tuple[Window, Window]
) -> None:
    ada, zoe = two
    await _stop_clock(ada)
    typing = ada.page.locator("#typing-text")
    await zoe.page.get_by_label("Message", exact=True).fill("I")
    await expect(typing).to_have_text("Zoe is typing")
    for name, text in (("Ben", "Zoe and Ben are typing"), ("Eve", "3 people are typing")):
        other = await open_window(hub.url)
        await other.enter(name)
        await other.page.get_by_label("Message", exact=True).fill("I too")
        await expect(typing).to_have_text(text)
    await zoe.page.get_by_label("Message", exact=True).press("Enter")
    await expect(typing).to_have_text("Ben and Eve are typing")


async def test_typing_is_not_kept(hub: Running, two: tuple[Window, Window]) -> None:
    ada, zoe = two
    await _stop_clock(zoe)
    await ada.page.get_by_label("Message", exact=True).fill("I wonder")
    await expect(zoe.page.locator("#typing")).to_be_visible()
    reply = await zoe.page.request.post(
        f"{hub.url}/api/history", headers={"X-API-Key": "dev"}, data={"channel": "typing:lobby", "limit": 10}
    )
    assert (await reply.json())["error"]["code"] == 108


async def test_joins_and_leaves_are_told_in_one_line(
    hub: Running, open_window: OpenWindow, two: tuple[Window, Window]
) -> None:
    ada, zoe = two
    changes = ada.page.locator(".change")
    await expect(changes).to_have_text(["Zoe joined"])
    await expect(zoe.page.locator(".change")).to_have_count(0)
    again = await open_window(hub.url, zoe.page.context)
    await again.is_in()
    await expect(ada.page.locator("#people")).to_contain_text("2 windows")
    await expect(changes).to_have_text(["Zoe joined"])
    await again.page.close()
    await zoe.page.goto("about:blank")
    await expect(changes).to_have_text(["Zoe left"])
    await zoe.page.goto(hub.url)
    await expect(changes).to_have_text(["Zoe is back"])
    await ada.say("welcome")
    await ada.shows_status("welcome", "Delivered")
    await zoe.page.goto("about:blank")
    await expect(changes).to_have_text(["Zoe is back", "Zoe left"])


async def test_a_change_of_name_is_no_markup(hub: Running, open_window: OpenWindow) -> None:
    ada, eve = await open_window(hub.url), await open_window(hub.url)
    await ada.enter("Ada")
    await eve.enter("<b>Eve</b>")
    await expect(ada.page.locator(".change")).to_have_text(["<b>Eve</b> joined"])
    await eve.page.get_by_label("Message", exact=True).fill("x")
    await expect(ada.page.locator("#typing-text")).to_have_text("<b>Eve</b> is typing")
    assert await ada.page.locator("#chat b").count() == 0
