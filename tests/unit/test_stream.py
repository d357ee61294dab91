"""hub/core/stream.py: a recovery succeeds if and only if every missed publication is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.stream import Recovery, recover
from hub.protocol.messages import Publication, StreamPosition


def publications(*offsets: int) -> list[Publication]:
    return [Publication(offset=offset) for offset in offsets]


def test_nothing_was_missed() -> None:
    top = StreamPosition(4, "e")
    assert recover(top, [], top) == Recovery(True, [], top)


def test_all_that_was_missed() -> None:
    since, top = StreamPosition(2, "e"), StreamPosition(4, "e")
    missed = publications(3, 4)
    assert recover(since, missed, top) == Recovery(True, missed, since)


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
def test_not_recovered(since: StreamPosition, offsets: list[int], top: int) -> None:
    position = StreamPosition(top, "e")
    assert recover(since, publications(*offsets), position) == Recovery(False, [], position)


def test_a_client_without_an_epoch_is_taken_at_its_word() -> None:
    top = StreamPosition(1, "e")
    assert recover(StreamPosition(0, ""), publications(1), top) == Recovery(
        True, publications(1), StreamPosition(0, "e")
    )
    assert recover(StreamPosition(0, ""), [], StreamPosition(0, "e")).recovered
    assert not recover(StreamPosition(0, ""), [], top).recovered


@given(
    since=st.builds(StreamPosition, st.integers(0, 8), st.sampled_from(["", "e", "f"])),
    offsets=st.lists(st.integers(1, 8), max_size=8),
    top=st.integers(0, 8),
)
def test_recovered_means_exactly_what_was_missed(since: StreamPosition, offsets: list[int], top: int) -> None:
    position = StreamPosition(top, "e")
    recovery = recover(since, publications(*offsets), position)
    missed = list(range(since.offset + 1, top + 1))
    assert recovery.recovered == (since.epoch != "f" and since.offset <= top and offsets == missed)
    assert [pub.offset for pub in recovery.publications] == (missed if recovery.recovered else [])
    assert recovery.position == (StreamPosition(since.offset, "e") if recovery.recovered else position)
