"""Recovery: what a client that returns with a position missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub.protocol.messages import Publication, StreamPosition


@dataclass(frozen=True, slots=True)
class Recovery:
    """The outcome of a recovery.

    Args:
        recovered: whether `publications` are all that the client missed.
        publications: in order of offset; empty where it was not recovered.
        position: where the client's stream goes on. After a recovery the position that it returned with,
            which each publication then moves; else the top of the stream.
    """

    recovered: bool
    publications: list[Publication]
    position: StreamPosition


def recover(since: StreamPosition, publications: Sequence[Publication], top: StreamPosition) -> Recovery:
    """Decide a recovery. It succeeds only where every publication from `since` to `top` is there.

    A client that never learned the epoch (empty, as with a position of its own making) is taken at its word
    for the offset, as other servers of the protocol do.

    Args:
        since: the position that the client returned with.
        publications: the history after `since`, in order, read together with `top`.
        top: the position of the newest publication.
    """
    complete = (
        since.epoch in ("", top.epoch)
        and len(publications) == top.offset - since.offset
        and all(pub.offset == offset for offset, pub in enumerate(publications, since.offset + 1))
    )
    if not complete:
        return Recovery(False, [], top)
    return Recovery(True, list(publications), StreamPosition(since.offset, top.epoch))
