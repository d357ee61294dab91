"""An encoding is a codec and a framing: all that turns messages into the bytes of one kind of socket.

Subscribers with the same encoding share the same bytes, so it is the key by which a fan-out is grouped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hub.protocol import frames
from hub.protocol.json import JSONCodec
from hub.protocol.messages import Command, Fault, Reply

FRAME_BYTES_MAX: Final = 65_536
"""Messages that leave together are joined into frames up to this size: some clients refuse larger ones."""


class Codec(Protocol):
    """Bytes into commands, replies into bytes."""

    name: str

    def decode(self, data: bytes) -> list[Command | Fault]:
        """Read the commands of one message. Never raises for what a peer sent: a `Fault` takes its place."""

    def encode(self, reply: Reply) -> bytes:
        """One reply, not yet joined with others."""

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Several encoded replies as one message."""


@dataclass(frozen=True, eq=False, slots=True)
class Encoding:
    """A codec and a framing. Compared by identity: use the module's instances.

    Args:
        codec: how one message is encoded.
        frame: how a message of joined replies is framed; None where the server under it frames.
    """

    codec: Codec
    frame: Callable[[bytes], bytes] | None

    def pack(self, messages: Sequence[bytes]) -> bytes:
        """Join encoded messages, in order, into bytes for `Transport.write`."""
        if self.frame is None:
            return self.codec.join(messages)
        if len(messages) == 1:
            return self.frame(messages[0])
        packed: list[bytes] = []
        batch: list[bytes] = []
        size = 0
        for message in messages:
            if batch and size + len(message) >= FRAME_BYTES_MAX:
                packed.append(self.frame(self.codec.join(batch)))
                batch, size = [], 0
            batch.append(message)
            size += len(message) + 1
        packed.append(self.frame(self.codec.join(batch)))
        return b"".join(packed)


def _text_frame(message: bytes) -> bytes:
    return frames.encode(frames.Opcode.TEXT, message)


def _compressed_text_frame(message: bytes) -> bytes:
    return frames.encode_compressed(frames.Opcode.TEXT, message)


_JSON: Final = JSONCodec()

JSON_FRAMES: Final = Encoding(_JSON, _text_frame)
"""JSON in WebSocket text frames, for a transport that writes frames itself."""

JSON_COMPRESSED: Final = Encoding(_JSON, _compressed_text_frame)
"""JSON in WebSocket text frames, for clients that share compressed ones."""

JSON_MESSAGES: Final = Encoding(_JSON, None)
"""JSON in whole messages, for a transport whose server frames them."""
