"""The clients of a chaos run: those that must lose nothing, and those that the faults are about."""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import Future
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import jwt

from loadtests.faults.clients import SECRET, Client, Publisher, Subscriber

COMMAND_TIMEOUT_S = 10.0
"""Longer than any outage lasts."""
POST_TIMEOUT_S = 10.0
RETRY_S = 0.2


def login(user: str) -> str:
    """A token of the app for a user."""
    return jwt.encode({"sub": user}, SECRET, "HS256")


Kind: TypeAlias = Literal["http_stream", "sse"]
"""Of a stream."""


class HonestSubscriber(Subscriber):
    """A subscriber that gives up a connection on which a subscribe command is not answered, as SDKs do."""

    def __init__(self, ports: Sequence[int], channel: str) -> None:
        self.unanswered = 0
        """Subscribe commands without an answer."""
        self._asked = 0
        super().__init__(ports, channel)

    def command(self, name: str, request: dict[str, Any]) -> int:
        number = super().command(name, request)
        if name == "subscribe":
            self._asked = number
            self._loop.call_later(COMMAND_TIMEOUT_S, self._check_answer, number, len(self.lost_at))
        return number

    def on_reply(self, reply: dict[str, Any]) -> None:
        if reply.get("id") == self._asked:
            self._asked = 0
        super().on_reply(reply)

    def _check_answer(self, number: int, losses: int) -> None:
        if self._asked == number and len(self.lost_at) == losses and self._transport is not None:
            self.unanswered += 1
            self.drop_link()


class PlainSubscriber(HonestSubscriber):
    """Logs in again each time it comes back."""

    keeps_token = False


class StreamSubscriber(HonestSubscriber):
    """Receives over HTTP streaming or SSE, and sends each command as a POST to `/emulation`.

    Args:
        ports: of the nodes, the preferred one first.
        channel: that it follows.
        kind: the transport.
        posts_elsewhere: whether its commands go to a node that it is not connected to, which passes them on.
    """

    accepted = b"HTTP/1.1 200"

    def __init__(
        self,
        ports: Sequence[int],
        channel: str,
        kind: Kind,
        *,
        posts_elsewhere: bool = False,
    ) -> None:
        self.posts_elsewhere = posts_elsewhere
        self._kind = kind
        self._nodes = list(ports)
        self._body = b""
        self._unsent: asyncio.Queue[bytes] = asyncio.Queue()
        self._poster: asyncio.Task[None] | None = None
        super().__init__(ports, channel)

    def _request(self, port: int) -> bytes:
        self._body = b""
        path, command = f"/connection/{self._kind}", self._connect_command()
        if self._kind == "sse":
            return f"GET {path}?cf_connect={quote(command)} HTTP/1.1\r\nHost: hub\r\n\r\n".encode()
        return _post(path, command)

    def _on_open(self) -> None:
        """Do nothing: the request holds the connect command."""

    def on_connected(self) -> None:
        if self._poster is None:
            self._unsent = asyncio.Queue()
            self._poster = self._loop.create_task(self._post_all(self._unsent))
        super().on_connected()

    def on_lost(self) -> None:
        self._stop_posting()
        super().on_lost()

    def end(self) -> None:
        super().end()
        self._stop_posting()

    def _stop_posting(self) -> None:
        if self._poster is not None:
            self._keep.add(self._poster)  # until it has ended
            self._poster.add_done_callback(self._keep.discard)
            self._poster.cancel()
            self._poster = None

    def _read(self, data: bytes) -> bytes:
        """Take the chunks that are whole, and the lines in them that are."""
        while True:
            head, found, rest = data.partition(b"\r\n")
            if not found:
                break
            size = int(head, 16)
            if len(rest) < size + 2:
                break
            self._body += rest[:size]
            data = rest[size + 2 :]
        *lines, self._body = self._body.split(b"\n")
        for line in lines:
            if message := line.removeprefix(b"data: ").strip():
                self._on_message(message)
        return data

    def _send(self, message: bytes) -> None:
        self._unsent.put_nowait(message)

    async def _post_all(self, unsent: asyncio.Queue[bytes]) -> None:
        """Post what is sent, one request after another. A refusal ends the stream, as it does in the SDKs."""
        while True:
            data = (await unsent.get()).decode()
            body = json.dumps({"session": self.session, "node": self.node, "data": data}).encode()
            if await self._post(body) != 204:
                self.drop_link()
                return

    async def _post(self, body: bytes) -> int:
        """Post once. Returns the status; 0 where no answer came."""
        try:
            async with asyncio.timeout(POST_TIMEOUT_S):
                others = [port for port in self._nodes if (port != self.port) == self.posts_elsewhere]
                reader, writer = await asyncio.open_connection("127.0.0.1", others[0])
                try:
                    writer.write(_post("/emulation", body, "Connection: close\r\n"))
                    status = await reader.readline()
                finally:
                    writer.transport.abort()
            return int(status.split(b" ", 2)[1])
        except (OSError, TimeoutError, IndexError):
            return 0


def _post(path: str, body: bytes, headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class CarefulPublisher(Publisher):
    """A publisher that notes when the hub refused to publish."""

    def __init__(self, ports: Sequence[int], number: int, channels: Sequence[str]) -> None:
        self.refusals: list[tuple[float, int]] = []
        """Monotonic times and codes of the errors."""
        super().__init__(ports, number, channels)

    def on_reply(self, reply: dict[str, Any]) -> None:
        super().on_reply(reply)
        if "error" in reply:
            self.refusals.append((time.monotonic(), reply["error"]["code"]))


class Exile(Client):
    """A connection of a user who is revoked. Then it tries to come back with its reconnect token alone.

    Args:
        ports: of the nodes, the preferred one first.
        user: its user.
        channel: that it subscribes to, where its presence shows.
    """

    def __init__(self, ports: Sequence[int], user: str, channel: str) -> None:
        self.user = user
        self.channel = channel
        self.revoked_at = 0.0
        """When the hub answered that the user is revoked; 0 before."""
        self.is_banished = False
        """Whether it only comes back with the reconnect token that it has, and logs in no more."""
        self.is_in = False
        """Whether the connection is open and connected."""
        self.returns: list[tuple[float, str]] = []
        """Monotonic times at which the hub let it in after it was revoked, and the node that did."""
        self.attempts = 0
        """How often it asked to come back after it was revoked."""
        self.gone_at = 0.0
        """When its last connection ended."""
        self._asked_at = 0.0
        super().__init__(ports)

    def _login(self) -> str:
        assert not self.is_banished, "a banished client has a reconnect token"
        return login(self.user)

    def _on_open(self) -> None:
        self._asked_at = time.monotonic()
        self.attempts += bool(self.revoked_at)
        super()._on_open()

    def on_connected(self) -> None:
        self.is_in = True
        if 0 < self.revoked_at < self._asked_at:
            self.returns.append((time.monotonic(), self.node))
        self.command("subscribe", {"channel": self.channel})

    def on_refused(self, error: dict[str, Any]) -> None:
        if not self.is_banished:
            super().on_refused(error)

    def on_lost(self) -> None:
        if self.is_in:
            self.is_in = False
            self.gone_at = time.monotonic()


class Bystander(Client):
    """Subscribes to a channel that is vandalised, and must go on when the channel is whole again."""

    def __init__(self, ports: Sequence[int], channel: str) -> None:
        self.channel = channel
        self.told = 0
        self.unreadable = 0
        """Messages that are not JSON."""
        self.last: Any = None
        """Payload of the last publication."""
        super().__init__(ports)

    def _on_message(self, message: bytes) -> None:
        try:
            super()._on_message(message)
        except ValueError:
            self.unreadable += 1

    def on_connected(self) -> None:
        self.command("subscribe", {"channel": self.channel, "recoverable": True})

    def on_reply(self, reply: dict[str, Any]) -> None:
        push = reply.get("push", {})
        if "pub" in push:
            self.last = push["pub"].get("data")
        elif "unsubscribe" in push:
            self.told += 1
            self.on_connected()
        elif "subscribe" in reply:
            for publication in reply["subscribe"].get("publications", ()):
                self.last = publication.get("data")
        elif "error" in reply:
            self._loop.call_later(RETRY_S, self._again)

    def _again(self) -> None:
        if self._transport is not None:
            self.on_connected()


class Asking(Client):
    """Sends commands whose handlers fail, and waits for an answer to each."""

    def __init__(self, ports: Sequence[int], user: str) -> None:
        self._user = user
        self._replies: dict[int, Future[dict[str, Any]]] = {}
        self.ready = asyncio.Event()
        super().__init__(ports)

    def _login(self) -> str:
        return login(self._user)

    async def ask(self, name: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Send a command. Returns the reply; empty where the connection ended, None where no answer came."""
        await asyncio.wait_for(self.ready.wait(), timeout_s)
        reply: Future[dict[str, Any]] = self._loop.create_future()
        self._replies[self.command(name, request)] = reply
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            return None

    def on_connected(self) -> None:
        self.ready.set()

    def on_lost(self) -> None:
        self.ready.clear()
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            if not reply.done():
                reply.set_result({})

    def on_reply(self, reply: dict[str, Any]) -> None:
        waiting = self._replies.pop(reply.get("id", 0), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)
