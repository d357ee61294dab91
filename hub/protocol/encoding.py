"""An encoding is a codec and a framing: all that turns messages into the bytes of one kind of socket.

Subscribers with the same encoding share the same bytes, so it is the key by which a fan-out is grouped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from hub.protocol import frames
from hub.protocol.json import JSONCodec
from hub.protocol.messages import PING, Command, Fault, Reply
from hub.protocol.msgpack import MessagePackCodec
from hub.protocol.protobuf import ProtobufCodec
from hub.protocol.pushes import PushCodec

FRAME_BYTES_MAX: Final = 65_536
"""Messages that leave together are joined into frames up to this size: some clients refuse larger ones."""


class Codec(Protocol):
    """Bytes into commands, replies into bytes."""

    name: str
    """For logs and metrics."""

    is_text: bool
    """Whether its messages are UTF-8, for frames that tell text from binary."""

    def decode(self, data: bytes) -> Iterable[Command | Fault]:
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
    ping: bytes = field(init=False)
    """The empty reply, packed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ping", self.pack([self.codec.encode(PING)]))

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


@dataclass(frozen=True, eq=False, slots=True)
class WebSocketEncodings:
    """One codec in every framing that a WebSocket may have.

    Args:
        frames: for a transport that writes frames itself.
        compressed: for clients that share compressed frames.
        messages: for a transport whose server frames.
    """

    frames: Encoding
    compressed: Encoding
    messages: Encoding


def _over_websocket(codec: Codec) -> WebSocketEncodings:
    opcode = frames.Opcode.TEXT if codec.is_text else frames.Opcode.BINARY
    return WebSocketEncodings(
        Encoding(codec, partial(frames.encode, opcode)),
        Encoding(codec, lambda message: frames.encode_compressed(opcode, message)),
        Encoding(codec, None),
    )


JSON: Final = _over_websocket(JSONCodec())
PROTOBUF: Final = _over_websocket(ProtobufCodec())
MESSAGEPACK: Final = _over_websocket(MessagePackCodec())
PUSHES: Final = _over_websocket(PushCodec())

SUBPROTOCOLS: Final = {
    "centrifuge-json": JSON,
    "centrifuge-protobuf": PROTOBUF,
    "hub-msgpack": MESSAGEPACK,
}
"""By the name that a client offers in its handshake. One that offers none of these speaks JSON."""
