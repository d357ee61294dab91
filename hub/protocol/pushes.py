"""The one-way encoding: JSON pushes with no reply around them, for clients that only listen."""

from __future__ import annotations

from typing import Final

import msgspec

from hub.protocol.json import JSONCodec, MalformedError, check
from hub.protocol.messages import Command, ConnectRequest, Fault, Push, Reply

CONNECT_ID: Final = 1
"""The id of the one command that such a client sends."""


class PushCodec(JSONCodec):
    """JSON pushes out; the connect request, in a command or as it is, in."""

    name = "json-push"

    def __init__(self) -> None:
        super().__init__()
        self._request = msgspec.json.Decoder(ConnectRequest)

    def decode(self, data: bytes) -> list[Command | Fault]:
        """Read the connect request. Nothing at all is one that asks for nothing."""
        data = data or b"{}"
        try:
            value = check(data)
            if isinstance(value, dict) and "connect" in value:
                return [Command(CONNECT_ID, self._decoder.decode(data).connect)]
            return [Command(CONNECT_ID, self._request.decode(data))]
        except (msgspec.MsgspecError, MalformedError) as exc:
            return [Fault(0, str(exc))]

    def encode(self, reply: Reply) -> bytes:
        """The push of a reply; that of the connect result, and of the ping an empty one."""
        return self._encoder.encode(reply.push or Push(connect=reply.connect))
