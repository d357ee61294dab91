"""The lifespan of an app (ASGI 3.0, lifespan protocol 2.0), without a server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp

from hub.errors import StartupError


class AppLifespan:
    """Runs an app's lifespan in a task of its own, as a server does.

    Args:
        app: whose lifespan it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: Final[dict[str, Any]] = {}
        """What the lifespan yielded, for the scope of each request."""
        self._app = app
        self._events: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[MutableMapping[str, Any] | None] = asyncio.Queue()

    async def start(self) -> None:
        """Run the app until it has started.

        Raises:
            Exception: what the app's lifespan raised.
            StartupError: the app has no lifespan.
        """
        self._task = asyncio.create_task(self._run(), name="hub.testing lifespan")
        await self._step("startup")

    async def stop(self) -> None:
        """Shut the app down, and wait for its end.

        Raises:
            Exception: what the app's lifespan raised.
        """
        await self._step("shutdown")
        await self._task

    async def _run(self) -> None:
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }

        async def send(message: MutableMapping[str, Any]) -> None:
            self._answers.put_nowait(message)

        try:
            await self._app(scope, self._events.get, send)
        finally:
            self._answers.put_nowait(None)

    async def _step(self, step: str) -> None:
        self._events.put_nowait({"type": f"lifespan.{step}"})
        answer = await self._answers.get()
        if answer is None or answer["type"] == f"lifespan.{step}.failed":
            await self._task  # raises what the app raised
            raise StartupError(
                f"the app's lifespan ended before {step} was complete: check the app's lifespan"
            )
