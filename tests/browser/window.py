"""The chat page as somebody who uses it sees it."""

from __future__ import annotations

from playwright.async_api import ConsoleMessage, Page, Request, WebSocket, expect


class Window:
    """A window with the page in it.

    Args:
        page: its tab.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        """What went wrong in its scripts, or was against its content security policy."""
        self.requests: list[str] = []
        self.frames: list[str] = []
        """What the hub sent."""
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._on_console)
        page.on("request", self._on_request)
        page.on("websocket", self._on_websocket)

    def _on_console(self, message: ConsoleMessage) -> None:
        # The browser reports each connection that fails, which a broken link is meant to cause, and looks for
        # an icon where a page names none.
        url = message.location["url"]
        link = any(path in url for path in ("/connection/", "/emulation", "/readyz"))
        expected = link or "WebSocket connection to" in message.text or "/favicon.ico" in url
        if message.type == "error" and not expected:
            self.faults.append(message.text)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _on_websocket(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self.frames.append(str(frame)))

    async def enter(self, name: str, room: str = "lobby") -> None:
        """Come in, and wait until the room is there."""
        await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_label("Room", exact=True).fill(room)
        await self.page.get_by_role("button", name="Enter").click()
        await self.is_in()

    async def is_in(self) -> None:
        """Wait until it is connected, with history and presence loaded."""
        await self.shows_state("Connected")
        await expect(self.page.get_by_role("log")).to_have_attribute("aria-busy", "false")

    async def shows_state(self, text: str) -> None:
        """Wait until it says that the connection is in this state."""
        await expect(self.page.locator("#state-spoken")).to_have_text(text)

    async def say(self, text: str) -> None:
        """Send a message, as with a keyboard."""
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def shows(self, *texts: str) -> None:
        """Wait until the messages are these, in this order, each once."""
        shown = self.page.locator(".message .text")
        await expect(shown).to_have_text(list(texts))

    async def shows_status(self, text: str, status: str) -> None:
        """Wait until the message with this text has this delivery state."""
        message = self.page.locator(".message", has_text=text)
        await expect(message.locator(".status")).to_have_text(status)

    async def shows_people(self, *people: str) -> None:
        """Wait until these are the people here, each with what is noted of them."""
        await expect(self.page.locator("#people > li > :not(.bullet):not(small)")).to_have_text(list(people))
