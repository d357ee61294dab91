"""Payloads as a subscription gets them that takes deltas: quoted, each whole or a delta of the one before."""

from __future__ import annotations

from typing import Any

import msgspec

from hub.client.codec import ClientCodec
from hub.protocol import delta
from hub.protocol import messages as m


class DeltaDecoder:
    """The publications of one subscription, in the order in which they come.

    Args:
        codec: of the connection.
    """

    def __init__(self, codec: ClientCodec) -> None:
        self._codec = codec
        self._base: bytes | None = None

    def value(self, pub: m.Publication) -> Any:
        """The value of the payload of the next one.

        Raises:
            ValueError: it is none that a hub sends.
        """
        if isinstance(pub.data, bytes):  # Protobuf, which does not tell text from binary
            return self._codec.value(self._undone(pub, pub.data))
        quoted = self._codec.value(pub.data)
        if isinstance(quoted, bytes):
            self._base = None  # it is whole, and so is the one behind it
            return quoted
        if not isinstance(quoted, str):
            raise ValueError("a payload that should be quoted is not")
        try:
            return msgspec.json.decode(self._undone(pub, quoted.encode()))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise ValueError(str(exc)) from None

    def _undone(self, pub: m.Publication, quoted: bytes) -> bytes:
        """The payload itself, which is the base of the next one."""
        if pub.delta:
            if self._base is None:
                raise ValueError("a delta of nothing")
            quoted = delta.apply(self._base, quoted)
        self._base = quoted
        return quoted
