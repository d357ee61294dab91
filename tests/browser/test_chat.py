"""Two windows chat: messages, presence, delivery, rooms, and the way back after a broken link."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from browser.conftest import OpenWindow
from browser.proxy import Proxy
from browser.window import Window
from playwright.async_api import WebSocketRoute, expect
from support.server import Process, Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def process() -> AsyncIterator[Process]:
    """A hub that can be killed."""
    async with Process("--dev") as process:
        yield process


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(hub: Running) -> AsyncIterator[Proxy]:
    async with Proxy(hub.port) as proxy:
        yield proxy


async def _two(open_window: OpenWindow, first_url: str, second_url: str) -> tuple[Window, Window]:
    ada, zoe = await open_window(first_url), await open_window(second_url)
    await ada.enter("Ada")
    await zoe.enter("Zoe")
    await ada.shows_people("Ada", "Zoe")
    return ada, zoe


async def _publish(window: Window, hub: Running, *texts: str) -> None:
    """Publish in the lobby, as a backend does."""
    commands = [{"publish": {"channel": "chat:lobby", "data": text}} for text in texts]
    reply = await window.page.request.post(
        f"{hub.url}/api/batch", headers={"X-API-Key": "dev"}, data={"commands": commands}
    )
    assert all("publish" in each for each in (await reply.json())["replies"])


async def test_two_windows_chat(hub: Running, open_window: OpenWindow) -> None:
    ada, zoe = await _two(open_window, hub.url, hub.url)
    await ada.say("hello")
    await zoe.shows("hello")
    await zoe.say("good day")
    await ada.shows("hello", "good day")
    await zoe.shows("hello", "good day")
    await ada.shows_status("hello", "Delivered")
    await zoe.shows_status("good day", "Delivered")
    await expect(ada.page.locator(".message .who")).to_have_text(["You", "Zoe"])
    await expect(zoe.page.locator(".message .who")).to_have_text(["Ada", "You"])


async def test_presence_counts_windows_and_sees_who_leaves(hub: Running, open_window: OpenWindow) -> None:
    ada, zoe = await _two(open_window, hub.url, hub.url)
    again = await open_window(hub.url, zoe.page.context)
    await again.is_in()
    await ada.shows_people("Ada", "Zoe")
    await expect(ada.page.locator("#people")).to_contain_text("2 windows")
    await again.shows_people("Zoe", "Ada")
    await expect(ada.page.locator("#count")).to_have_text("2")
    await again.page.close()
    await expect(ada.page.locator("#people")).not_to_contain_text("windows")
    await zoe.page.close()
    await ada.shows_people("Ada")


async def test_a_later_visitor_reads_what_was_said_in_its_order(
    hub: Running, open_window: OpenWindow
) -> None:
    ada = await open_window(hub.url)
    await ada.enter("Ada")
    said = [f"message {number}" for number in range(60)]
    for text in said:
        await ada.say(text)
    await ada.shows(*said)
    zoe = await open_window(hub.url)
    await zoe.enter("Zoe")
    await zoe.shows(*said[-50:])
    await ada.say("one more")
    await zoe.shows(*said[-50:], "one more")
    await ada.page.reload()
    await ada.is_in()
    await ada.shows(*said[-49:], "one more")


async def test_a_dropped_socket_recovers_what_it_missed_and_nothing_twice(
    hub: Running, proxy: Proxy, open_window: OpenWindow
) -> None:
    ada, zoe = await _two(open_window, proxy.url, hub.url)
    await zoe.say("before")
    await ada.shows("before")
    proxy.cut()
    await ada.shows_state("Reconnecting")
    await zoe.shows_people("Zoe")
    missed = ["missed 1", "missed 2", "missed 3"]
    for text in missed:
        await zoe.say(text)
    await zoe.shows("before", *missed)
    proxy.heal()
    await ada.is_in()
    await zoe.say("after")
    for window in (ada, zoe):
        await window.shows("before", *missed, "after")
        await window.shows_people(*(("Ada", "Zoe") if window is ada else ("Zoe", "Ada")))
        await expect(window.page.locator(".notice")).to_have_count(0)
    assert any('"recovered":true' in frame for frame in ada.frames), "it was read from history instead"


async def test_where_no_websocket_passes_the_chat_goes_on_without(
    hub: Running, proxy: Proxy, open_window: OpenWindow
) -> None:
    proxy.refuses_websockets = True
    ada, zoe = await _two(open_window, proxy.url, hub.url)
    await ada.say("through the keyhole")
    await zoe.shows("through the keyhole")
    await ada.shows_status("through the keyhole", "Delivered")
    assert proxy.refused == 2
    proxy.cut()
    await ada.shows_state("Reconnecting")
    missed = ["missed 1", "missed 2", "missed 3"]
    for text in missed:
        await zoe.say(text)
    await zoe.shows("through the keyhole", *missed)
    proxy.heal()
    await ada.is_in()
    await ada.say("after")
    for window in (ada, zoe):
        await window.shows("through the keyhole", *missed, "after")
        await expect(window.page.locator(".notice")).to_have_count(0)
    assert ada.frames == []


async def test_a_gap_that_history_no_longer_holds_is_shown_as_one(
    hub: Running, proxy: Proxy, open_window: OpenWindow
) -> None:
    ada = await open_window(proxy.url)
    await ada.enter("Ada")
    await ada.say("before")
    await ada.shows_status("before", "Delivered")
    proxy.cut()
    said = [f"missed {number}" for number in range(210)]
    await _publish(ada, hub, *said)
    proxy.heal()
    await ada.shows_state("Connected")
    await ada.shows("before", *said[-50:])
    await expect(ada.page.locator("#messages > :nth-child(2)")).to_have_text(
        "Some messages were missed here."
    )


async def test_a_message_that_comes_while_history_loads_is_shown_once(
    hub: Running, open_window: OpenWindow
) -> None:
    zoe, ada = await open_window(hub.url), await open_window("about:blank")
    await zoe.enter("Zoe")
    await zoe.say("before")
    held: list[Callable[[], None]] = []

    def relay(page_side: WebSocketRoute) -> None:
        hub_side = page_side.connect_to_server()

        def from_page(message: str | bytes) -> None:
            if "history" in str(message):
                held.append(lambda: hub_side.send(message))
            else:
                hub_side.send(message)

        page_side.on_message(from_page)

    await ada.page.route_web_socket(re.compile("websocket"), relay)
    await ada.page.goto(hub.url)
    await ada.page.get_by_label("Your name").fill("Ada")
    await ada.page.keyboard.press("Enter")
    await zoe.shows_people("Zoe", "Ada")
    await zoe.say("meanwhile")
    await ada.shows("meanwhile")
    for release in held:
        release()
    await ada.is_in()
    await ada.shows("before", "meanwhile")


async def test_the_state_says_when_the_next_try_is(proxy: Proxy, open_window: OpenWindow) -> None:
    ada = await open_window(proxy.url)
    await ada.enter("Ada")
    proxy.cut()
    await expect(ada.page.locator("#state-text")).to_have_text(re.compile(r"^Reconnecting in \d+ s$"))
    proxy.heal()
    await ada.shows_state("Connected")


async def test_a_message_that_was_lost_with_the_link_is_sent_again(
    hub: Running, proxy: Proxy, open_window: OpenWindow
) -> None:
    ada, zoe = await _two(open_window, proxy.url, hub.url)
    proxy.swallow_up = True
    await ada.say("into the void")
    await ada.shows_status("into the void", "Sending…")
    proxy.cut()
    proxy.heal()
    await ada.shows_status("into the void", "Delivered")
    await zoe.shows("into the void")
    await ada.shows("into the void")


async def test_a_message_whose_confirmation_was_lost_is_not_sent_again(
    hub: Running, proxy: Proxy, open_window: OpenWindow
) -> None:
    ada, zoe = await _two(open_window, proxy.url, hub.url)
    proxy.swallow_down = True
    await ada.say("it arrived")
    await zoe.shows("it arrived")
    await ada.shows_status("it arrived", "Sending…")
    proxy.cut()
    proxy.heal()
    await ada.shows_status("it arrived", "Delivered")
    await zoe.say("indeed")
    await ada.shows("it arrived", "indeed")
    await zoe.shows("it arrived", "indeed")


async def test_a_message_that_cannot_be_sent_can_be_retried(
    hub: Running, proxy: Proxy, open_window: OpenWindow
) -> None:
    ada, zoe = await _two(open_window, proxy.url, hub.url)
    proxy.cut()
    await ada.shows_state("Reconnecting")
    await ada.say("patience")
    retry = ada.page.get_by_role("button", name="Retry: patience")
    await expect(retry).to_be_visible()
    await ada.shows_status("patience", "Not delivered. Retry")
    proxy.heal()
    await ada.shows_state("Connected")
    await retry.click()
    await ada.shows_status("patience", "Delivered")
    await zoe.shows("patience")
    await ada.shows("patience")


async def test_a_hub_that_starts_anew_is_found_again(process: Process, open_window: OpenWindow) -> None:
    ada, zoe = await _two(open_window, process.url, process.url)
    await ada.say("first life")
    await zoe.say("still the first")
    await ada.shows("first life", "still the first")
    await process.kill()
    await ada.shows_state("Reconnecting")
    await process.start()
    for window in (ada, zoe):
        await window.shows_state("Connected")
        await expect(window.page.locator(".notice")).to_contain_text("started anew")
    await ada.shows_people("Ada", "Zoe")
    await zoe.say("second life")
    await ada.shows("first life", "still the first", "second life")
    await zoe.shows("first life", "still the first", "second life")


async def test_a_hub_that_says_goodbye_is_found_again(process: Process, open_window: OpenWindow) -> None:
    ada = await open_window(process.url)
    await ada.enter("Ada")
    await process.stop()
    await ada.shows_state("Reconnecting")
    await process.start()
    await ada.shows_state("Connected")
    await ada.say("back")
    await ada.shows_status("back", "Delivered")


async def test_rooms_are_apart_and_live_in_the_address(hub: Running, open_window: OpenWindow) -> None:
    ada, zoe = await _two(open_window, hub.url, hub.url)
    await ada.say("in the lobby")
    await zoe.shows("in the lobby")
    await ada.page.get_by_label("Name of a room").fill("Café & (кухня)")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.get_by_role("heading", level=1)).to_contain_text("café-&-(кухня)")
    await ada.is_in()
    await ada.shows()
    await zoe.shows_people("Zoe")
    await ada.say("quiet here")
    await ada.shows_status("quiet here", "Delivered")
    await zoe.page.goto(ada.page.url)
    await zoe.shows("quiet here")
    await ada.shows_people("Ada", "Zoe")
    await ada.page.get_by_role("link", name="lobby").click()
    await ada.shows("in the lobby")
    await ada.page.go_back()
    await ada.shows("quiet here")
    await zoe.shows("quiet here")


async def test_a_new_name_is_seen_by_the_others(hub: Running, open_window: OpenWindow) -> None:
    ada, zoe = await _two(open_window, hub.url, hub.url)
    await ada.page.get_by_role("button", name="Change name").click()
    await ada.enter("Countess")
    await zoe.shows_people("Zoe", "Countess")
    await ada.say("it is me")
    await expect(zoe.page.locator(".message .who")).to_have_text(["Countess"])


async def test_what_somebody_writes_is_text_and_never_markup(hub: Running, open_window: OpenWindow) -> None:
    hostile = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    ada, zoe = await open_window(hub.url), await open_window(hub.url)
    await ada.enter(hostile[:40])
    await zoe.enter("Zoe")
    await ada.say(hostile)
    await zoe.shows(hostile)
    assert await zoe.page.locator("#chat :is(img, b)").count() == 0
    assert "owned" not in await zoe.page.title()


async def test_a_message_of_the_server_is_shown(hub: Running, open_window: OpenWindow) -> None:
    ada = await open_window(hub.url)
    await ada.enter("Ada")
    await _publish(ada, hub, "maintenance at noon")
    await ada.shows("maintenance at noon")
    await expect(ada.page.locator(".message .who")).to_have_text(["Server"])
