"""What travels through Redis and lies there: MessagePack, with payloads as the bytes they came as.

JSON text is a byte string; another form of payload is an extension type of MessagePack, `BINARY` or `PACKED`.

An envelope is `[offset, epoch, body]`; the offset and the epoch are written by Redis itself where the
channel keeps history. A body, which is also what a stream's entry holds, is `[kind, data, info, tags, time]`.
A reader passes over what a later version may add at an array's end.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.msgpack import Ext

from hub.protocol.messages import NO_PAYLOAD, ClientInfo, DeltaPublication, Payload, Publication
from hub.protocol.payloads import Packed

PUBLICATION: Final = 0
JOIN: Final = 1
LEAVE: Final = 2
DELTA_PUBLICATION: Final = 3

BINARY: Final = 1
PACKED: Final = 2

UNNUMBERED: Final = b"\x93\x00\xa0"
"""Begins the envelope of a body that is in no history."""


class Info(Struct, array_like=True, gc=False):
    """A `ClientInfo`."""

    user: str
    client: str
    conn_info: bytes | Ext | None = None
    chan_info: bytes | Ext | None = None


class Body(Struct, array_like=True, gc=False):
    """What is sent, but for its position."""

    kind: int
    data: bytes | Ext | None = None
    info: Info | None = None
    tags: dict[str, str] | None = None
    time: int = 0


class Envelope(Struct, array_like=True, gc=False):
    """A body with its position; offset 0 and an empty epoch where it is in no history."""

    offset: int
    epoch: str
    body: Body


_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(Body)
_info_decoder = msgspec.msgpack.Decoder(Info)

decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
"""Read an envelope. Raises `msgspec.MsgspecError` where it is none."""


def encode_body(
    kind: int,
    data: Payload = NO_PAYLOAD,
    info: ClientInfo | None = None,
    tags: dict[str, str] | None = None,
    time: int = 0,
) -> bytes:
    return _encoder.encode((kind, _bytes(data), None if info is None else _flat(info), tags, time))


def decode_entry(offset: int, body: bytes) -> Publication:
    """The publication of a stream's entry."""
    return publication_of(offset, _body_decoder.decode(body))


def publication_of(offset: int, body: Body) -> Publication:
    info = None if body.info is None else _client(body.info)
    made = DeltaPublication if body.kind == DELTA_PUBLICATION else Publication
    return made(_payload(body.data), info, offset, body.tags, False, body.time)


def info_of(body: Body) -> ClientInfo:
    """The client of a join or a leave."""
    return ClientInfo() if body.info is None else _client(body.info)


def encode_info(info: ClientInfo) -> bytes:
    return _encoder.encode(_flat(info))


def decode_info(data: bytes) -> ClientInfo:
    return _client(_info_decoder.decode(data))


def _flat(info: ClientInfo) -> Info:
    return Info(info.user, info.client, _bytes(info.conn_info), _bytes(info.chan_info))


def _client(info: Info) -> ClientInfo:
    return ClientInfo(info.user, info.client, _payload(info.conn_info), _payload(info.chan_info))


def _bytes(payload: Payload) -> bytes | Ext | None:
    if isinstance(payload, Raw):
        return bytes(payload)
    if isinstance(payload, Packed):
        return Ext(PACKED, payload.data)
    return Ext(BINARY, payload) if isinstance(payload, bytes) else None


def _payload(data: bytes | Ext | None) -> Payload:
    if isinstance(data, Ext):
        octets = bytes(data.data)
        return Packed(octets) if data.code == PACKED else octets
    return NO_PAYLOAD if data is None else Raw(data)
