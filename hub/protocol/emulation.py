"""What is posted to `/emulation`, in JSON or Protobuf, for connections that carry nothing from the client."""

from __future__ import annotations

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct

from hub.protocol import client_pb2
from hub.protocol.json import MalformedError, fault_of
from hub.protocol.messages import EmulationRequest


class _Text(Struct):
    node: str
    session: str
    data: str


_decoder = msgspec.json.Decoder(_Text)


def from_json(body: bytes) -> EmulationRequest:
    """Read a request whose commands are text.

    Raises:
        MalformedError: it is none.
    """
    try:
        text = _decoder.decode(body.decode())  # msgspec does not check the text of other fields
        return EmulationRequest(text.node, text.session, text.data.encode())
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise MalformedError(fault_of(body, exc)) from None
    except RecursionError as exc:
        raise MalformedError(str(exc)) from None


def from_protobuf(body: bytes) -> EmulationRequest:
    """Read a request whose commands are Protobuf.

    Raises:
        MalformedError: it is none.
    """
    try:
        message = client_pb2.EmulationRequest.FromString(body)
    except DecodeError as exc:
        raise MalformedError(str(exc)) from None
    return EmulationRequest(message.node, message.session, message.data)
