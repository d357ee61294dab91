"""Replies in the body of an HTTP response that goes on: as lines, or as the events of an EventSource."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hub.protocol.codes import Disconnect
from hub.protocol.encoding import JSON, PROTOBUF, PUSHES, Codec, Encoding
from hub.protocol.messages import DisconnectPush, Push, Reply

LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a body in chunks."""


@dataclass(frozen=True, eq=False, slots=True)
class Streaming:
    """How messages stream. Each way has its own encoding, whose bytes all its subscribers share.

    Args:
        media_type: of the response.
        chunks: for a transport that writes the chunks of HTTP/1.1 itself.
        body: for one whose server does.
    """

    media_type: str
    chunks: Encoding
    body: Encoding


def chunk(data: bytes) -> bytes:
    """Bytes as one chunk of a body (RFC 9112 section 7.1); not empty, which would be its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def lines(message: bytes) -> bytes:
    """A message of one or more lines, each ended."""
    return message + b"\n"


def events(message: bytes) -> bytes:
    """A message of one or more lines as so many events (HTML standard, section 9.2.5)."""
    if b"\r" in message:
        # It may stand between the tokens of a payload, and would end a line here.
        message = message.replace(b"\r", b" ")
    return b"data: " + message.replace(b"\n", b"\n\ndata: ") + b"\n\n"


def _streaming(media_type: str, codec: Codec, frame: Callable[[bytes], bytes]) -> Streaming:
    chunks = Encoding(codec, lambda message: chunk(frame(message)))
    return Streaming(media_type, chunks, Encoding(codec, frame))


_LINES: Final = "application/x-ndjson"
_EVENTS: Final = "text/event-stream"

JSON_LINES: Final = _streaming(_LINES, JSON.messages.codec, lines)
"""JSON replies, a line each."""

JSON_EVENTS: Final = _streaming(_EVENTS, JSON.messages.codec, events)
"""JSON replies, an event each."""

PROTOBUF_MESSAGES: Final = _streaming("application/octet-stream", PROTOBUF.messages.codec, bytes)
"""Protobuf replies, each behind its length."""

PUSH_LINES: Final = _streaming(_LINES, PUSHES.messages.codec, lines)
"""JSON pushes, a line each."""

PUSH_EVENTS: Final = _streaming(_EVENTS, PUSHES.messages.codec, events)
"""JSON pushes, an event each."""


def farewell(encoding: Encoding, disconnect: Disconnect) -> bytes:
    """The last message of a stream: why it ends."""
    push = DisconnectPush(disconnect.code, disconnect.reason, disconnect.reconnect)
    return encoding.pack([encoding.codec.encode(Reply(push=Push(disconnect=push)))])
