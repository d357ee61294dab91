"""The smallest app that takes a WebSocket as the hub does, with a receiver that keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from support.limits import WAIT_S

from hub.node.transport import EXTENSION
from hub.protocol import frames
from hub.server.websocket import ClientSocket


class Recorder:
    """A receiver that keeps what it gets.

    Args:
        answer: called with each message, after it is kept.
    """

    def __init__(self, answer: Callable[[bytes], object] | None = None) -> None:
        self.messages: list[bytes] = []
        self.closed = asyncio.Event()
        self.closing_times = self.closed_times = 0
        self.left = False
        self.writing_paused = asyncio.Event()
        self.answer = answer
        self.socket: ClientSocket
        self._came = asyncio.Event()

    def on_messages(self, messages: Sequence[bytes]) -> None:
        for data in messages:
            self._on_message(data)

    def _on_message(self, data: bytes) -> None:
        self.messages.append(data)
        self._came.set()
        if self.answer is not None:
            self.answer(data)

    def on_write_paused(self) -> None:
        self.writing_paused.set()

    def on_write_resumed(self) -> None:
        self.writing_paused.clear()

    def on_left(self) -> None:
        self.left = True

    def on_closing(self) -> None:
        self.closing_times += 1

    def on_closed(self) -> None:
        self.closed_times += 1
        self.closed.set()

    async def received(self, count: int) -> list[bytes]:
        """Wait for so many messages."""
        async with asyncio.timeout(WAIT_S):
            while len(self.messages) < count:
                self._came.clear()
                await self._came.wait()
        return self.messages

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        async with asyncio.timeout(WAIT_S):
            await self.closed.wait()

    def echo(self, data: bytes) -> None:
        """Send a message back. To be given as `answer`."""
        self.socket.write(frames.encode(frames.Opcode.TEXT, data))


class AttachingApp:
    """An ASGI app that accepts every WebSocket and attaches a `Recorder`, which `recorders` then holds."""

    def __init__(self, *, echo: bool = False) -> None:
        self.recorders: asyncio.Queue[Recorder] = asyncio.Queue()
        self._echo = echo

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            recorder = Recorder()
            recorder.socket = cast(ClientSocket, scope["extensions"][EXTENSION]())
            await send({"type": "websocket.accept"})
            if self._echo:
                recorder.answer = recorder.echo
            recorder.socket.attach(recorder)
            self.recorders.put_nowait(recorder)

    async def accepted(self) -> Recorder:
        """The next socket's recorder."""
        async with asyncio.timeout(WAIT_S):
            return await self.recorders.get()


async def lifespan(receive: Any, send: Any) -> None:
    """Start and stop with nothing to do."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
