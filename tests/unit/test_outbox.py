"""hub/core/outbox.py: what waits is in order and bounded."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.outbox import Outbox


def test_what_goes_in_first_comes_out_first() -> None:
    outbox = Outbox(10, 10)
    assert not outbox
    assert outbox.push(b"ab")
    assert outbox.push(b"c")
    assert (len(outbox), outbox.size) == (2, 3)
    assert outbox.pop() == b"ab"
    assert outbox.pop() == b"c"
    assert (len(outbox), outbox.size) == (0, 0)


@pytest.mark.parametrize(("bytes_max", "messages_max", "fits"), [(5, 3, True), (4, 3, False), (5, 2, False)])
def test_a_message_that_does_not_fit_changes_nothing(bytes_max: int, messages_max: int, fits: bool) -> None:
    outbox = Outbox(bytes_max, messages_max)
    outbox.push(b"ab")
    outbox.push(b"cd")
    assert outbox.push(b"e") is fits
    assert (len(outbox), outbox.size) == ((3, 5) if fits else (2, 4))


@given(st.lists(st.none() | st.binary(max_size=9)))
def test_it_is_a_bounded_queue(steps: list[bytes | None]) -> None:
    outbox, model = Outbox(20, 5), deque[bytes]()
    for data in steps:
        if data is None:
            if model:
                assert outbox.pop() == model.popleft()
        elif outbox.push(data):
            model.append(data)
        else:
            assert sum(map(len, model)) + len(data) > 20 or len(model) == 5
        assert (len(outbox), outbox.size) == (len(model), sum(map(len, model)))
        assert outbox.size <= 20
        assert len(outbox) <= 5
