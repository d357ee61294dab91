"""The encodings as others speak them: Python's own json, PyPI msgpack, and the Protobuf classes of an SDK."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
import msgspec
import websockets
from centrifuge.protocol import client_pb2 as theirs  # type: ignore[import-untyped]

from hub.protocol import client_pb2 as ours
from hub.protocol.encoding import SUBPROTOCOLS, Codec, WebSocketEncodings
from hub.protocol.payloads import octets, value

ALWAYS_WRITTEN: Final[dict[str, dict[str, Any]]] = {
    "ClientInfo": {"user": "", "client": ""},
    "PresenceResult": {"presence": {}},
    "PresenceStatsResult": {"num_clients": 0, "num_users": 0},
    "HistoryResult": {"publications": [], "epoch": "", "offset": 0},
    "ErrorMessage": {"code": 0, "message": ""},
    "UnsubscribePush": {"code": 0, "reason": ""},
    "DisconnectPush": {"code": 0, "reason": ""},
}
"""Fields, by message, that are in JSON and MessagePack even if they are zero or empty."""


def from_protobuf(message: Any) -> dict[str, Any]:
    """The fields of a message that are set, payloads as bytes."""
    fields = {}
    for field, content in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            of_message = kind.fields_by_name["value"].message_type is not None
            content = {key: from_protobuf(item) if of_message else item for key, item in content.items()}
        elif field.is_repeated:
            content = [from_protobuf(item) if kind is not None else item for item in content]
        elif kind is not None:
            content = from_protobuf(content)
        fields[field.name] = content
    return fields


def read_json(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.split(b"\n")]


def read_protobuf(data: bytes) -> list[Any]:
    replies = []
    while data:
        size = shift = 0
        while True:
            byte, data = data[0], data[1:]
            size, shift = size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        replies.append(from_protobuf(theirs.Reply.FromString(data[:size])))
        data = data[size:]
    return replies


def read_msgpack(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(strict_map_key=True)
    unpacker.feed(data)
    return list(unpacker)


def write_json(command: Any) -> bytes:
    return json.dumps(command).encode()


NEWER_FIELDS: Final = {
    "PublishRequest": {"type", "key", "removed", "idempotency_key"},
    "SubscribeRequest": {"type", "phase"},
    "ConnectResult": {"idempotency_ttl"},
    "ConnectPush": {"idempotency_ttl"},
}
"""Fields, by message, that the SDK from PyPI does not have in Protobuf."""


def write_protobuf(command: Any) -> bytes:
    try:
        message = theirs.Command(**command)
    except ValueError:  # it has one of `NEWER_FIELDS`
        message = ours.Command(**command)
    return delimited(message.SerializeToString())


def delimited(data: bytes) -> bytes:
    """Bytes behind their length as a varint."""
    head, size = b"", len(data)
    while size > 0x7F:
        head += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return head + bytes((size,)) + data


def in_json(data: Any) -> Any:
    """A payload as its JSON subscribers see it."""
    return json.loads(msgspec.json.encode(value(data)))


@dataclass(frozen=True)
class Dialect:
    """How others speak an encoding.

    Args:
        subprotocol: its name.
        read: replies out of a message.
        write: a command as a message.
        shows: a payload as a client is shown it.
    """

    subprotocol: str
    read: Callable[[bytes], list[Any]]
    write: Callable[[Any], bytes]
    shows: Callable[[Any], Any]

    @property
    def encodings(self) -> WebSocketEncodings:
        return SUBPROTOCOLS[self.subprotocol]

    @property
    def codec(self) -> Codec:
        return self.encodings.messages.codec


DIALECTS: Final = {
    "json": Dialect("centrifuge-json", read_json, write_json, in_json),
    "protobuf": Dialect("centrifuge-protobuf", read_protobuf, write_protobuf, octets),
    "msgpack": Dialect("hub-msgpack", read_msgpack, msgpack.packb, value),
}


class Speaker:
    """A client that speaks an encoding over a WebSocket, and is connected.

    Args:
        dialect: its.
        websocket: open.
    """

    def __init__(self, dialect: Dialect, websocket: websockets.ClientConnection) -> None:
        self.dialect = dialect
        self.websocket = websocket
        self._pushes: deque[Any] = deque()
        self._replies: deque[Any] = deque()

    async def send(self, data: bytes, *, text: bool | None = None) -> None:
        """Send a message, in frames of the encoding's kind unless it is said of which."""
        await self.websocket.send(data, text=self.dialect.codec.is_text if text is None else text)

    async def ask(self, method: str, /, **fields: Any) -> Any:
        """Send a command, and take its result, or the error that it is answered with."""
        await self.send(self.dialect.write({"id": 9, method: fields}))
        return await self.answer(method)

    async def answer(self, method: str) -> Any:
        """The next reply that is no push: its result, or its error."""
        while not self._replies:
            await self._receive()
        reply = self._replies.popleft()
        return reply.get("error", reply.get(method))

    async def push(self) -> Any:
        """The next push."""
        while not self._pushes:
            await self._receive()
        return self._pushes.popleft()

    async def _receive(self) -> None:
        received = await self.websocket.recv()
        assert isinstance(received, str) == self.dialect.codec.is_text
        data = received.encode() if isinstance(received, str) else received
        for reply in self.dialect.read(data):
            if "push" in reply:
                self._pushes.append(reply["push"])
            elif reply:
                self._replies.append(reply)
            else:
                await self.send(self.dialect.write({}))


@contextlib.asynccontextmanager
async def speaking(dialect: Dialect, url: str, *, token: str = "", **options: Any) -> AsyncIterator[Speaker]:
    """A client that is connected.

    Args:
        dialect: what it speaks.
        url: of the WebSocket endpoint.
        token: its connection token.
        options: of `websockets.connect`.
    """
    subprotocols = [websockets.Subprotocol(dialect.subprotocol)]
    async with websockets.connect(url, subprotocols=subprotocols, **options) as websocket:
        speaker = Speaker(dialect, websocket)
        connected = await speaker.ask("connect", **({"token": token} if token else {}))
        assert connected["client"], connected
        yield speaker
