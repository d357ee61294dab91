"""Messages between the nodes of a hub. Those that change state are in a log.

A node applies the messages of the log in their order, each once. While its connection to the broker is whole
they arrive by themselves. After a break the node reads what it missed, and until then `is_catching_up` is
true. Messages whose type, version or bytes a node does not know are counted and ignored.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hub.broker.base import BUS_LOG_MAX, Broker, BusLog
from hub.errors import BrokerError
from hub.node.boundary import Boundary
from hub.node.bus_messages import (
    LOGGED_BYTES_MAX,
    AnyMessage,
    BusMessage,
    Logged,
    UnknownError,
    UnreadableError,
    decode,
    encode,
)
from hub.node.environment import Clock
from hub.node.tasks import Tasks
from hub.telemetry import Metrics, get_logger

CHECK_PERIOD_S: Final = 3.0
"""How often a node looks whether the log holds a message that did not arrive."""

READ_MAX: Final = 500
"""Messages read from the log at a time."""

EARLY_MAX: Final = 10_000
"""Messages held back while the log is read; past this it is read once more."""

RETRY_S: Final = 0.5
"""How long after a read of the log that failed the next one is made."""

REPEAT_S: Final = 120.0
"""Of its own messages, a node appends those of so many seconds again where the broker lost the log."""

REPEAT_BYTES_MAX: Final = 4_194_304
"""Bytes of them that it keeps for that at the most."""

_log = get_logger("hub.bus")


class Bus:
    """What a node says to the others, and hears from them.

    Args:
        node: id of this node.
        broker: carries the messages and keeps the log.
        tasks: own what nobody waits for.
        boundary: records what a handler raises.
        metrics: count messages by type and outcome.
        clock: of the node.
        on_catching_up: called when `is_catching_up` changes.
        on_missed: called where the log was cut before this node had read it: nobody knows what it missed.
    """

    def __init__(
        self,
        node: str,
        broker: Broker,
        tasks: Tasks,
        boundary: Boundary,
        metrics: Metrics,
        clock: Clock,
        on_catching_up: Callable[[bool], None],
        on_missed: Callable[[], None],
    ) -> None:
        self.node: Final = node
        self.is_catching_up = False
        self._broker = broker
        self._tasks = tasks
        self._boundary = boundary
        self._metrics = metrics
        self._on_catching_up = on_catching_up
        self._on_missed = on_missed
        self._unix = clock.unix
        self._began = clock.unix()
        self._is_replaying = False
        """Whether the log is read from its beginning: what is older than this node does not concern it."""
        self._handlers: dict[type[BusMessage], Callable[[Any], None]] = {}
        self._position: str | None = None
        """Id of the newest entry of the log that was applied; None before the log was first read."""
        self._early: list[tuple[bytes, str, str]] = []
        """What arrived while the log was read."""
        self._applied: OrderedDict[str, None] = OrderedDict()
        """Ids of the newest messages that were applied."""
        self._own: deque[tuple[Logged, int]] = deque()
        """This node's newest messages in the log, with their sizes in bytes."""
        self._own_bytes = 0
        self._unsent: deque[Logged] = deque(maxlen=BUS_LOG_MAX)
        """Messages that could not be appended and that nobody waits for."""
        self._last = 0
        self._current = asyncio.Event()
        self._current.set()
        self._reading = asyncio.Lock()
        self._must_read_again = False

    def handle(self, kind: type[BusMessage], handler: Callable[[Any], None]) -> None:
        """Have messages of a type of other nodes passed to a handler. It must not block."""
        self._handlers[kind] = handler

    async def start(self) -> None:
        """Begin to follow the log, from its newest message: what it holds already concerns other lives."""
        with suppress(BrokerError):  # the first read after the connection is made takes its place
            self._position = (await self._broker.read_bus("", 0)).last
        self._tasks.supervise("bus", self._check_forever)

    def next_id(self) -> str:
        """An id for a message of the log."""
        self._last += 1
        return f"{self.node}-{self._last}"

    def send(self, message: AnyMessage, to: str = "") -> Future[int]:
        """Send a message that is not kept, to every node or to one. Returns how many it went to."""
        message.node = self.node
        self._count(message, "sent")
        return self._broker.send_bus(encode(message), to)

    def append(self, message: Logged) -> Future[str]:
        """Append a message to the log. Once that is done no node will miss it.

        Raises:
            ValueError: the message is larger than `LOGGED_BYTES_MAX`.
        """
        message.node = self.node
        message.id = message.id or self.next_id()
        message.at = message.at or self._unix()
        data = encode(message)
        if len(data) > LOGGED_BYTES_MAX:
            raise ValueError(f"a message of the log is at most {LOGGED_BYTES_MAX} bytes, not {len(data)}")
        self._own.append((message, len(data)))
        self._own_bytes += len(data)
        while self._own_bytes > REPEAT_BYTES_MAX or self._own[0][0].at < message.at - REPEAT_S:
            self._own_bytes -= self._own.popleft()[1]
        self._remember(message)
        self._count(message, "sent")
        return self._broker.append_bus(data)

    def append_surely(self, message: Logged) -> None:
        """Append a message that nobody waits for, once the broker is there again if it is away now."""

        def done(future: Future[str]) -> None:
            if future.cancelled() or future.exception() is not None:
                self._tasks.outcome(future)
                self._unsent.append(message)

        self.append(message).add_done_callback(done)

    async def caught_up(self, timeout_s: float) -> bool:
        """Wait until nothing is missed. Returns False where that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._current.wait()
        except TimeoutError:
            return False
        return True

    # What the broker brings

    def on_message(self, data: bytes, entry: str, before: str) -> None:
        """A message arrived.

        Args:
            data: the message.
            entry: id of its entry in the log; empty for a message that is not in the log.
            before: id of the entry before it, so that a message that did not arrive is noticed.
        """
        if entry and self._reading.locked():
            if len(self._early) < EARLY_MAX:
                self._early.append((data, entry, before))
            return
        message = self._decode(data)
        if not entry:
            if isinstance(message, Logged):
                self._count(message, "unreadable")  # it comes through the log alone
            elif message is not None:
                self._hand_over(message)
        elif before == self._position:
            self._position = entry
            self._apply(message)
        elif self._position is not None and _order(entry) <= _order(self._position):
            self._metrics.bus_messages.labels("logged", "duplicate").inc()
        elif message is not None:
            self.on_gap()  # something before it did not arrive: both are in the log

    def on_gap(self) -> None:
        """The connection was broken and is whole again: messages may have been missed."""
        if self.is_catching_up:
            self._must_read_again = True
        else:
            self._catching_up(True)
            self._tasks.spawn(self._catch_up(), "bus")

    def _decode(self, data: bytes) -> AnyMessage | None:
        """The message, or None where it is not one that this release knows, which is counted."""
        try:
            return decode(data)
        except UnknownError as error:
            outcome, reason = "unknown", str(error)
        except UnreadableError as error:
            outcome, reason = "unreadable", str(error)
        self._metrics.bus_messages.labels("unknown", outcome).inc()
        self._boundary.ignored(f"a message between nodes: {reason}")
        return None

    def _apply(self, message: AnyMessage | None) -> None:
        """Do what the next message of the log asks for, once."""
        if not isinstance(message, Logged):
            return
        if message.id in self._applied:
            if message.node != self.node:
                self._count(message, "duplicate")
            return
        self._remember(message)
        if (self._is_replaying or message.again) and message.at < self._began:
            return  # it is older than this node
        self._hand_over(message)

    def _remember(self, message: Logged) -> None:
        self._applied[message.id] = None
        while len(self._applied) > 2 * BUS_LOG_MAX:
            self._applied.popitem(last=False)

    def _hand_over(self, message: AnyMessage) -> None:
        if message.node == self.node:
            return
        handler = self._handlers.get(type(message))
        if handler is None:
            self._count(message, "unknown")
            return
        try:
            handler(message)
        except Exception as error:
            self._count(message, "failed")
            self._boundary.failed("bus", error)
        else:
            self._count(message, "applied")

    # The log

    async def _check_forever(self) -> None:
        """Read what the log holds and did not arrive: a message may be lost without a broken connection."""
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            try:
                await self._read()
            except BrokerError:
                continue  # the next look, or the gap after the break, finds it

    async def _catch_up(self) -> None:
        try:
            while True:
                self._must_read_again = False
                try:
                    await self._read()
                except BrokerError:
                    await asyncio.sleep(RETRY_S)
                    continue
                if not self._must_read_again:
                    break
            unsent, self._unsent = list(self._unsent), deque(maxlen=BUS_LOG_MAX)
            for message in unsent:
                self.append_surely(message)
        finally:
            self._catching_up(False)

    async def _read(self) -> None:
        """Apply everything that the log holds after the position, then what arrived meanwhile."""
        async with self._reading:
            try:
                while not await self._read_some() or len(self._early) >= EARLY_MAX:
                    if len(self._early) >= EARLY_MAX:
                        self._early.clear()  # the log has them, and is read once more
            finally:
                early, self._early = self._early, []
        for message in early:
            self.on_message(*message)

    async def _read_some(self) -> bool:
        """Apply the next messages of the log. Returns whether there are no more."""
        position = self._position
        if position is None:  # this node began to serve while the broker was away
            self._position, self._is_replaying = "", True
            return False
        log = await self._broker.read_bus(position, READ_MAX)
        if position and not log.is_complete and self._lost(position, log):
            return False  # it is read from its beginning now
        for entry, data in log.entries:
            self._position = entry
            self._apply(self._decode(data))
        is_done = len(log.entries) < READ_MAX
        if is_done:
            self._is_replaying = False
        return is_done

    def _lost(self, position: str, log: BusLog) -> bool:
        """Entries after a position are gone. Returns whether the broker lost them, and did not trim them."""
        self._metrics.bus_messages.labels("logged", "lost").inc()
        _log.warning("bus.incomplete", position=position, last=log.last)
        if not log.is_lost:
            self._on_missed()
            return False
        # The log lacks its newest part, or all. Each node appends its own newest messages again; nodes apply
        # them once.
        self._position, self._is_replaying = "", True
        since = self._unix() - REPEAT_S
        for message, _ in list(self._own):
            if message.at >= since:
                message.again = True
                self._tasks.forget(self._broker.append_bus(encode(message)))
        return True

    def _catching_up(self, value: bool) -> None:
        self.is_catching_up = value
        if value:
            self._current.clear()
        else:
            self._current.set()
        self._on_catching_up(value)

    def _count(self, message: BusMessage, outcome: str) -> None:
        self._metrics.bus_messages.labels(message.__struct_config__.tag, outcome).inc()


def _order(entry: str) -> tuple[int, ...]:
    """The place of an entry in the log, from its id: numbers joined by dashes."""
    return tuple(int(part) for part in entry.split("-") if part)
