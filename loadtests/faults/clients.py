"""Clients as light as can be, thousands to a process: one publishes, many follow a channel and keep it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import jwt
from support.rawws import frame, handshake
from websockets.frames import Opcode

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 2.0
SDK_BACKOFF_MIN_S = 0.5
SDK_BACKOFF_MAX_S = 20.0
CONNECT_TIMEOUT_S = 10.0
PATH = "/connection/websocket"


SECRET = "signs-the-tokens-of-those-who-are-under-load"  # noqa: S105 - of these runs alone
_NUMBERS = itertools.count(1)


def login_token() -> str:
    """A token of an app, for another user at each call."""
    return jwt.encode({"sub": f"{os.getpid()}-{next(_NUMBERS)}"}, SECRET, "HS256")


def eager_backoff(attempt: int) -> float:
    """Seconds to wait before an attempt: none before the first, and never long."""
    delay_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**attempt)
    return delay_s * random.uniform(0.5, 1.0) if attempt else 0.0  # noqa: S311 - jitter


def sdk_backoff(attempt: int) -> float:
    """Seconds that the official SDKs wait before an attempt to come back."""
    spread_s = min(SDK_BACKOFF_MAX_S, SDK_BACKOFF_MIN_S * 2**attempt)
    return min(SDK_BACKOFF_MAX_S, SDK_BACKOFF_MIN_S + random.uniform(0, spread_s))  # noqa: S311 - jitter


@lru_cache(maxsize=1024)
def _replies(message: bytes) -> list[dict[str, Any]]:
    """The replies in a message. All subscribers of a channel get the same bytes."""
    return [json.loads(line) for line in message.split(b"\n") if line]


class Client(asyncio.Protocol):
    """A connection that is made again when it breaks, to the next of the nodes.

    Args:
        ports: of the nodes, the preferred one first.
        backoff: seconds to wait before an attempt to come back, by how many failed before it.
    """

    accepted = b"HTTP/1.1 101"
    """Beginning of the response head that opens the connection."""
    keeps_token = True
    """Whether the client comes back with the hub's reconnect token, rather than with a login."""

    def __init__(self, ports: Sequence[int], backoff: Callable[[int], float] = eager_backoff) -> None:
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._ports = itertools.cycle(ports)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._is_open = False
        self._ended = False
        self._attempt = 0
        self._numbers = itertools.count(2)
        self._keep: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """How often the hub broke a connection that it had opened and did not refuse."""
        self.refused_at: list[float] = []
        """When it was told to come later."""
        self.connect_errors: list[int] = []
        """Codes of the errors that answered its connect commands."""
        self.lost_at: list[float] = []
        self.codes: list[int] = []
        """Of the disconnects that it was told."""
        self.token = ""
        """The last token to reconnect with that the hub gave it."""
        self.logins = 0
        """How often it asked the app for a token."""
        self.port = 0
        """Of the node that it is connected to, or connects to."""
        self.session = self.node = ""
        """Where a client of a stream sends its commands, from the connect result."""
        self._has_been_in = False
        self._drops_link = False
        self.connect()

    def connect(self) -> None:
        """Begin to connect."""
        task = self._loop.create_task(self._connect(next(self._ports)))
        self._keep.add(task)
        task.add_done_callback(self._keep.discard)

    def end(self) -> None:
        """Leave for good."""
        self._ended = True
        for task in self._keep:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def drop_link(self) -> None:
        """Break the connection from this side. The client comes back; `dropped` does not count it."""
        if self._transport is not None:
            self._drops_link = True
            self._transport.abort()

    def command(self, name: str, request: dict[str, Any]) -> int:
        """Send a command, and tell its id."""
        number = next(self._numbers)
        self._send(json.dumps({"id": number, name: request}).encode())
        return number

    def on_connected(self) -> None:
        """The hub let it in."""

    def on_refused(self, error: dict[str, Any]) -> None:
        """The hub answered the connect command with an error."""
        self.token = ""

    def on_lost(self) -> None:
        """The socket broke."""

    def on_reply(self, reply: dict[str, Any]) -> None:
        """A reply or a push came."""

    async def _connect(self, port: int) -> None:
        self.port = port
        if self._attempt or self._has_been_in:
            await asyncio.sleep(self._backoff(self._attempt))
        self._attempt += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._loop.create_connection(lambda: self, "127.0.0.1", port)
        except (OSError, TimeoutError):
            self.connect()
            return
        assert self._transport is not None
        self._transport.write(self._request(port))

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._buffer = b""
        self._is_open = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._ended:
            return
        if self._is_open:
            self.dropped += not self._drops_link
            self.lost_at.append(time.monotonic())
        self._drops_link = False
        self.on_lost()
        self.connect()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self._is_open:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end or not head.startswith(self.accepted):
                self._buffer = data
                if end and self._transport is not None:
                    self.refused_at.append(time.monotonic())
                    self._transport.abort()
                return
            self._is_open = True
            self._on_open()
            data = rest
        self._buffer = self._read(data)

    # The transport: a WebSocket, unless a subclass has another one

    def _request(self, port: int) -> bytes:
        """The HTTP request that opens the connection."""
        return handshake(port, PATH, {})

    def _on_open(self) -> None:
        """Send the connect command."""
        self._send(self._connect_command())

    def _connect_command(self) -> bytes:
        return json.dumps({"id": 1, "connect": {"token": self.token or self._login()}}).encode()

    def _read(self, data: bytes) -> bytes:
        """Handle the messages in what came, and return the part that is not a whole frame yet."""
        at = 0
        while (message := _frame(data, at)) is not None:
            opcode, start, at = message
            if opcode == Opcode.TEXT:
                self._on_message(data[start:at])
            elif opcode == Opcode.PING and self._transport is not None:
                self._transport.write(frame(Opcode.PONG, data[start:at]))
            elif opcode == Opcode.CLOSE and self._transport is not None:
                self.codes.append(int.from_bytes(data[start : start + 2], "big"))
                self._transport.close()
        return data[at:]

    def _on_message(self, message: bytes) -> None:
        for reply in _replies(message):
            if not reply:
                self._send(b"{}")
            elif reply.get("id") == 1 and "error" in reply:
                self.connect_errors.append(reply["error"]["code"])
                self.on_refused(reply["error"])
                self.drop_link()
            elif "connect" in reply:
                self._attempt = 0
                self._has_been_in = True
                result = reply["connect"]
                self.session, self.node = result.get("session", ""), result.get("node", "")
                self._keep_token(result.get("data"))
                self.on_connected()
            else:
                push = reply.get("push", {})
                self._keep_token(push.get("message", {}).get("data"))
                if "disconnect" in push:
                    self.codes.append(push["disconnect"]["code"])
                self.on_reply(reply)

    def _login(self) -> str:
        self.logins += 1
        return login_token()

    def _keep_token(self, data: Any) -> None:
        if self.keeps_token and isinstance(data, dict) and "reconnect_token" in data:
            self.token = data["reconnect_token"]

    def _send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame(Opcode.TEXT, message))


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Opcode, begin and end of the payload of the frame that begins here; None where it is not all there."""
    if len(data) < at + 2:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    if size > 125:
        start = at + (4 if size == 126 else 10)
        size = int.from_bytes(data[at + 2 : start], "big")
    if len(data) < start or len(data) < start + size:
        return None
    return data[at] & 0x0F, start, start + size


class Subscriber(Client):
    """Follows one channel, recovers when it can, and reads the whole history when it is told that it cannot.

    Args:
        ports: of the nodes, the preferred one first.
        channel: that it follows.
        backoff: as for every client.
    """

    def __init__(
        self, ports: Sequence[int], channel: str, backoff: Callable[[int], float] = eager_backoff
    ) -> None:
        super().__init__(ports, backoff)
        self.channel = channel
        self.ids: list[int] = []
        """What it has, in order: all that came since it was last told to begin anew."""
        self.epoch = ""
        self.offset = 0
        self.repeated = 0
        """Publications that came again."""
        self.jumps = 0
        """Publications that came before one that they follow."""
        self.told = 0
        """How often it was told that something is missing."""
        self.told_at = 0.0
        self.lateness_s = 0.0
        """The longest that a publication took, from the publisher's call."""
        self.subscribed = asyncio.Event()
        self.back_at: list[float] = []
        """When it stood in its channel, the first time among them."""
        self._is_new = True
        self._is_warned = False
        self._history_id = 0

    def on_connected(self) -> None:
        request: dict[str, Any] = {"channel": self.channel, "recoverable": True}
        if not self._is_new:
            request |= {"recover": True, "epoch": self.epoch, "offset": self.offset}
        self.command("subscribe", request)

    def on_lost(self) -> None:
        self.subscribed.clear()
        if self._history_id:
            # The state that it was about to read is still to be read: it knows nothing.
            self._history_id = 0
            self._is_new = True

    def on_reply(self, reply: dict[str, Any]) -> None:
        push = reply.get("push")
        if push is not None:
            if "pub" in push:
                self._take(push["pub"])
            elif "unsubscribe" in push:
                self.subscribed.clear()
                self._tell()
                self._is_warned = True
                self.on_connected()
        elif "subscribe" in reply:
            self._on_subscribed(reply["subscribe"])
        elif "history" in reply and reply["id"] == self._history_id:
            # What came before its subscription; the rest came, or comes, by itself.
            self._history_id = 0
            start = self.offset - len(self.ids)
            before = [each for each in reply["history"].get("publications", ()) if each["offset"] <= start]
            self.ids = [each["data"]["id"] for each in before] + self.ids
        elif "error" in reply:
            again = self._ask_history if reply["id"] == self._history_id else self._again
            self._loop.call_later(random.uniform(0.2, 0.6), again)  # noqa: S311 - jitter

    def _again(self) -> None:
        if not self.subscribed.is_set() and self._transport is not None:
            self.on_connected()

    def _on_subscribed(self, result: dict[str, Any]) -> None:
        recovered = result.get("recovered", False)
        if not recovered:
            if not self._is_new and not self._is_warned:
                self._tell()
            self.ids = []
            self.epoch, self.offset = result["epoch"], result.get("offset", 0)
            if self.offset:
                self._ask_history()
        self._is_new = self._is_warned = False
        if result["epoch"] != self.epoch:
            self.jumps += 1
        for publication in result.get("publications", ()):
            self._take(publication)
        if result.get("offset", 0) > self.offset:
            self.jumps += 1
        self.subscribed.set()
        self.back_at.append(time.monotonic())

    def _ask_history(self) -> None:
        self._history_id = self.command("history", {"channel": self.channel, "limit": -1})

    def _tell(self) -> None:
        self.told += 1
        self.told_at = time.monotonic()

    def _take(self, publication: dict[str, Any]) -> None:
        offset, data = publication["offset"], publication["data"]
        if offset <= self.offset:
            self.repeated += 1
            return
        if offset > self.offset + 1:
            self.jumps += 1
        self.offset = offset
        self.ids.append(data["id"])
        self.lateness_s = max(self.lateness_s, time.monotonic() - data["at"])


class Publisher(Client):
    """Publishes to channels in turn, repeats nothing, and notes what the hub said was published.

    Args:
        ports: of the nodes, the preferred one first.
        number: of the publisher, a digit. The ids that it gives grow, and end in it.
        channels: that it publishes to.
    """

    def __init__(self, ports: Sequence[int], number: int, channels: Sequence[str]) -> None:
        super().__init__(ports)
        self._number = number
        self._channels = itertools.cycle(channels)
        self._ids = itertools.count(1)
        self._asked: dict[int, tuple[str, int]] = {}
        self.ready = asyncio.Event()
        self.published = 0
        self.refused = 0
        self.acknowledged: dict[str, dict[int, float]] = {channel: {} for channel in channels}
        """By channel, ids with the time of the reply."""

    @property
    def waiting(self) -> int:
        """Publishes without an answer."""
        return len(self._asked)

    def on_connected(self) -> None:
        self.ready.set()

    def on_lost(self) -> None:
        self.ready.clear()
        self._asked.clear()  # nobody knows what became of them

    def publish(self, size: int = 0) -> None:
        """Publish once to the next channel, with so many bytes of ballast."""
        if not self.ready.is_set():
            return
        channel, id_ = next(self._channels), next(self._ids) * 10 + self._number
        data = {"id": id_, "at": time.monotonic(), **({"ballast": "x" * size} if size else {})}
        self._asked[self.command("publish", {"channel": channel, "data": data})] = (channel, id_)
        self.published += 1

    async def publish_steadily(self, rate: float) -> None:
        """Publish so many times a second, until cancelled."""
        began = self._loop.time()
        for count in itertools.count(1):
            self.publish()
            await asyncio.sleep(max(0.0, began + count / rate - self._loop.time()))

    def on_reply(self, reply: dict[str, Any]) -> None:
        asked = self._asked.pop(reply.get("id", 0), None)
        if asked is None:
            return
        channel, id_ = asked
        if "publish" in reply:
            self.acknowledged[channel][id_] = time.monotonic()
        else:
            self.refused += 1


async def subscribed(subscribers: Sequence[Subscriber], timeout_s: float) -> None:
    """Wait until all are in their channel, or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(subscriber.subscribed.wait() for subscriber in subscribers))
