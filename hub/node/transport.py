"""What a connection and the socket under it are to each other, whatever the transport or the ASGI server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from hub.protocol.codes import Disconnect
from hub.protocol.encoding import Encoding

EXTENSION: Final = "hub.transport"
"""Where the hub's own server offers a `Transport`: a key of the ASGI scope's `extensions`. The function there
makes one, before the handshake or the request is answered; the transport's `attach` is called after it."""


class Receiver(Protocol):
    """What a transport calls, in the event loop's thread: the hub's connection, or an app's WebSocket."""

    def on_messages(self, messages: Sequence[bytes]) -> None:
        """Whole messages came at once (of a WebSocket: reassembled; text was checked to be UTF-8)."""

    def on_write_paused(self) -> None:
        """The socket takes no more for now: write nothing until `on_write_resumed`."""

    def on_write_resumed(self) -> None:
        """The socket takes bytes again."""

    def on_left(self) -> None:
        """The peer closes the socket of its own will: it does not mean to come back. `on_closing` follows."""

    def on_closing(self) -> None:
        """The socket takes nothing more, and is about to be gone."""

    def on_closed(self) -> None:
        """The socket is gone, by whoever's wish. Called once; nothing is called after it."""


class Transport(Protocol):
    """A socket that a client is on. No call blocks, and none raises for what the peer did."""

    encoding: Encoding
    """How messages become the bytes that `write` takes. Connections with one encoding share those bytes."""

    name: str
    """For logs and metrics: `websocket`, …"""

    @property
    def write(self) -> Callable[[bytes], object]:
        """Sends bytes that `encoding.pack` made.

        Not called between `on_write_paused` and `on_write_resumed`, nor after `close` or `on_closing`.
        """

    def close(self, disconnect: Disconnect) -> None:
        """End the connection and tell the client why. A peer that does not answer is cut off soon after."""

    def pause_reading(self) -> None:
        """Take nothing more from the peer until `resume_reading`."""

    def resume_reading(self) -> None:
        """Take from the peer again."""
