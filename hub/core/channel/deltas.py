"""Deltas: for subscribers that accept them, a publication carries its quoted payload or the change of it.

A delta is computed from the JSON of two payloads, in every encoding. A binary payload is sent whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from msgspec import Raw

from hub.protocol import delta
from hub.protocol.messages import DeltaPublication, Publication
from hub.protocol.payloads import Packed, Quoted, octets

PAYLOAD_BYTES_MAX: Final = 262_144
"""A larger payload is sent whole, because the cost of a delta grows with the payload."""

KEPT_BYTES_MAX: Final = 16_777_216
"""Bytes of deltas that a node keeps for recoveries."""

_ENTRY_BYTES: Final = 256
"""About the memory of a cache entry without its delta."""


class Deltas:
    """Computes each delta once, and keeps the recently used ones.

    Args:
        kept_bytes_max: bytes of deltas that are kept.
    """

    def __init__(self, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self.computed = 0
        """The number of deltas computed."""
        self.kept_bytes = 0
        """Bytes of the deltas that are kept."""
        self._kept_bytes_max = kept_bytes_max
        # By a digest of both payloads, so that the payloads are not kept. Empty if a delta saves nothing.
        self._kept: OrderedDict[bytes, str] = OrderedDict()

    def after(self, base: Publication | None, publication: Publication) -> Publication:
        """A publication for subscribers that have `base`: a delta if that is smaller, otherwise the whole.

        Args:
            base: the publication that they got last; None for none.
            publication: as the broker brought it. Its publisher may not have asked for deltas.
        """
        if base is None or not isinstance(publication, DeltaPublication):
            return whole(publication)
        source, target = _text(base), _text(publication)
        if not source or not target or max(len(source), len(target)) > PAYLOAD_BYTES_MAX:
            return whole(publication)
        key = blake2b(target, digest_size=16, key=blake2b(source, digest_size=16).digest()).digest()
        made = self._kept.get(key)
        if made is None:
            made = self._compute(source, target)
            self._keep(key, made)
        else:
            self._kept.move_to_end(key)
        return _sent(publication, Quoted(made), delta=True) if made else whole(publication)

    def chain(self, publications: Sequence[Publication]) -> list[Publication]:
        """Publications for a recovery: the first one whole, each further one relative to the one before."""
        bases = (None, *publications)
        return [self.after(base, publication) for base, publication in zip(bases, publications, strict=False)]

    def _compute(self, source: bytes, target: bytes) -> str:
        self.computed += 1
        made = delta.create(source, target)
        return made.decode() if len(made) < len(target) else ""

    def _keep(self, key: bytes, made: str) -> None:
        self._kept[key] = made
        self.kept_bytes += len(made) + _ENTRY_BYTES
        while self.kept_bytes > self._kept_bytes_max:
            _, given_up = self._kept.popitem(last=False)
            self.kept_bytes -= len(given_up) + _ENTRY_BYTES


def whole(publication: Publication) -> Publication:
    """A publication for subscribers that have no base. It becomes the base of the next one."""
    data = publication.data
    if not isinstance(data, bytes):
        return _sent(publication, Quoted(_text(publication).decode()), delta=False)
    return _sent(publication, Quoted(data), delta=False)


def _text(publication: Publication) -> bytes:
    """The JSON of a payload, from which deltas are computed; empty for a binary payload."""
    data = publication.data
    return octets(data) if isinstance(data, Raw | Packed) else b""


def _sent(publication: Publication, data: Quoted, *, delta: bool) -> Publication:
    return Publication(
        data,
        publication.info,
        publication.offset,
        publication.tags,
        delta,
        publication.time,
        publication.channel,
    )
