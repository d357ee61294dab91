"""What a subscriber finds in a channel's stream, and what one that returns with a position missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub.protocol.messages import Publication, Publications, StreamPosition


@dataclass(frozen=True, slots=True)
class Recovery:
    """The outcome of a recovery.

    Args:
        recovered: whether all that the client missed is there.
        publications: what it missed in order of offset, or the first part of that; empty where it was not
            recovered.
        position: where the client's stream goes on. After a recovery the position that it returned with,
            which each publication then moves; else the top of the stream.
    """

    recovered: bool
    publications: Publications
    position: StreamPosition


@dataclass(frozen=True, slots=True)
class Opened:
    """A channel as a subscriber finds it.

    Args:
        top: the position of the newest publication; offset 0 and no epoch where it keeps no history.
        recovery: of a subscriber that came with a position.
    """

    top: StreamPosition
    recovery: Recovery | None = None


def is_complete(since: StreamPosition, publications: Sequence[Publication], top: StreamPosition) -> bool:
    """Whether every publication from `since` to `top` is there, and nothing else.

    Args:
        since: a position of a moment ago. One with no epoch, as of a client that never learned it, is taken
            at its word for the offset, as other servers of the protocol do.
        publications: the history after `since`, in order, read together with `top`.
        top: the position of the newest publication.
    """
    return (
        since.epoch in ("", top.epoch)
        and len(publications) == top.offset - since.offset
        and all(pub.offset == offset for offset, pub in enumerate(publications, since.offset + 1))
    )
