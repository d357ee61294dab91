"""Publications of one channel that leave together, joined once for all who get the same bytes."""

from __future__ import annotations

from typing import Any, Final

from hub.core.channel.deltas import whole
from hub.core.channel.registry import Channel, Group
from hub.protocol import messages as m
from hub.protocol.encoding import Encoding


class Batch:
    """Publications of one channel, in one encoding.

    Args:
        channel: its name, and what becomes of publications for a client that is backlogged.
        encoding: what they are encoded in.
        encoded: one or more, in order.
    """

    __slots__ = ("_each", "channel", "data", "encoded", "encoding")

    def __init__(self, channel: Channel[Any], encoding: Encoding, encoded: list[bytes]) -> None:
        self.channel: Final = channel
        self.encoding: Final = encoding
        self.encoded: Final = encoded
        self.data: Final = encoding.pack(encoded)
        self._each: list[bytes] | None = None

    @property
    def each(self) -> list[bytes]:
        """The same publications, packed one by one: for clients that may miss some of them."""
        if self._each is None:
            self._each = [self.encoding.pack([encoded]) for encoded in self.encoded]
        return self._each


class ChainBatch(Batch):
    """Publications that leave together for clients that take deltas: each may be a delta of the one before.

    Args:
        group: the clients.
        encoded: as a client gets them that was sent the publication before.
        publications: what they are of.
    """

    __slots__ = ("_group", "_publications", "_whole")

    def __init__(self, group: Group[Any], encoded: list[bytes], publications: list[m.Publication]) -> None:
        super().__init__(group.channel, group.encoding, encoded)
        self._group = group
        self._publications = publications
        self._whole: ChainBatch | None = None

    @property
    def whole(self) -> ChainBatch:
        """The same for clients that were not sent the publication before: the first one is no delta."""
        if self._whole is None:
            first = encode_publication(self._group, whole(self._publications[0]))
            self._whole = ChainBatch(self._group, [first, *self.encoded[1:]], self._publications)
        return self._whole

    @property
    def each(self) -> list[bytes]:
        """All of them whole: whichever a client misses, none of the others is a delta of it."""
        if self._each is None:
            encoded = (encode_publication(self._group, whole(each)) for each in self._publications)
            self._each = [self.encoding.pack([one]) for one in encoded]
        return self._each


def encode_publication(group: Group[Any], publication: m.Publication) -> bytes:
    """A publication as the clients of a group get it, not yet packed."""
    push = m.Push(channel=group.channel.name, pub=publication)
    return group.encoding.codec.encode(m.Reply(push=push))
