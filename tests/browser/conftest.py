"""A headless Chromium, a hub, and the windows that a test opens on it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

import pytest_asyncio
from browser.window import Window
from playwright.async_api import Browser, BrowserContext, async_playwright, expect
from support.limits import WAIT_S
from support.server import Running, running

from hub.config import load

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Longer than a page takes to come back to its hub.
expect.set_options(timeout=1000 * WAIT_S)

OpenWindow: TypeAlias = Callable[..., Coroutine[Any, Any, Window]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests, which is why they share an event loop. A window is a person of its own in it."""
    path = shutil.which("chromium")
    assert path, "chromium is missing: scripts/test installs it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def hub() -> AsyncIterator[Running]:
    settings = load(
        env={},
        overrides={
            "dev": True,
            "client": {"reconnect": {"presence_grace_s": 1}},
            # The browser's messages pass through its event loop, and it is not overloaded for being late.
            "server": {"lag_max_s": 0},
        },
    )
    async with running(settings) as hub:
        yield hub


@pytest_asyncio.fixture(loop_scope="session")
async def open_window(browser: Browser) -> AsyncIterator[OpenWindow]:
    """Open the page at a URL, as a new person by default; what a script of it raised fails the test."""
    windows: list[Window] = []

    async def opened(url: str, context: BrowserContext | None = None, **options: Any) -> Window:
        window = Window(await (context or await browser.new_context(**options)).new_page())
        windows.append(window)
        await window.page.goto(url)
        return window

    yield opened
    for context in {window.page.context for window in windows}:
        await context.close()
    assert [fault for window in windows for fault in window.faults] == []


@pytest_asyncio.fixture(loop_scope="session")
async def two(hub: Running, open_window: OpenWindow) -> tuple[Window, Window]:
    """Ada and Zoe, in the lobby, who see each other."""
    ada, zoe = await open_window(hub.url), await open_window(hub.url)
    await ada.enter("Ada")
    await zoe.enter("Zoe")
    await ada.shows_people("Ada", "Zoe")
    return ada, zoe
