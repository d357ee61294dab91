"""The newest publications of a stream, kept in memory for recoveries and read in pages. Pure."""

from __future__ import annotations

from typing import Final

from hub.protocol.messages import Publication, Publications
from hub.protocol.payloads import octets_of

PAGE_BYTES_MAX: Final = 32_768
"""Bytes of the publications of a page. On the wire, a page stays under 64 KiB, which every client accepts. A
larger publication is a page of its own."""

PAGES_MAX: Final = 4
"""Pages kept with their encodings. Clients that reconnect at the same time ask for the same pages."""

_ENVELOPE_BYTES: Final = 96
"""About the bytes of a publication's field names, offset and time."""

_SPARE: Final = 8
"""The buffer is cut when it exceeds its size by one part in this many, because each cut moves all of it."""


class ReplayBuffer:
    """The newest publications of a stream up to its top, without a gap.

    Args:
        publications: in order of offset. Only those that lead up to `top` without a gap are kept.
        top: the offset of the newest publication of the stream.
        size_max: publications to keep. Some more are kept for a while.
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
        """The publications after an offset below the top, or their first page; None if some are lacking.

        The same offset leads to the same page, so that it is encoded once for all clients.
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
        """Drop the pages. They are made again when they are needed."""
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
        """Whether no newer publication fits a page that was made earlier."""
        following = start + len(page)
        if following == len(self._publications):
            return True
        return page.size + size_of(self._publications[following]) > PAGE_BYTES_MAX


def size_of(publication: Publication) -> int:
    """About the bytes of a publication on the wire."""
    size = _ENVELOPE_BYTES
    info = publication.info
    payloads = (publication.data, info.conn_info, info.chan_info) if info else (publication.data,)
    size += sum(map(octets_of, payloads))
    if info:
        size += len(info.user) + len(info.client)
    for name, value in (publication.tags or {}).items():
        size += len(name) + len(value)
    return size
