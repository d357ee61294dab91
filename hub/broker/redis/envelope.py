"""What travels through Redis and lies there: MessagePack, with payloads as the bytes they came as.

JSON text is a byte string; another form of payload is an extension type of MessagePack, `BINARY` or `PACKED`.

An envelope is `[offset, epoch, body]`; the offset and the epoch are written by Redis itself where the
channel keeps history. A body, which is also what a stream's entry holds, is `[kind, data, info, tags, time]`.

This is version 1. A later version may add elements at the end of an array, which a reader passes over, and
kinds, which a reader ignores. Whatever else a reader cannot read raises `Unreadable`, so that bytes which the
hub did not write never reach a client.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.msgpack import Ext

from hub.protocol.json import one_line
from hub.protocol.messages import NO_PAYLOAD, ClientInfo, DeltaPublication, Payload, Publication
from hub.protocol.msgpack import checked
from hub.protocol.payloads import Packed

PUBLICATION: Final = 0
JOIN: Final = 1
LEAVE: Final = 2
DELTA_PUBLICATION: Final = 3

BINARY: Final = 1
PACKED: Final = 2

UNNUMBERED: Final = b"\x93\x00\xa0"
"""Begins the envelope of a body that is in no history."""

Unreadable: Final = (ValueError, TypeError, LookupError, RecursionError)
"""What reading raises, to be caught. `msgspec.MsgspecError` and `UnicodeDecodeError` are `ValueError`s or
below."""


class Info(Struct, array_like=True, gc=False):
    """A `ClientInfo`."""

    user: str
    client: str
    conn_info: bytes | Ext | None = None
    chan_info: bytes | Ext | None = None


class Body(Struct, array_like=True, gc=False):
    """What is sent, without its position."""

    kind: int
    data: bytes | Ext | None = None
    info: Info | None = None
    tags: dict[str, str] | None = None
    time: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0


class Envelope(Struct, array_like=True, gc=False):
    """A body with its position; offset 0 and an empty epoch where it is in no history."""

    offset: Annotated[int, Meta(ge=0)]
    epoch: str
    body: Body


_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(Body)
_info_decoder = msgspec.msgpack.Decoder(Info)
_check_json = msgspec.json.Decoder(Raw).decode
"""Raises where bytes are no JSON text. It does not check that strings are UTF-8."""

decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


def encode_body(
    kind: int,
    data: Payload = NO_PAYLOAD,
    info: ClientInfo | None = None,
    tags: dict[str, str] | None = None,
    time: int = 0,
) -> bytes:
    return _encoder.encode(
        (
            kind,
            bytes(data) if isinstance(data, Raw) else _bytes(data),
            None if info is None else _flat(info),
            tags,
            time,
        )
    )


def decode_entry(offset: int, body: bytes) -> Publication:
    """The publication of a stream's entry. Raises `Unreadable`."""
    decoded = _body_decoder.decode(body)
    if decoded.kind not in (PUBLICATION, DELTA_PUBLICATION):
        raise ValueError(f"kind {decoded.kind} is no publication")
    return publication_of(offset, decoded)


def publication_of(offset: int, body: Body) -> Publication:
    """The publication of a body. Raises `Unreadable`."""
    data = body.data
    payload: Payload
    payload = _payload(data)
    info = None if body.info is None else _client(body.info)
    if body.kind == DELTA_PUBLICATION:
        return DeltaPublication(payload, info, offset, body.tags, False, body.time)
    return Publication(payload, info, offset, body.tags, False, body.time)


def info_of(body: Body) -> ClientInfo:
    """The client of a join or a leave. Raises `Unreadable`."""
    return ClientInfo() if body.info is None else _client(body.info)


def encode_info(info: ClientInfo) -> bytes:
    return _encoder.encode(_flat(info))


def decode_info(data: bytes) -> ClientInfo:
    """A client's info in presence. Raises `Unreadable`."""
    return _client(_info_decoder.decode(data))


def _flat(info: ClientInfo) -> Info:
    conn, chan = info.conn_info, info.chan_info
    return Info(
        info.user,
        info.client,
        _bytes(conn) if conn is not NO_PAYLOAD else None,
        _bytes(chan) if chan is not NO_PAYLOAD else None,
    )


def _client(info: Info) -> ClientInfo:
    conn, chan = info.conn_info, info.chan_info
    return ClientInfo(
        info.user,
        info.client,
        NO_PAYLOAD if conn is None else _payload(conn),
        NO_PAYLOAD if chan is None else _payload(chan),
    )


def _bytes(payload: Payload) -> bytes | Ext | None:
    if isinstance(payload, Raw):
        return bytes(payload)
    if isinstance(payload, Packed):
        return Ext(PACKED, payload.data)
    return Ext(BINARY, payload) if isinstance(payload, bytes) else None


def _payload(data: bytes | Ext | None) -> Payload:
    if data is None:
        return NO_PAYLOAD
    if isinstance(data, bytes):
        _check_json(data)
        if not data.isascii():
            str(data, "utf-8")
        return one_line(data) if b"\n" in data or b"\r" in data else Raw(data)
    octets = bytes(data.data)
    if data.code == BINARY:
        return octets
    if data.code != PACKED:
        raise ValueError(f"a payload of form {data.code}")
    return checked(octets)
