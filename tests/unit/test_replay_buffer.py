"""hub/core/channel/replay_buffer.py: the publications after an offset, in pages, complete or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hub.core.channel.replay_buffer import PAGE_BYTES_MAX, PAGES_MAX, ReplayBuffer, size_of
from hub.protocol.messages import ClientInfo, Publication
from hub.protocol.payloads import Packed

THIRD = PAGE_BYTES_MAX // 3 - 200
"""Bytes of a payload of which three fit a page."""


def pub(offset: int, size: int = 1) -> Publication:
    return Publication(Raw(b"1" * size), offset=offset)


def window(first: int, top: int, size: int = 1, size_max: int = 100) -> ReplayBuffer:
    return ReplayBuffer([pub(offset, size) for offset in range(first, top + 1)], top, size_max)


def offsets(window: ReplayBuffer, after: int) -> list[int] | None:
    page = window.after(after)
    return None if page is None else [publication.offset for publication in page]


def test_the_publications_after_an_offset() -> None:
    assert offsets(window(3, 6), 4) == [5, 6]
    assert offsets(window(3, 6), 2) == [3, 4, 5, 6]
    assert offsets(window(3, 6), 1) is None


@pytest.mark.parametrize("held", [[], [1, 2], [1, 2, 3, 5]])
def test_publications_before_a_gap_are_not_kept(held: list[int]) -> None:
    kept = ReplayBuffer([pub(offset) for offset in held], 5, 10)
    assert offsets(kept, 2) is None
    assert offsets(kept, 4) == ([5] if 5 in held else None)
    kept.append(pub(6))
    assert offsets(kept, 5) == [6]


def test_pages_are_filled_and_contiguous() -> None:
    kept = window(1, 7, THIRD)
    assert [offsets(kept, after) for after in (0, 3, 6)] == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_large_publication_is_a_page_of_its_own() -> None:
    kept = window(1, 2, 2 * PAGE_BYTES_MAX)
    assert [offsets(kept, after) for after in (0, 1)] == [[1], [2]]


def test_the_same_offset_leads_to_the_same_page_until_more_arrives() -> None:
    kept = window(1, 3, THIRD)
    full, last = kept.after(0), kept.after(1)
    kept.append(pub(4, THIRD))
    assert kept.after(0) is full
    assert kept.after(1) is not last
    assert offsets(kept, 1) == [2, 3, 4]
    kept.forget_pages()
    assert kept.after(0) is not full


def test_few_pages_are_kept() -> None:
    kept = window(1, PAGES_MAX + 1)
    first = kept.after(0)
    for after in range(1, PAGES_MAX + 1):
        kept.after(after)
    assert kept.after(PAGES_MAX) is kept.after(PAGES_MAX)
    assert kept.after(0) is not first


def test_the_oldest_publications_are_dropped() -> None:
    kept = window(1, 16, size_max=16)
    for offset in range(17, 35):
        kept.append(pub(offset))
    assert offsets(kept, 18) == list(range(19, 35))
    assert offsets(kept, 34 - 16 - 16 // 8 - 1) is None


def test_sizes() -> None:
    info = ClientInfo("user", "client", Raw(b'"info"'))
    bare = size_of(Publication())
    for five in (Raw(b"12345"), b"12345", Packed(b"\xa4abcd")):
        assert size_of(Publication(five)) == bare + 5
    assert size_of(Publication(info=info, tags={"name": "value"})) == bare + 4 + 6 + 6 + 4 + 5


@given(
    st.integers(1, 5), st.lists(st.integers(1, PAGE_BYTES_MAX), max_size=30), st.integers(1, 40), st.data()
)
def test_pages_contain_all_publications_once_and_in_order(
    first: int, sizes: list[int], size_max: int, data: st.DataObject
) -> None:
    kept = ReplayBuffer([], first - 1, size_max)
    for offset, size in enumerate(sizes, first):
        kept.append(pub(offset, size))
    top = first + len(sizes) - 1
    at = data.draw(st.integers(0, top))
    came: list[int] = []
    while at < top:
        page = kept.after(at)
        if page is None:
            assert not came
            assert len(sizes) > size_max or at < first - 1
            break
        assert len(page) == 1 or page.size <= PAGE_BYTES_MAX
        assert page.size == sum(map(size_of, page))
        came += [publication.offset for publication in page]
        at = came[-1]
    assert came == list(range(came[0], top + 1)) if came else True
