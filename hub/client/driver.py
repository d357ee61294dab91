"""Runs a client's machine under asyncio: over a WebSocket of `websockets`, with the event loop's time."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from hub.client import effects as e
from hub.client import values
from hub.client.backoff import retry_after_s
from hub.client.errors import OperationTimeoutError
from hub.client.handlers import Handlers
from hub.client.machine import ClientMachine

MESSAGE_BYTES_MAX: Final = 16_777_216
"""The largest message that a client takes from a hub: a recovery comes in one."""

EVENTS_MAX: Final = 1024
"""While so many events wait for their handlers, nothing more is read. Who falls behind for long is cut off,
and recovers."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long a goodbye may take. Only `finish` waits for it."""

ANSWER_BYTES_MAX: Final = 200
"""Bytes of the answer to a refused handshake that an error shows."""

_NO_CLOSE_FRAME: Final = 1006


class Driver:
    """Carries out what a machine decides, in one event loop.

    Args:
        machine: the client.
        url: of the WebSocket endpoint.
        options: more arguments of `websockets.connect`.
        get_token: asks the app for the token of a channel, or of the connection.
        handlers_of: the handlers of a channel's subscription, or of the client, by kind of event.
    """

    def __init__(
        self,
        machine: ClientMachine,
        url: str,
        options: Mapping[str, Any],
        get_token: Callable[[str], Awaitable[str]],
        handlers_of: Callable[[str | None], Mapping[type, Handlers[Any]]],
    ) -> None:
        self._machine = machine
        self._url = url
        self._options = options
        self._get_token = get_token
        self._handlers_of = handlers_of
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._events: deque[tuple[Handlers[Any], values.Event]] = deque()
        self._dispatcher: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        """Set once the events that wait have become few."""
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        """Set, and made anew, at whatever happens."""

    @property
    def now(self) -> float:
        """Monotonic seconds, the event loop's."""
        return asyncio.get_running_loop().time()

    def carry_out(self, effects: list[e.Effect]) -> None:
        """Do what the machine decided."""
        for effect in effects:
            match effect:
                case e.Emit(event, channel):
                    self._emit(event, channel)
                case e.Write(data):
                    self._outgoing.put_nowait(data)
                case e.Settle(future, outcome):
                    _settle(future, outcome)
                case e.GetToken(ticket, channel):
                    self._fetching.add(task := self._spawn(self._fetch(ticket, channel)))
                    task.add_done_callback(self._fetching.discard)
                case e.OpenSocket(link):
                    self._outgoing = asyncio.Queue()
                    self._opening = self._spawn(self._serve(link, self._outgoing))
                case e.CloseSocket():
                    self._close()
        self._schedule()
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(
        self,
        reached: Callable[[], bool],
        failed: Callable[[], Exception | None],
        why: Callable[[], str],
        timeout_s: float,
    ) -> None:
        """Wait for a state.

        Args:
            reached: whether it is there.
            failed: why it will not come, None while it may.
            why: what failed so far, in words.
            timeout_s: how long to wait.

        Raises:
            Exception: what `failed` returned.
            OperationTimeoutError: it did not come in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    if error := failed():
                        raise error
                    await self._changed.wait()
        except TimeoutError:
            raise OperationTimeoutError(why()) from None

    async def flushed(self) -> None:
        """Wait until what was written has left, or its link was lost."""
        await self._outgoing.join()

    async def finish(self) -> None:
        """Wait for the end of all tasks, but for the one that asks: a handler may."""
        for task in self._fetching:
            task.cancel()
        mine = asyncio.current_task()
        while others := {task for task in self._tasks if task is not mine}:
            await asyncio.wait(others)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _schedule(self) -> None:
        deadline = self._machine.deadline
        if self._timer is not None:
            if self._timer.when() == deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline != math.inf:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.carry_out(self._machine.tick(self.now))

    async def _fetch(self, ticket: int, channel: str) -> None:
        outcome: str | Exception
        try:
            outcome = await self._get_token(channel)
        except Exception as exc:
            outcome = exc
        self.carry_out(self._machine.token_fetched(ticket, outcome, self.now))

    # Events

    def _emit(self, event: values.Event, channel: str | None) -> None:
        if isinstance(event, values.Error):
            event = replace(event, url=self._url, transport="websocket")
        self._events.append((self._handlers_of(channel)[type(event)], event))
        if self._dispatcher is None:
            self._dispatcher = self._spawn(self._dispatch())

    async def _dispatch(self) -> None:
        while self._events:
            handlers, event = self._events.popleft()
            if len(self._events) == EVENTS_MAX // 2:
                self._room.set()
            await handlers.handle(event)
        self._dispatcher = None

    # The socket

    async def _serve(self, link: int, outgoing: asyncio.Queue[bytes | None]) -> None:
        machine = self._machine
        try:
            socket = await connect(
                self._url,
                subprotocols=[Subprotocol(machine.codec.subprotocol)],
                open_timeout=None,  # the machine has its own
                ping_interval=None,  # the hub pings
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MESSAGE_BYTES_MAX,
                **self._options,
            )
        except InvalidStatus as exc:
            wait_s = retry_after_s(exc.response.headers.get("Retry-After"), time.time())
            body = (exc.response.body or b"")[:ANSWER_BYTES_MAX].decode(errors="replace").strip()
            answer = f"HTTP {exc.response.status_code}{body and f': {body}'}"
            return self.carry_out(machine.refused(link, exc, wait_s, self.now, answer))
        except (OSError, EOFError, WebSocketException) as exc:
            return self.carry_out(machine.refused(link, exc, 0.0, self.now, self._unanswered(exc)))
        self._opening, self._socket = None, socket
        self._spawn(self._write(socket, outgoing))
        self.carry_out(machine.opened(link, self.now))
        try:
            while True:
                message = await socket.recv(decode=False)
                self.carry_out(machine.received(link, message, self.now))
                if len(self._events) > EVENTS_MAX:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosed:
            code, reason = socket.close_code or _NO_CLOSE_FRAME, socket.close_reason or ""
            self.carry_out(machine.lost(link, code, reason, self.now))
            outgoing.put_nowait(None)

    def _unanswered(self, error: Exception) -> str:
        """What failed where no HTTP answer came, and what to do."""
        what = f"no hub answered at {self._url}: {error or type(error).__name__}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{what}; trust its authority by ssl_context"
        if isinstance(error, ssl.SSLError):
            return f"{what}; if the port does not speak TLS, give ws:// or http://"
        return f"{what}; is it running there?"

    async def _write(self, socket: ClientConnection, outgoing: asyncio.Queue[bytes | None]) -> None:
        while (message := await outgoing.get()) is not None:
            with suppress(ConnectionClosed):  # the reader is told
                await socket.send(message, text=not self._machine.codec.binary)
            outgoing.task_done()
        outgoing.task_done()

    def _close(self) -> None:
        self._room.set()  # who reads is to see the end
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._socket is not None:
            self._spawn(_say_goodbye(self._socket, self._outgoing))
            self._socket = None


async def _say_goodbye(socket: ClientConnection, outgoing: asyncio.Queue[bytes | None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await outgoing.join()
    await socket.close()


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return  # who asked was cancelled
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
