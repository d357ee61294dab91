"""The page itself: what it loads, how it looks, and that it serves keyboards and screen readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser.conftest import OpenWindow
from browser.proxy import Proxy
from browser.window import Window
from playwright.async_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount
from support.server import Running, running

from hub.app import create_app
from hub.config import load

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCREENSHOTS = Path(__file__).parent / "screenshots"
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}

FAINT_TEXTS = """
() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = rgb(color).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((rgb(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const ownText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!ownText || !element.checkVisibility() || element.tagName === "NOSCRIPT") continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${element.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return faint;
}
"""

SMALL_TARGETS = """
() => [...document.querySelectorAll("button, input, textarea")].filter((each) => each.checkVisibility())
  .filter((each) => each.getBoundingClientRect().height < 24 || each.getBoundingClientRect().width < 24)
  .map((each) => each.outerHTML)
"""

FOCUSED = """
() => {
  const element = document.activeElement;
  return [element.id || element.textContent.trim(), getComputedStyle(element).outlineStyle];
}
"""


async def _assert_sound(window: Window) -> None:
    for frame in window.page.frames:
        assert await frame.evaluate(FAINT_TEXTS) == []
        assert await frame.evaluate(SMALL_TARGETS) == []
        width = await frame.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, "the page scrolls sideways"


async def _tab_stops(window: Window, count: int) -> list[str]:
    stops = []
    for _ in range(count):
        await window.page.keyboard.press("Tab")
        name, outline = await window.page.evaluate(FOCUSED)
        assert outline == "solid", f"focus does not show on {name}"
        stops.append(name)
    return stops


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_it_looks_right(
    hub: Running, open_window: OpenWindow, size: dict[str, int], scheme: str
) -> None:
    device = "phone" if size is PHONE else "desktop"

    async def shoot(name: str) -> None:
        await _assert_sound(ada)
        await ada.page.screenshot(path=SCREENSHOTS / f"{device}-{scheme}-{name}.png")

    async with Proxy(hub.port) as proxy:
        ada = await open_window(proxy.url, viewport=size, color_scheme=scheme)
        await shoot("1-entry")
        await ada.enter("Ada")
        await expect(ada.page.get_by_text("Nothing said yet")).to_be_visible()
        await shoot("2-empty")
        zoe = await open_window(hub.url)
        await zoe.enter("Zoë Marchand")
        await ada.say("Does the 9:40 leave from here?")
        await zoe.shows("Does the 9:40 leave from here?")
        await zoe.say("It does. Two minutes late, says the board.")
        answer = "And it goes on to the coast, so keep your seat until the end, whatever the others do."
        await zoe.say(answer)
        await ada.shows(*(await zoe.page.locator(".message .text").all_inner_texts()))
        await ada.say("Thanks!")
        await ada.shows_status("Thanks!", "Delivered")
        await shoot("3-chat")
        if device == "phone":
            await ada.page.get_by_role("button", name="2 here").click()
            await shoot("4-people")
            await ada.page.keyboard.press("Escape")
        await ada.page.get_by_role("button", name="How this is done: Messages").click()
        await expect(ada.page.locator("#code pre").first).to_be_visible()
        await shoot("5-code")
        await ada.page.keyboard.press("Escape")
        await ada.page.get_by_role("button", name="Add a second person").click()
        guest = ada.page.frame_locator("#guest")
        await expect(guest.locator("#state-spoken")).to_have_text("Connected")
        await guest.get_by_label("Message", exact=True).fill("And I")
        await expect(ada.page.locator("#typing")).to_be_visible()
        await shoot("6-second-person")
        await ada.page.get_by_role("button", name="Cut my network").click()
        await ada.page.get_by_role("button", name="Let Zoe send 3 messages").click()
        await expect(guest.get_by_text("Are you there?")).to_be_visible()
        await shoot("7-cut")
        await ada.page.get_by_role("button", name="Restore my network").click()
        await expect(ada.page.locator("#recovery-title")).to_have_text("Back, and nothing is lost")
        await shoot("8-back")
        await ada.page.get_by_role("button", name="Close", exact=True).click()
        await ada.page.get_by_role("button", name="Close Zoe").click()
        proxy.cut()
        await ada.shows_state("Reconnecting")
        await ada.say("Are you still there?")
        await expect(ada.page.get_by_role("button", name="Retry")).to_be_visible()
        await shoot("9-reconnecting")


async def test_it_is_usable_with_a_keyboard_alone(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    await expect(ada.page.get_by_label("Your name")).to_be_focused()
    await ada.page.keyboard.type("Ada")
    assert await _tab_stops(ada, 2) == ["entry-room", "Enter →"]
    await ada.page.keyboard.press("Enter")
    await ada.is_in()
    message = ada.page.get_by_label("Message", exact=True)
    await expect(message).to_be_focused()
    await ada.page.keyboard.type("line one")
    await ada.page.keyboard.press("Shift+Enter")
    await ada.page.keyboard.type("line two")
    await ada.page.keyboard.press("Enter")
    await ada.shows("line one\nline two")
    await expect(message).to_be_focused()
    people, rooms, you = ["</>"], ["</>", "lobby", "go-room", "→"], ["</>", "rename"]
    assert await _tab_stops(ada, 9) == ["Send", *people, *rooms, *you, "Server API"]
    assert await _tab_stops(ada, 1) == ["hub.js"]
    await ada.page.get_by_role("log").focus()
    assert await _tab_stops(ada, 2) == ["</>typing", "text"]
    await ada.page.get_by_role("button", name="How this is done: Connection").focus()
    assert await _tab_stops(ada, 4) == ["second", "network", "</>messages", "log"]


async def test_the_panel_of_a_phone_opens_and_closes_with_a_keyboard(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(hub.url, viewport=PHONE)
    await ada.enter("Ada")
    panel, button = ada.page.get_by_label("People and rooms"), ada.page.get_by_role("button", name="1 here")
    await expect(panel).to_be_hidden()
    await expect(button).to_have_attribute("aria-expanded", "false")
    await button.press("Enter")
    await expect(panel).to_be_visible()
    await expect(button).to_have_attribute("aria-expanded", "true")
    assert await _tab_stops(ada, 3) == ["</>", "</>", "lobby"]
    await ada.page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()
    await expect(button).to_be_focused()


async def test_a_screen_reader_finds_its_way(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url, viewport=DESKTOP)
    assert await ada.page.get_by_role("main").count() == 1
    await ada.enter("Ada")
    await ada.say("hello")
    await ada.shows_status("hello", "Delivered")
    for role, name in (
        ("banner", None),
        ("main", None),
        ("complementary", "People and rooms"),
        ("navigation", "Rooms"),
        ("log", "Messages"),
        ("form", "Write a message"),
        ("status", None),
        ("heading", "Room lobby"),
    ):
        found: Any = ada.page.get_by_role(role, name=name)  # type: ignore[arg-type]
        assert await found.count() == 1, f"{role} {name}"
    log = ada.page.get_by_role("log")
    await expect(log).to_have_attribute("aria-live", "polite")
    await expect(log.get_by_role("listitem")).to_have_count(1)
    snapshot = await ada.page.locator("#chat").aria_snapshot()
    unnamed = [line for line in snapshot.splitlines() if line.strip(" -:") in ("button", "textbox", "link")]
    assert unnamed == []
    assert await ada.page.locator("html").get_attribute("lang") == "en"


async def test_nothing_moves_where_motion_is_unwanted(hub: Running, open_window: OpenWindow) -> None:
    async with Proxy(hub.port) as proxy:
        ada = await open_window(proxy.url, reduced_motion="reduce")
        await ada.enter("Ada")
        proxy.cut()
        await ada.shows_state("Reconnecting")
        await expect(ada.page.locator(".lamp")).to_have_css("animation-name", "none")


async def test_it_asks_nothing_of_anybody_else(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url)
    await ada.enter("Ada")
    assert ada.requests
    assert [url for url in ada.requests if not url.startswith((hub.url, "data:"))] == []


async def test_headers(hub: Running, open_window: OpenWindow) -> None:
    page = (await open_window(hub.url)).page
    reply = await page.request.get(f"{hub.url}/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    kinds = {"hub.js": "text/javascript", "chat.css": "text/css", "handlers.py": "text/plain"}
    for name, kind in kinds.items():
        reply = await page.request.get(f"{hub.url}/static/{name}")
        assert reply.headers["content-type"] == f"{kind}; charset=utf-8"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-cache"


async def test_a_page_elsewhere_needs_only_the_address_of_the_hub(
    hub: Running, open_window: OpenWindow
) -> None:
    page = (await open_window(f"http://localhost:{hub.port}/livez")).page
    client = await page.evaluate(
        """async (url) => {
          const { Hub } = await import(`${url}/static/hub.js`);
          const hub = new Hub(url);
          return new Promise((resolve) => hub.on("connected", ({ client }) => resolve(client)).connect());
        }""",
        hub.url,
    )
    assert client


async def test_it_works_wherever_it_is_mounted(open_window: OpenWindow) -> None:
    inner = create_app(load(overrides={"dev": True, "server": {"lag_max_s": 0}}, env={}))
    app = Starlette(routes=[Mount("/live", routes=inner.routes)], lifespan=inner.state.hub.lifespan)
    async with running(app) as server:
        ada = await open_window(f"{server.url}/live/")
        await ada.enter("Ada")
        await ada.say("from below")
        await ada.shows_status("from below", "Delivered")


async def test_without_dev_there_is_a_client_and_no_page(open_window: OpenWindow) -> None:
    async with running(load(overrides={"server": {"lag_max_s": 0}}, env={})) as server:
        page = (await open_window("about:blank")).page
        assert (await page.request.get(f"{server.url}/")).status == 404
        assert (await page.request.get(f"{server.url}/static/chat.js")).status == 404
        client = await page.request.get(f"{server.url}/static/hub.js")
        assert client.status == 200
        assert client.headers["x-typescript-types"] == "./hub.d.ts"
        types = await page.request.get(f"{server.url}/static/hub.d.ts")
        assert "export class Hub {" in await types.text()
        assert types.headers["access-control-allow-origin"] == "*"
