"""A headless Chromium, and the windows that a test opens in it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

import pytest
from browser.window import Window
from playwright.async_api import Browser, BrowserContext, async_playwright
from support.server import Process

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

OpenWindow: TypeAlias = Callable[..., Coroutine[Any, Any, Window]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path, "chromium is missing: scripts/test installs it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def hub() -> AsyncIterator[Process]:
    async with Process("--dev", env={"HUB_CLIENT__RECONNECT__PRESENCE_GRACE_S": "1"}) as process:
        yield process


@pytest.fixture
async def open_window(browser: Browser) -> AsyncIterator[OpenWindow]:
    """Open the page at a URL, as a new person by default; what a script of it raised fails the test."""
    windows: list[Window] = []

    async def opened(url: str, context: BrowserContext | None = None, **options: Any) -> Window:
        window = Window(await (context or await browser.new_context(**options)).new_page())
        windows.append(window)
        await window.page.goto(url)
        return window

    yield opened
    assert [fault for window in windows for fault in window.faults] == []
