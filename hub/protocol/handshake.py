"""The opening handshake of a WebSocket, as a server reads and answers it (RFC 6455 section 4.2, RFC 7692)."""

from __future__ import annotations

from binascii import Error, a2b_base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.utils import accept_key

from hub.protocol.frames import WINDOW_BITS
from hub.protocol.heads import Headers, Refusal

_VERSION: Final = b"13"
_KEY_BYTES: Final = 16
_UPGRADE: Final = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"

# With no context takeover one compressed message serves all, and an idle client holds no window.
_DEFLATE: Final = ServerPerMessageDeflateFactory(True, True)


@dataclass(frozen=True, slots=True)
class Compression:
    """What was agreed on permessage-deflate.

    Args:
        header: for the response.
        window_bits: of the largest window that the client wants to hold for what it is sent.
    """

    header: str
    window_bits: int

    @property
    def is_shared(self) -> bool:
        """Whether the client takes the compressed frames that all others take."""
        return self.window_bits == WINDOW_BITS


@dataclass(frozen=True, slots=True)
class Handshake:
    """A client's half.

    Args:
        key: its Sec-WebSocket-Key.
        subprotocols: that it offers, in its order.
        compression: what is agreed; None where it offers none, or the server wants none.
    """

    key: str
    subprotocols: list[str]
    compression: Compression | None = None

    def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> bytes:
        """The server's half.

        Args:
            subprotocol: that was chosen; None for none.
            headers: of the app, to be sent besides.
        """
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(self.key)}",
        ]
        if subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        if self.compression:
            lines.append(f"Sec-WebSocket-Extensions: {self.compression.header}")
        lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in headers]
        return "\r\n".join((*lines, "\r\n")).encode("latin-1")


def read(headers: Sequence[tuple[bytes, bytes]], *, compresses: bool) -> Handshake | Refusal:
    """Read the head of a request that asks for an upgrade to a WebSocket.

    Args:
        headers: names in lower case.
        compresses: whether the server agrees to permessage-deflate.
    """
    keys: list[bytes] = []
    versions: list[bytes] = []
    subprotocols: list[str] = []
    extensions: list[str] = []
    for name, value in headers:
        if name == b"sec-websocket-key":
            keys.append(value)
        elif name == b"sec-websocket-version":
            versions.append(value)
        elif name == b"sec-websocket-protocol":
            subprotocols += [each.strip() for each in value.decode("latin-1").split(",")]
        elif name == b"sec-websocket-extensions":
            extensions.append(value.decode("latin-1"))
        elif (name == b"content-length" and value != b"0") or name == b"transfer-encoding":
            # A body would have to be read as HTTP before the first frame, which nobody sends on purpose.
            return Refusal("400 Bad Request", "a WebSocket handshake has no body")
    if versions != [_VERSION]:
        text = "this server speaks version 13 of the WebSocket protocol"
        return Refusal("426 Upgrade Required", text, _UPGRADE)
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal("400 Bad Request", "Sec-WebSocket-Key must be there once, and be 16 bytes in base64")
    try:
        compression = _agree(extensions) if compresses and extensions else None
    except InvalidHeader:
        return Refusal("400 Bad Request", "Sec-WebSocket-Extensions cannot be read")
    return Handshake(keys[0].decode(), subprotocols, compression)


def _is_key(key: bytes) -> bool:
    try:
        return len(a2b_base64(key, strict_mode=True)) == _KEY_BYTES
    except Error:
        return False


def _agree(extensions: Sequence[str]) -> Compression | None:
    """The first offer of permessage-deflate that can be met (RFC 7692 section 5)."""
    for value in extensions:
        for name, parameters in parse_extension(value):
            if name == _DEFLATE.name:
                try:
                    agreed, deflate = _DEFLATE.process_request_params(parameters, [])
                except NegotiationError:
                    continue
                assert isinstance(deflate, PerMessageDeflate)
                return Compression(build_extension([(name, agreed)]), deflate.local_max_window_bits)
    return None
