"""hub/core/outbox.py: what waits is in order and bounded, and is given up as a channel's rule says."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.outbox import Outbox


def contents(outbox: Outbox) -> list[bytes]:
    return [outbox.pop() for _ in range(len(outbox))]


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


@pytest.mark.parametrize(("bytes_max", "messages_max"), [(6, 9), (99, 3)])
def test_the_oldest_publications_make_room(bytes_max: int, messages_max: int) -> None:
    outbox = Outbox(bytes_max, messages_max)
    outbox.push(b"R1")
    for data in (b"a1", b"b1", b"a2"):
        outbox.offer(data[:1].decode(), data)
    assert outbox.push(b"R2")
    assert outbox.dropped == {"a": 1, "b": 1}
    assert contents(outbox) == [b"R1", b"a2", b"R2"]


def test_a_publication_that_finds_no_room_is_given_up_itself() -> None:
    outbox = Outbox(4, 9)
    outbox.push(b"R1")
    outbox.push(b"R2")
    outbox.offer("a", b"a1")
    assert outbox.dropped == {"a": 1}
    assert not outbox.push(b"R3")
    assert contents(outbox) == [b"R1", b"R2"]


def test_what_was_taken_out_is_not_given_up() -> None:
    outbox = Outbox(4, 9)
    outbox.offer("a", b"a1")
    outbox.offer("a", b"a2")
    assert outbox.pop() == b"a1"
    outbox.offer("a", b"a3")
    assert not outbox.dropped
    assert contents(outbox) == [b"a2", b"a3"]


def test_only_the_newest_of_a_channel_waits() -> None:
    outbox = Outbox(99, 9)
    for data in (b"a1", b"b1", b"a2", b"a3"):
        assert outbox.replace(data[:1].decode(), data)
    assert outbox.dropped == {"a": 2}
    assert contents(outbox) == [b"b1", b"a3"]
    assert outbox.replace("a", b"a4")
    assert outbox.dropped == {"a": 2}


def test_a_newest_one_that_does_not_fit_is_told() -> None:
    outbox = Outbox(4, 9)
    outbox.push(b"R1")
    assert outbox.replace("a", b"a1")
    assert outbox.replace("a", b"a2")
    assert not outbox.replace("b", b"b1")


@given(
    st.lists(
        st.none()
        | st.tuples(st.sampled_from("pol"), st.sampled_from("ab"), st.binary(min_size=1, max_size=9))
    )
)
def test_it_is_a_bounded_queue(steps: list[tuple[str, str, bytes] | None]) -> None:
    outbox, model = Outbox(20, 5), deque[bytes]()
    dropped = 0
    for step in steps:
        if step is None:
            if outbox:
                data = outbox.pop()
                while model.popleft() != data:  # what stood before it was given up
                    dropped += 1
        else:
            kind, channel, data = step
            if kind == "p" and not outbox.push(data):
                assert outbox.size + len(data) > 20 or len(outbox) == 5
                continue
            if kind == "l" and not outbox.replace(channel, data):
                continue
            if kind == "o":
                outbox.offer(channel, data)
            model.append(data)
        assert outbox.size <= 20
        assert len(outbox) <= 5
        assert len(outbox) <= len(model)
