"""What the chat page demonstrates: a second person, a cut network, and the code of each part."""

from __future__ import annotations

import re

import pytest
from browser.conftest import OpenWindow
from browser.proxy import Proxy
from browser.window import Window
from playwright.async_api import FrameLocator, expect
from support.server import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

DESKTOP = {"width": 1280, "height": 800}

LINES_NOT_IN_SOURCE = """
async () => {
  const { fetchUncut } = await import(new URL("static/network.js", location));
  const strange = [];
  for (const figure of document.querySelectorAll("#code figure")) {
    const linesOf = (text) => text.split("\\n").map((line) => line.trim());
    const reply = await fetchUncut(figure.querySelector("a").href);
    const [source, lines] = [linesOf(await reply.text()), linesOf(figure.querySelector("pre").textContent)];
    if (!lines[0]) strange.push(`${figure.textContent} is empty`);
    strange.push(...lines.filter((line) => !source.includes(line)));
  }
  return strange;
}
"""


async def _second_person(ada: Window) -> FrameLocator:
    """Add the second person, and wait until this person is in the room."""
    await ada.page.get_by_role("button", name="Add a second person").click()
    guest = ada.page.frame_locator("#guest")
    await expect(guest.locator("#state-spoken")).to_have_text("Connected")
    await ada.shows_people("Ada", "Zoe")
    return guest


async def _write(person: FrameLocator, text: str) -> None:
    await person.get_by_label("Message", exact=True).fill(text)
    await person.get_by_label("Message", exact=True).press("Enter")


async def _counts(ada: Window, before: str, missed: str, recovered: str, lost: str) -> None:
    """Wait until the counts of the card are these."""
    await expect(ada.page.locator(".counts dd")).to_have_text([before, missed, recovered, lost])


# A second person


async def test_a_second_person_is_one_click_away(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada", "hall")
    guest = await _second_person(ada)
    await expect(guest.get_by_label("Message", exact=True)).to_be_focused()
    await ada.page.keyboard.type("good day")
    await ada.page.keyboard.press("Enter")
    await ada.shows("good day")
    await expect(ada.page.locator(".message .who")).to_have_text(["Zoe"])
    await ada.say("hello")
    await expect(guest.locator(".message .text")).to_have_text(["good day", "hello"])
    await expect(guest.locator(".message .who")).to_have_text(["You", "Ada"])
    await ada.page.get_by_role("button", name="Close Zoe").click()
    await expect(ada.page.locator("#guest")).to_be_hidden()
    await ada.shows_people("Ada")
    await ada.page.reload()
    await ada.is_in()
    await expect(ada.page.locator("#you")).to_have_text("Ada")


async def test_the_second_person_moves_to_a_window(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    guest = await _second_person(ada)
    async with ada.page.expect_popup() as popup:
        await guest.get_by_role("link", name="Open in a window").click()
    zoe = Window(await popup.value)
    await zoe.is_in()
    await expect(ada.page.locator("#guest")).to_be_hidden()
    await zoe.say("on my own")
    await ada.shows("on my own")
    await zoe.shows_people("Zoe", "Ada")
    await zoe.page.close()
    guest = await _second_person(ada)
    await guest.get_by_role("button", name="Close the second person").click()
    await expect(ada.page.locator("#guest")).to_be_hidden()
    await expect(ada.page.get_by_role("button", name="Add a second person")).to_be_focused()


async def test_the_second_person_has_another_name(hub: Running, open_window: OpenWindow) -> None:
    zoe = await open_window(hub.url, viewport=DESKTOP)
    await zoe.enter("Zoe")
    await zoe.page.get_by_role("button", name="Add a second person").click()
    await zoe.shows_people("Zoe", "Ben")


async def test_other_pages_cannot_frame_the_page_or_speak_for_the_second_person(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(f"{hub.url}/?as=Zoe")
    await ada.is_in()
    await ada.page.evaluate("postMessage({ say: ['not me'] }, '*')")
    await ada.say("me")
    await ada.shows_status("me", "Delivered")
    await ada.shows("me")
    reply = await ada.page.request.get(f"{hub.url}/")
    assert "frame-ancestors 'self'" in reply.headers["content-security-policy"]


async def test_the_second_person_goes_along_to_another_room(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    guest = await _second_person(ada)
    await ada.page.get_by_label("Name of a room").fill("hall")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.locator("#room")).to_have_text("hall")
    await ada.shows_people("Ada", "Zoe")
    await _write(guest, "here too")
    await ada.shows("here too")


# A cut network


async def test_a_cut_network_loses_nothing(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    guest = await _second_person(ada)
    await _write(guest, "before 1")
    await _write(guest, "before 2")
    await ada.shows("before 1", "before 2")
    card = ada.page.get_by_role("region", name="Your network is cut")
    await expect(card).to_have_count(0)
    await ada.page.get_by_role("button", name="Cut my network").click()
    await ada.shows_state("Network cut")
    await expect(card).to_contain_text("offset 2")
    await expect(card).to_contain_text("reconnect token")
    await _counts(ada, "2", "?", "?", "?")
    await ada.page.get_by_role("button", name="Let Zoe send 3 messages").click()
    await expect(guest.locator(".message.delivered")).to_have_count(5)
    await ada.shows("before 1", "before 2")
    await ada.page.get_by_role("button", name="Restore my network").click()
    await expect(ada.page.locator("#recovery-title")).to_have_text("Back, and nothing is lost")
    await _counts(ada, "2", "3", "3", "0")
    steps = ada.page.locator("#recovery-steps")
    await expect(steps).to_contain_text("with no login, as the same client")
    await expect(steps).to_contain_text("offsets 3 to 5 from history, in order, each once")
    tokens = [re.sub(r"\s", "", token) for token in await steps.locator("s, s ~ code").all_inner_texts()]
    assert len(set(tokens)) == 2
    assert await ada.page.locator(".message").count() == 5
    await _write(guest, "after")
    await expect(ada.page.locator(".message .text").last).to_have_text("after")
    await ada.page.get_by_role("button", name="Close", exact=True).click()
    await expect(ada.page.locator("#recovery")).to_be_hidden()
    await expect(ada.page.get_by_role("button", name="Cut my network")).to_be_focused()


async def test_the_second_person_comes_for_the_messages_while_the_network_is_cut(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    await ada.page.get_by_role("button", name="Cut my network").click()
    await ada.page.get_by_role("button", name="Let Zoe send 3 messages").click()
    await expect(ada.page.frame_locator("#guest").locator(".message.delivered")).to_have_count(3)
    await ada.page.get_by_role("button", name="Restore my network").click()
    await _counts(ada, "0", "3", "3", "0")
    await expect(ada.page.locator(".message")).to_have_count(3)
    await ada.page.get_by_role("button", name="Cut my network").click()
    await _counts(ada, "3", "?", "?", "?")
    await ada.page.get_by_role("button", name="Restore my network").click()
    await _counts(ada, "3", "0", "0", "0")
    await expect(ada.page.locator("#recovery-steps")).to_contain_text("Nobody wrote meanwhile.")


async def test_a_cut_that_outlasts_the_history_says_what_is_lost(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(hub.url)
    await ada.enter("Ada")
    await ada.page.get_by_role("button", name="Cut my network").click()
    commands = [{"publish": {"channel": "chat:lobby", "data": f"missed {n}"}} for n in range(210)]
    await ada.page.request.post(
        f"{hub.url}/api/batch", headers={"X-API-Key": "dev"}, data={"commands": commands}
    )
    await ada.page.get_by_role("button", name="Restore my network").click()
    title = ada.page.locator("#recovery-title")
    await expect(title).to_have_text("Back, but history no longer holds every message")
    await _counts(ada, "0", "210", "0", "≤ 210")


async def test_where_no_websocket_passes_the_network_is_cut_all_the_same(
    hub: Running, open_window: OpenWindow
) -> None:
    async with Proxy(hub.port) as proxy:
        proxy.refuses_websockets = True
        ada, zoe = await open_window(proxy.url), await open_window(hub.url)
        await ada.enter("Ada")
        await zoe.enter("Zoe")
        await zoe.say("before")
        await ada.shows("before")
        await ada.page.get_by_role("button", name="Cut my network").click()
        await ada.shows_state("Network cut")
        await zoe.shows_people("Zoe")
        await zoe.say("missed")
        await zoe.shows_status("missed", "Delivered")
        await ada.page.get_by_role("button", name="Restore my network").click()
        await _counts(ada, "1", "1", "1", "0")
        await ada.shows("before", "missed")


async def test_a_network_that_is_cut_in_one_room_comes_back_in_another(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    await ada.page.get_by_role("button", name="Cut my network").click()
    await ada.page.get_by_label("Name of a room").fill("hall")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.locator("#recovery")).to_be_hidden()
    await ada.page.get_by_role("button", name="Restore my network").click()
    await ada.is_in()
    await ada.say("here")
    await ada.shows_status("here", "Delivered")


# The code of each part


async def test_each_part_shows_the_lines_of_its_source(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    await ada.page.get_by_role("button", name="Cut my network").click()
    openers = ada.page.get_by_role("button", name=re.compile("^How this is done"))
    titles = [title.removeprefix("How this is done: ") for title in await _labels(ada)]
    assert titles == ["Connection", "Recovery", "Messages", "Typing", "People", "Rooms", "A second person"]
    for index, title in enumerate(titles):
        await openers.nth(index).click()
        code = ada.page.get_by_role("region", name=title)
        await expect(code.locator("pre").first).to_be_visible()
        assert await ada.page.evaluate(LINES_NOT_IN_SOURCE) == []
        box = await code.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= DESKTOP["width"] - box["width"]
        assert 0 <= box["y"] <= DESKTOP["height"] - box["height"]
        await ada.page.keyboard.press("Escape")
        await expect(code).to_be_hidden()


async def _labels(window: Window) -> list[str]:
    shown: list[str] = await window.page.evaluate(
        """() => [...document.querySelectorAll(".how")].filter((each) => each.checkVisibility())
          .map((each) => each.getAttribute("aria-label"))"""
    )
    return shown


async def test_the_code_is_read_with_a_keyboard(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    opener = ada.page.get_by_role("button", name="How this is done: People")
    await opener.press("Enter")
    code = ada.page.get_by_role("region", name="People")
    await expect(code).to_contain_text("subscription.presence()")
    await ada.page.keyboard.press("Tab")
    await expect(code.get_by_role("button", name="Close the code")).to_be_focused()
    await ada.page.keyboard.press("Enter")
    await expect(code).to_be_hidden()
    await expect(opener).to_be_focused()


async def test_the_code_shows_the_server_too(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await ada.enter("Ada")
    await ada.page.get_by_role("button", name="How this is done: Connection").click()
    code = ada.page.get_by_role("region", name="Connection")
    await expect(code.get_by_label("_demo_user in handlers.py")).to_contain_text(
        "return ConnectReply(user=user[:64]"
    )
