"""A WebSocket over a gevent socket: websockets' parser without its I/O. Locust has patched Python before."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

READ_BYTES = 65_536
MESSAGE_BYTES_MAX = 16_777_216
NO_CLOSE_FRAME = 1006
HEAD_END = b"\r\n\r\n"
WHOLE = (0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY)
"""How a frame begins that is a message by itself."""


class Link:
    """One socket, opened at once.

    Args:
        url: of the WebSocket endpoint.
        subprotocol: to ask for.
        binary: whether messages are binary, and not text.
        timeout_s: how long opening it may take.

    Raises:
        OSError: nobody answers there.
        InvalidHandshake: the answer is no WebSocket's; `InvalidStatus` has its status and headers.
    """

    def __init__(self, url: str, subprotocol: str, *, binary: bool, timeout_s: float) -> None:
        uri = parse_uri(url)
        self._binary = binary
        self._protocol = ClientProtocol(
            uri, subprotocols=[Subprotocol(subprotocol)], max_size=MESSAGE_BYTES_MAX
        )
        self._unsent: list[bytes] = []
        self._sending = False
        self._parts: list[bytes] = []
        self._data = b""
        """What came behind the last whole frame."""
        self._socket = socket.create_connection((uri.host, uri.port), timeout=timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if uri.secure:
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=uri.host)
            self._shake_hands()
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise

    @property
    def close_code(self) -> int:
        """Of the close frame that came, 1006 where none did."""
        return self._protocol.close_code or NO_CLOSE_FRAME

    @property
    def close_reason(self) -> str:
        """Of the close frame that came."""
        return self._protocol.close_reason or ""

    def messages(self) -> Iterator[bytes]:
        """What comes, message by message, until the link is over."""
        with suppress(OSError):
            while True:
                yield from self._split()
                data = self._socket.recv(READ_BYTES)
                if not data:
                    self._protocol.receive_eof()
                    return
                self._data += data

    def write(self, message: bytes) -> None:
        """Send a message. A link that is over takes it and loses it."""
        with suppress(Exception):  # the reader sees the end, and says why
            (self._protocol.send_binary if self._binary else self._protocol.send_text)(message)
            self._send()

    def close(self) -> None:
        """Say goodbye, and wait for no answer."""
        with suppress(Exception):
            self._protocol.send_close(1000)
            self._send()
        self.abort()

    def abort(self) -> None:
        """Be gone without a goodbye, as a phone in a tunnel."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _shake_hands(self) -> None:
        protocol = self._protocol
        protocol.send_request(protocol.connect())
        self._send()
        while HEAD_END not in self._data:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise InvalidHandshake("the connection closed in the handshake")
            self._data += data
        head, end, self._data = self._data.partition(HEAD_END)
        protocol.receive_data(head + end)
        while not protocol.events_received() and protocol.handshake_exc is None:  # the body of a refusal
            data, self._data = self._data or self._socket.recv(READ_BYTES), b""
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc

    def _send(self) -> None:
        """Send what the parser has to say, one greenlet at a time: a send may stop amid a frame."""
        self._unsent += [data for data in self._protocol.data_to_send() if data]
        if self._sending:
            return
        self._sending = True
        try:
            while self._unsent:
                data = b"".join(self._unsent)
                self._unsent.clear()
                self._socket.sendall(data)
        finally:
            self._sending = False

    def _split(self) -> Iterator[bytes]:
        """The messages that are whole. The parser gets what is more than a frame with one: it takes 20 µs."""
        data, at = self._data, 0
        while len(data) - at >= 2:
            first, size = data[at], data[at + 1]
            body = at + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                if body > len(data):
                    break
                size = int.from_bytes(data[at + 2 : body], "big")
            end = body + size
            if end > len(data) and size <= MESSAGE_BYTES_MAX:
                break
            if first in WHOLE and size <= MESSAGE_BYTES_MAX and not self._parts:
                yield data[body:end]
            else:
                self._protocol.receive_data(data[at:end])
                self._send()
                yield from self._whole(self._protocol.events_received())
            at = end
        self._data = data[at:]

    def _whole(self, events: Sequence[object]) -> Iterator[bytes]:
        for event in events:
            if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                continue
            if event.fin and not self._parts:
                yield bytes(event.data)
            else:
                self._parts.append(bytes(event.data))
                if event.fin:
                    yield b"".join(self._parts)
                    self._parts.clear()
