"""A part of a load run in a process of its own, so that whoever measures does not wait for it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self


class Remote:
    """A process that answers questions: `async with Remote(main, …) as remote`.

    Args:
        main: runs in the process, with its end of the pipe and the arguments. It sends "ready" when it is
            ready, then an answer to each question, and ends when the pipe does.
    """

    def __init__(self, main: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs, *arguments), daemon=True)

    async def __aenter__(self) -> Self:
        self._process.start()
        assert await self._receive() == "ready"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        await asyncio.to_thread(self._process.join, 10)
        self._process.kill()

    async def ask(self, *question: Any) -> Any:
        """Send a question, and wait for its answer."""
        self._pipe.send(question)
        return await self._receive()

    async def _receive(self) -> Any:
        return await asyncio.to_thread(self._pipe.recv)


async def next_question(pipe: Connection) -> Any:
    """The next question; None when the other side has left."""

    def receive() -> Any:
        try:
            return pipe.recv()
        except EOFError:
            return None

    return await asyncio.to_thread(receive)
