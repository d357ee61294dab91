"""A WebSocket in memory, and its handshake through the app."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.types import ASGIApp

from hub.node.transport import EXTENSION, Receiver
from hub.protocol.codes import Disconnect
from hub.protocol.encoding import Encoding, WebSocketEncodings

CUT_OFF: Final = 1006
"""The close code of a link that broke without a close frame (RFC 6455 section 7.1.5)."""


class MemoryLink:
    """A WebSocket without a socket: a `Transport` for the hub at one end, a client's machine at the other.

    Messages arrive in their order, in a later turn of the event loop.

    Args:
        received: takes each message from the hub.
        ended: told of the hub's close: code and reason.
        moved: told of each message in either direction.
    """

    name: Final = "websocket"
    encoding: Encoding

    def __init__(
        self,
        received: Callable[[bytes], None],
        ended: Callable[[int, str], None],
        moved: Callable[[], None],
    ) -> None:
        self._received = received
        self._ended = ended
        self._moved = moved
        self._receiver: Receiver | None = None
        self._under_way: deque[Callable[[], None]] = deque()
        self._not_read: deque[bytes] | None = None
        """Messages to the hub while it does not read; None while it reads."""
        self._is_closing = False

    @property
    def is_open(self) -> bool:
        """Whether the hub has the link, and neither side has closed it."""
        return self._receiver is not None and not self._is_closing

    # The hub's end

    def claim(self, encodings: WebSocketEncodings) -> MemoryLink:
        """Be the transport of a handshake; the endpoint calls this."""
        self.encoding = encodings.messages
        return self

    def attach(self, receiver: Receiver) -> None:
        """Have what comes from the client passed to a connection; the endpoint calls this."""
        self._receiver = receiver

    def write(self, data: bytes) -> None:
        self._later(lambda: self._received(data))

    def close(self, disconnect: Disconnect) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._later(lambda: self._end(disconnect))

    def pause_reading(self) -> None:
        if self._not_read is None:
            self._not_read = deque()

    def resume_reading(self) -> None:
        waiting, self._not_read = self._not_read or (), None
        for data in waiting:
            self.send(data)

    # The client's end

    def send(self, data: bytes) -> None:
        """Send a message to the hub."""
        self._later(lambda: self._read(data))

    def leave(self) -> None:
        """Close the link from the client's side, as a page that is left does."""
        if not self._is_closing:
            self._is_closing = True
            self._later(lambda: self._gone(is_wanted=True))

    def drop(self) -> None:
        """Break the link: what is under way is lost, and neither side says a word."""
        self._is_closing = True
        self._under_way.clear()
        self._gone(is_wanted=False)

    # Inside

    def _later(self, action: Callable[[], None]) -> None:
        if not self._under_way:
            asyncio.get_running_loop().call_soon(self._arrive)
        self._under_way.append(action)

    def _arrive(self) -> None:
        actions, self._under_way = self._under_way, deque()
        for action in actions:
            self._moved()
            action()

    def _read(self, data: bytes) -> None:
        if self._not_read is not None:
            self._not_read.append(data)
        elif self._receiver is not None:
            self._receiver.on_messages((data,))

    def _end(self, disconnect: Disconnect) -> None:
        self._gone(is_wanted=False)
        self._ended(disconnect.code, disconnect.reason)

    def _gone(self, *, is_wanted: bool) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            if is_wanted:
                receiver.on_left()
            receiver.on_closing()
            receiver.on_closed()


async def handshake(
    app: ASGIApp,
    path: str,
    headers: Mapping[str, str],
    subprotocol: str,
    state: Mapping[str, Any],
    link: MemoryLink,
) -> str:
    """Ask the app for a WebSocket, and have the hub's endpoint take the link.

    Args:
        app: with its middleware and its routes.
        path: of the endpoint.
        headers: of the handshake, beside `Host`.
        subprotocol: to ask for.
        state: of the app's lifespan.
        link: to attach.

    Returns:
        Why the handshake was refused; empty where the hub took the link.
    """
    sent: list[Any] = []
    events = deque([{"type": "websocket.connect"}])

    async def receive() -> Any:
        return events.popleft() if events else {"type": "websocket.disconnect", "code": CUT_OFF}

    async def send(message: Any) -> None:
        sent.append(message)

    fields = {"host": "localhost", **{name.lower(): text for name, text in headers.items()}}
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode("latin-1"), text.encode("latin-1")) for name, text in fields.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "subprotocols": [subprotocol],
        "state": dict(state),
        "extensions": {"websocket.http.response": {}, EXTENSION: link.claim},
    }
    await app(scope, receive, send)
    if link.is_open:
        return ""
    status = next((each["status"] for each in sent if each["type"] == "websocket.http.response.start"), 403)
    body = b"".join(each.get("body", b"") for each in sent if each["type"] == "websocket.http.response.body")
    if any(each["type"] == "websocket.accept" for each in sent):
        return f"the WebSocket at {path} is not a hub's"
    return f"HTTP {status} at {path}: {body.decode(errors='replace').strip() or 'the handshake was refused'}"
