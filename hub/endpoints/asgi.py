"""Transports over plain ASGI, for servers other than the hub's own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeAlias

from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from hub.node.transport import Receiver
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import Encoding
from hub.protocol.streaming import farewell
from hub.settings import ClientSettings

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer may take to read what is left, and the close, before it is cut off."""

_MESSAGE_TOO_BIG: Final = 1009
_PLACE: Final = "socket"

_Farewell: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class ASGITransport(ABC):
    """The base of them: a `Transport` over one task that sends and one that receives.

    While one send is under way the connection is told to wait, so that its outbox bounds a slow client. An
    exception that a receiver raises is recorded, and ends this connection alone.

    Args:
        name: of the transport.
        encoding: in whole messages, since the server frames them.
        client: what a message may be, and how long one send may take until the peer counts as dead.
        failed: records an exception, with the place where it was raised.
    """

    def __init__(
        self,
        name: str,
        encoding: Encoding,
        client: ClientSettings,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._failed = failed
        self.name = name
        self.encoding = encoding
        self._client = client
        self._to_send: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._farewell: _Farewell | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    async def run(self, receiver: Receiver, *messages: bytes) -> None:
        """Serve the connection until it ends.

        Args:
            receiver: gets the messages.
            messages: those that came already.
        """
        self._receiver = receiver
        self._sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        tasks = (receiving, self._sending)
        try:
            if messages:
                self._call(partial(receiver.on_messages, messages))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and (error := task.exception()):
                    self._failed(_PLACE, error)
        finally:
            # With nothing awaited: a server that cancels this may do so at each await.
            for task in tasks:
                task.cancel()
            self._call(receiver.on_closed)
            if self._cut_off:
                self._cut_off.cancel()

    def _call(self, callback: Callable[[], None]) -> None:
        """Call the receiver. If the call raises, the connection is closed."""
        try:
            callback()
        except Exception as error:
            self._failed(_PLACE, error)
            self.close(Disconnects.INTERNAL_ERROR)

    def write(self, data: bytes) -> None:
        if self._farewell is None:
            self._to_send.append(data)
            self._wake.set()
            self._receiver.on_write_paused()

    @abstractmethod
    def close(self, disconnect: Disconnect) -> None: ...

    @abstractmethod
    async def _deliver(self, data: bytes) -> None:
        """Send one message."""

    @abstractmethod
    async def _receive(self) -> None:
        """Receive messages until the peer is gone."""

    @property
    def _closing(self) -> bool:
        return self._farewell is not None

    def _end(self, farewell: _Farewell) -> None:
        """Send what waits and a last message, and end."""
        if self._farewell is None:
            self._farewell = farewell
            self._wake.set()
            # A peer that does not read would keep the last send waiting for ever.
            loop = asyncio.get_running_loop()
            self._cut_off = loop.call_later(CLOSE_TIMEOUT_S, self._sending.cancel)

    async def _send(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._to_send:
                    async with asyncio.timeout(self._client.stall_timeout_s):
                        await self._deliver(self._to_send.popleft())
                if self._farewell:
                    await self._farewell()
                    return
                self._call(self._receiver.on_write_resumed)
        except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            return  # the peer is gone


class ASGIWebSocket(ASGITransport):
    """A WebSocket.

    Args:
        websocket: accepted.
        encoding, client, failed: as above. The server may hold a longer message before it is seen.
    """

    def __init__(
        self,
        websocket: WebSocket,
        encoding: Encoding,
        client: ClientSettings,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        super().__init__("websocket", encoding, client, failed)
        self._websocket = websocket
        self._readable = asyncio.Event()
        self._readable.set()

    def close(self, disconnect: Disconnect) -> None:
        self._end(lambda: self._websocket.close(disconnect.code, disconnect.reason))

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    async def _deliver(self, data: bytes) -> None:
        if self.encoding.codec.is_text:
            await self._websocket.send_text(data.decode())
        else:
            await self._websocket.send_bytes(data)

    async def _receive(self) -> None:
        while True:
            await self._readable.wait()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                if message.get("code") in (1000, 1001, 1005):
                    self._call(self._receiver.on_left)
                return
            text = message.get("text")
            data = message["bytes"] if text is None else text.encode()
            if len(data) > self._client.message_bytes_max:
                self._end(lambda: self._websocket.close(_MESSAGE_TOO_BIG, "message too big"))
            elif not self._closing:
                self._call(partial(self._receiver.on_messages, (data,)))


class ASGIStream(ASGITransport):
    """The body of a response, whose head was sent.

    Args:
        receive, send: of the request.
        name, encoding, client, failed: as above.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        name: str,
        encoding: Encoding,
        client: ClientSettings,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        super().__init__(name, encoding, client, failed)
        self._receive_event = receive
        self._send_event = send

    def close(self, disconnect: Disconnect) -> None:
        self._end(lambda: self._body(farewell(self.encoding, disconnect), more=False))

    def pause_reading(self) -> None:
        pass  # what such a client sends comes by requests of their own

    def resume_reading(self) -> None:
        pass

    async def _deliver(self, data: bytes) -> None:
        await self._body(data, more=True)

    async def _body(self, data: bytes, *, more: bool) -> None:
        await self._send_event({"type": "http.response.body", "body": data, "more_body": more})

    async def _receive(self) -> None:
        while (await self._receive_event())["type"] != "http.disconnect":
            pass
