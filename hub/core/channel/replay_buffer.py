"""What a node keeps of a stream for those who come back: the newest publications, a page at a time. Pure."""

from __future__ import annotations

from typing import Final

from hub.protocol.messages import Publication, Publications
from hub.protocol.payloads import octets_of

PAGE_BYTES_MAX: Final = 32_768
"""Publications of a page together. What it becomes on the wire stays under 64 KiB, which every client takes;
a publication that is larger is a page of its own."""

PAGES_MAX: Final = 4
"""Pages kept, with what they were encoded as. A crowd that comes back at once asks for the same ones."""

_ENVELOPE_BYTES: Final = 96
"""What a publication's names, offset and time come to, roughly."""

_SPARE: Final = 8
"""The window is cut back once it is over its size by one part in so many: each cut moves all of it."""


class ReplayBuffer:
    """The newest publications of a stream up to its top, without a gap.

    Args:
        publications: in order of offset; only those that lead up to `top` without a gap are taken.
        top: the offset of the newest publication of the stream.
        size_max: publications that are kept, with some to spare.
    """

    __slots__ = ("_pages", "_publications", "_size_max")

    def __init__(self, publications: list[Publication], top: int, size_max: int) -> None:
        self._size_max = size_max
        whole = 0
        for publication in reversed(publications):
            if publication.offset != top - whole:
                break
            whole += 1
        self._publications = publications[len(publications) - whole :]
        self._pages: dict[int, Publications] = {}

    def append(self, publication: Publication) -> None:
        """Add the publication that follows the newest one."""
        publications = self._publications
        publications.append(publication)
        excess = len(publications) - self._size_max
        if excess > self._size_max // _SPARE:
            del publications[:excess]

    def after(self, offset: int) -> Publications | None:
        """What came after an offset below the top, or the first part of it; None where not all is there.

        Who asks for the same gets the same, so that it is encoded once for them all.
        """
        publications = self._publications
        start = offset + 1 - publications[0].offset if publications else -1
        if start < 0:
            return None
        page = self._pages.get(offset)
        if page is None or not self._is_whole(page, start):
            self._pages.pop(offset, None)
            if len(self._pages) == PAGES_MAX:
                del self._pages[next(iter(self._pages))]
            page = self._pages[offset] = self._cut(start)
        return page

    def forget_pages(self) -> None:
        """Keep no pages; they are made anew for whoever asks."""
        self._pages.clear()

    def _cut(self, start: int) -> Publications:
        items: list[Publication] = []
        size = 0
        for index in range(start, len(self._publications)):
            publication = self._publications[index]
            more = size_of(publication)
            if items and size + more > PAGE_BYTES_MAX:
                break
            items.append(publication)
            size += more
        return Publications(items, size)

    def _is_whole(self, page: Publications, start: int) -> bool:
        """Whether a page that was cut before holds all that has room in it now."""
        following = start + len(page)
        if following == len(self._publications):
            return True
        return page.size + size_of(self._publications[following]) > PAGE_BYTES_MAX


def size_of(publication: Publication) -> int:
    """About how many bytes a publication has on the wire."""
    size = _ENVELOPE_BYTES
    info = publication.info
    payloads = (publication.data, info.conn_info, info.chan_info) if info else (publication.data,)
    size += sum(map(octets_of, payloads))
    if info:
        size += len(info.user) + len(info.client)
    for name, value in (publication.tags or {}).items():
        size += len(name) + len(value)
    return size
