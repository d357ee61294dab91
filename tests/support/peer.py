"""A client of the protocol that sends lines as they are written here, and takes the replies one by one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from support.limits import WAIT_S
from support.rawws import RawWebSocket

_TOKEN = '{"push":{"message":{"data":{"reconnect_token":'


class Peer:
    """The lines that come over a raw WebSocket.

    Args:
        socket: open.
    """

    def __init__(self, socket: RawWebSocket) -> None:
        self.socket = socket
        self._lines: list[str] = []
        self.tokens: list[str] = []
        """The reconnect tokens that were pushed so far."""

    def send(self, *lines: str) -> None:
        """Send lines in one frame."""
        self.socket.send_text("\n".join(lines))

    async def line(self) -> str:
        """The next line, as it came; pings are answered, and they and pushed tokens passed over."""
        while True:
            while not self._lines:
                self._lines = (await self.socket.read_text()).split("\n")
            line = self._lines.pop(0)
            if line == "{}":
                self.send("{}")
            elif line.startswith(_TOKEN):
                self.tokens.append(json.loads(line)["push"]["message"]["data"]["reconnect_token"])
            else:
                return line

    async def reply(self) -> Any:
        """The next line, parsed."""
        return json.loads(await self.line())

    async def ask(self, *lines: str) -> list[Any]:
        """Send lines in one frame, and take as many replies."""
        self.send(*lines)
        return [await self.reply() for _ in lines]

    async def error(self, line: str) -> int:
        """Send a line, and take the code of the error that it is answered with; 0 for none."""
        [reply] = await self.ask(line)
        return int(reply.get("error", {}).get("code", 0))

    async def closed(self) -> tuple[int, str]:
        """Wait for the end: the close frame's code and reason."""
        return await self.socket.closed()


@contextlib.asynccontextmanager
async def unconnected(
    port: int, path: str = "/connection/websocket", *, receive_buffer_bytes: int | None = None
) -> AsyncIterator[Peer]:
    """An open socket that has not sent its connect command."""
    socket = await RawWebSocket.connect(port, path, receive_buffer_bytes=receive_buffer_bytes)
    async with socket:
        yield Peer(socket)


@contextlib.asynccontextmanager
async def connected(
    port: int, token: str = "", path: str = "/connection/websocket", **more: Any
) -> AsyncIterator[Peer]:
    """A client that is connected.

    Args:
        token: its connection token.
        path: of the endpoint.
        more: fields of its connect command.
    """
    async with unconnected(port, path) as peer:
        request = {"token": token, **more} if token else more
        [reply] = await peer.ask(json.dumps({"id": 1, "connect": request}))
        assert "connect" in reply, reply
        yield peer


def command(number: int, name: str, /, **fields: Any) -> str:
    """A command as an SDK writes it."""
    return json.dumps({"id": number, name: fields})


async def until_gone(node: Any) -> None:
    """Wait until a node holds no socket."""
    async with asyncio.timeout(WAIT_S):
        while node.connections:  # noqa: ASYNC110 - a socket's end is announced to the node alone
            await asyncio.sleep(0.01)
