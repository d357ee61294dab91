"""Sockets without a network: a client reads what a node writes when a test says so, and the node notices."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from support.dialects import Dialect

from hub.node.connection import Connection
from hub.node.node import Node
from hub.protocol.codes import Disconnect


class Socket:
    """A `Transport`, and the client at its other end.

    Args:
        node: that the client connects to.
        dialect: what it speaks.
        unread_bytes_max: what the socket takes while the client does not read.
    """

    name = "socket"

    def __init__(self, node: Node, dialect: Dialect, *, unread_bytes_max: int = 2**30) -> None:
        self.dialect: Final = dialect
        self.encoding = dialect.encodings.messages
        self.closed: Disconnect | None = None
        self.bytes_in = 0
        """What the client has read."""
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._unread_bytes_max = unread_bytes_max
        self._is_paused = False
        self._last_id = 0
        # Clients here come all in one turn of the loop, and need not wait for theirs.
        node.admission.turns.take = lambda: True  # type: ignore[method-assign]
        self._connection: Connection = node.connections.accept(self, {})

    # What the node calls

    @property
    def write(self) -> Callable[[bytes], object]:
        return self._write

    def _write(self, data: bytes) -> None:
        assert not self._is_paused, "written to while it takes no more"
        assert not self.closed
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > self._unread_bytes_max:
            self._is_paused = True
            self._connection.on_write_paused()

    def close(self, disconnect: Disconnect) -> None:
        if not self.closed:
            self.closed = disconnect
            asyncio.get_running_loop().call_soon(self._connection.on_closed)

    def pause_reading(self) -> None:
        raise AssertionError("no client here sends as much")

    resume_reading = pause_reading

    # What the client does

    def send(self, **command: Any) -> int:
        """Send a command with the next id. Returns the id."""
        self._last_id += 1
        self._connection.on_messages([self.dialect.write({"id": self._last_id, **command})])
        return self._last_id

    def read(self) -> Sequence[Any]:
        """The replies that are there."""
        unread = list(self._unread)
        self._unread.clear()
        self.bytes_in += self._unread_bytes
        self._unread_bytes = 0
        if self._is_paused and not self.closed:
            self._is_paused = False
            self._connection.on_write_resumed()
        return [reply for message in unread for reply in self.dialect.read(message)]

    def cut(self) -> None:
        """The network fails: nothing more is read."""
        if not self.closed:
            self.closed = Disconnect(3000, "cut")
            self._connection.on_closing()
            self._connection.on_closed()
