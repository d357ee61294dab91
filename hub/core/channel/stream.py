"""A channel's stream as a subscriber finds it, and the recovery of the publications that it missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub.protocol.messages import Publication, Publications, StreamPosition


@dataclass(frozen=True, slots=True)
class Recovery:
    """The outcome of a recovery.

    Args:
        recovered: whether all missed publications are available.
        publications: the missed publications in order of offset, or the first page of them; empty if they are
            not available.
        position: where the client continues. After a recovery it is the position that the client sent, which
            each publication then moves; otherwise the top of the stream.
    """

    recovered: bool
    publications: Publications
    position: StreamPosition


@dataclass(frozen=True, slots=True)
class Opened:
    """A channel as a subscriber finds it.

    Args:
        top: the position of the newest publication; offset 0 and no epoch if the channel keeps no history.
        recovery: for a subscriber that sent a position.
    """

    top: StreamPosition
    recovery: Recovery | None = None


def is_complete(since: StreamPosition, publications: Sequence[Publication], top: StreamPosition) -> bool:
    """Whether every publication from `since` to `top` is there, and nothing else.

    Args:
        since: an earlier position. If it has no epoch, because the client never learned it, the offset alone
            counts, as in other servers of the protocol.
        publications: the history after `since`, in order, read together with `top`.
        top: the position of the newest publication.
    """
    return (
        since.epoch in ("", top.epoch)
        and len(publications) == top.offset - since.offset
        and all(pub.offset == offset for offset, pub in enumerate(publications, since.offset + 1))
    )
