"""hub/core/channel/stream.py: a recovery succeeds if and only if every missed publication is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.channel.stream import is_complete
from hub.protocol.messages import Publication, StreamPosition


def publications(*offsets: int) -> list[Publication]:
    return [Publication(offset=offset) for offset in offsets]


def test_nothing_was_missed() -> None:
    top = StreamPosition(4, "e")
    assert is_complete(top, [], top)


def test_all_that_was_missed() -> None:
    assert is_complete(StreamPosition(2, "e"), publications(3, 4), StreamPosition(4, "e"))


@pytest.mark.parametrize(
    ("since", "offsets", "top"),
    [
        pytest.param(StreamPosition(2, "e"), [4], 4, id="the oldest is gone"),
        pytest.param(StreamPosition(2, "e"), [3], 4, id="the newest is gone"),
        pytest.param(StreamPosition(2, "e"), [], 4, id="all are gone"),
        pytest.param(StreamPosition(1, "e"), [2, 4, 5], 4, id="a hole"),
        pytest.param(StreamPosition(1, "e"), [2, 2, 4], 4, id="a duplicate"),
        pytest.param(StreamPosition(1, "e"), [2, 4, 3], 4, id="out of order"),
        pytest.param(StreamPosition(5, "e"), [], 4, id="ahead of the stream"),
        pytest.param(StreamPosition(3, "f"), [4], 4, id="another epoch"),
        pytest.param(StreamPosition(4, "f"), [], 4, id="another epoch at the same offset"),
    ],
)
def test_not_complete(since: StreamPosition, offsets: list[int], top: int) -> None:
    assert not is_complete(since, publications(*offsets), StreamPosition(top, "e"))


def test_a_client_without_an_epoch_is_taken_at_its_word() -> None:
    top = StreamPosition(1, "e")
    assert is_complete(StreamPosition(0, ""), publications(1), top)
    assert is_complete(StreamPosition(0, ""), [], StreamPosition(0, "e"))
    assert not is_complete(StreamPosition(0, ""), [], top)


@given(
    since=st.builds(StreamPosition, st.integers(0, 8), st.sampled_from(["", "e", "f"])),
    offsets=st.lists(st.integers(1, 8), max_size=8),
    top=st.integers(0, 8),
)
def test_complete_means_exactly_what_was_missed(since: StreamPosition, offsets: list[int], top: int) -> None:
    missed = list(range(since.offset + 1, top + 1))
    expected = since.epoch != "f" and since.offset <= top and offsets == missed
    assert is_complete(since, publications(*offsets), StreamPosition(top, "e")) == expected
