"""hub/core/channel/follower.py, case by case. The simulation combines the cases."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from hub.core.channel.follower import (
    FAILURES_MAX,
    PENDING_MAX,
    Broken,
    Deliver,
    FollowerEffect,
    Read,
    StreamFollower,
)
from hub.protocol.messages import Publication, StreamPosition


def pub(offset: int) -> Publication:
    return Publication(Raw(b"%d" % offset), offset=offset)


def at(offset: int, epoch: str = "e") -> StreamPosition:
    return StreamPosition(offset, epoch)


def follower_at(offset: int) -> StreamFollower:
    follower = StreamFollower(10)
    follower.loading()
    follower.loaded(None, at(offset))
    return follower


def test_the_next_publication_is_delivered_and_an_earlier_one_is_not() -> None:
    follower = follower_at(2)
    assert follower.arrived(pub(3), "e") == [Deliver(pub(3))]
    assert follower.arrived(pub(3), "e") == []
    assert follower.position == at(3)


def test_what_is_in_no_history_is_delivered_as_it_comes() -> None:
    assert follower_at(2).arrived(pub(0), "") == [Deliver(pub(0))]


def test_a_gap_is_read_and_delivered_first() -> None:
    follower = follower_at(2)
    assert follower.arrived(pub(5), "e") == [Read(at(2))]
    assert follower.arrived(pub(6), "e") == []
    effects = follower.read([pub(3), pub(4), pub(5)], at(5))
    assert effects == [Deliver(pub(offset)) for offset in (3, 4, 5, 6)]


def test_a_gap_that_the_history_lacks_breaks_the_stream() -> None:
    follower = follower_at(2)
    follower.arrived(pub(5), "e")
    assert follower.read([pub(4), pub(5)], at(5)) == [Broken(), Deliver(pub(4)), Deliver(pub(5))]
    assert follower.position == at(5)


def test_another_epoch_is_confirmed_by_the_history() -> None:
    follower = follower_at(2)
    assert follower.arrived(pub(7), "new") == [Read(at(2))]
    assert follower.read([], at(7, "new")) == [Broken(), Deliver(pub(7))]
    assert follower.arrived(pub(3), "e") == [], "what comes late of the old one"


def test_a_late_publication_of_an_old_epoch_breaks_nothing() -> None:
    follower = follower_at(2)
    assert follower.arrived(pub(9), "old") == [Read(at(2))]
    assert follower.read([], at(2)) == []
    assert follower.arrived(pub(10), "old") == []


def test_a_new_epoch_without_a_publication() -> None:
    follower = follower_at(2)
    assert follower.doubt() == [Read(at(2))]
    assert follower.read([], at(4, "new")) == [Broken()]
    assert follower.position == at(4, "new")


def test_a_read_that_failed_is_made_again() -> None:
    follower = follower_at(2)
    follower.arrived(pub(4), "e")
    assert follower.read_failed() == [Read(at(2))]


def give_up(follower: StreamFollower) -> list[FollowerEffect]:
    """Let reads fail until the follower gives the gap up."""
    for _ in range(FAILURES_MAX - 1):
        assert follower.read_failed() == [Read(at(2))]
    return follower.read_failed()


def test_a_read_that_fails_for_ever_is_given_up() -> None:
    follower = follower_at(2)
    for number, epoch in [(5, "e"), (5, "e"), (4, "e"), (0, ""), (6, "e")]:
        follower.arrived(pub(number), epoch)
    assert give_up(follower) == [Broken(), Deliver(pub(5)), Deliver(pub(0)), Deliver(pub(6))]
    assert follower.position == at(6)
    assert follower.recover(at(2)) is None, "the history must be read for it"
    assert follower.arrived(pub(7), "e") == [Deliver(pub(7))]


def test_a_gap_that_is_given_up_without_a_newer_publication_leaves_no_position() -> None:
    follower = follower_at(2)
    follower.doubt()
    assert give_up(follower) == [Broken()]
    assert follower.position is None
    assert follower.arrived(pub(9), "e") == [Deliver(pub(9))]


def test_a_gap_is_not_given_up_while_failures_do_not_count() -> None:
    follower = follower_at(2)
    follower.doubt()
    for _ in range(2 * FAILURES_MAX):
        assert follower.read_failed(is_counted=False) == [Read(at(2))]
    assert follower.read([pub(3)], at(3)) == [Deliver(pub(3))]


def test_late_publications_of_an_ended_epoch_are_not_delivered_at_the_end_of_a_gap() -> None:
    follower = follower_at(2)
    follower.arrived(pub(9), "old")
    follower.read([], at(2))
    follower.doubt()
    follower.arrived(pub(10), "old")
    assert give_up(follower) == [Broken()]


def test_a_read_that_returns_garbage_changes_nothing() -> None:
    follower = follower_at(2)
    follower.arrived(pub(4), "e")
    garbage: Any = [None]
    for top in (at(4), None):
        with pytest.raises(AttributeError):
            follower.read(garbage, top)  # type: ignore[arg-type]
    assert follower.read_failed() == [Read(at(2))]
    first = StreamFollower(10)
    first.loading()
    for top in (at(4), None):
        with pytest.raises(AttributeError):
            first.loaded(garbage, top)  # type: ignore[arg-type]
    assert first.position is None


def test_a_gap_during_the_first_read_is_repaired_after_it() -> None:
    follower = StreamFollower(10)
    follower.loading()
    assert follower.doubt() == []
    assert follower.loaded(None, at(2)) == [Read(at(2))]


def test_publications_beyond_the_pending_ones_are_read_again() -> None:
    follower = follower_at(0)
    follower.arrived(pub(2), "e")
    for offset in range(3, PENDING_MAX + 3):
        assert follower.arrived(pub(offset), "e") == []
    effects = follower.read([pub(1), pub(2)], at(2))
    assert len(effects) == PENDING_MAX + 2
    assert effects[-1] == Read(at(PENDING_MAX + 1))


def test_what_is_in_no_history_is_delivered_at_once_if_too_many_are_pending() -> None:
    follower = follower_at(0)
    follower.arrived(pub(2), "e")
    for _ in range(1, PENDING_MAX):
        assert follower.arrived(pub(0), "") == []
    assert follower.arrived(pub(0), "") == [Deliver(pub(0))]
    effects = follower.read([pub(1), pub(2)], at(2))
    assert effects.count(Deliver(pub(0))) == PENDING_MAX - 1


def test_a_doubt_during_a_read_leads_to_another_read() -> None:
    follower = follower_at(2)
    assert follower.doubt() == [Read(at(2))]
    assert follower.doubt() == []
    assert follower.read([], at(2)) == [Read(at(2))]


def test_a_stream_that_was_never_read_has_nothing_to_repair() -> None:
    follower = StreamFollower(10)
    assert follower.doubt() == []
    assert follower.recover(at(0)) is None
    assert follower.arrived(pub(4), "e") == [Deliver(pub(4))]
    assert follower.position == at(4)


def test_publications_are_pending_until_the_first_read_is_done() -> None:
    follower = StreamFollower(10)
    follower.loading()
    assert follower.arrived(pub(3), "e") == []
    assert follower.loaded(None, at(2)) == [Deliver(pub(3))]


def test_a_first_read_that_fails() -> None:
    follower = StreamFollower(10)
    follower.loading()
    follower.arrived(pub(3), "e")
    assert follower.load_failed() == [Deliver(pub(3))]
    assert follower.arrived(pub(4), "e") == [Deliver(pub(4))]


def test_a_later_load_that_fails_changes_nothing() -> None:
    follower = follower_at(2)
    follower.loading()
    follower.load_failed()
    assert follower.arrived(pub(3), "e") == [Deliver(pub(3))]


def missed(follower: StreamFollower, since: StreamPosition) -> list[int] | None:
    """The offsets of a recovery; None where it failed."""
    recovery = follower.recover(since)
    assert recovery is not None
    if not recovery.recovered:
        assert (len(recovery.publications), recovery.position) == (0, follower.position)
        return None
    assert recovery.position == at(since.offset)
    return [publication.offset for publication in recovery.publications]


def test_recoveries_are_served_from_the_replay_buffer() -> None:
    follower = follower_at(2)
    assert missed(follower, at(2)) == []
    assert follower.recover(at(1)) is None
    follower.loading()
    follower.arrived(pub(3), "e")
    follower.loaded([pub(1), pub(2), pub(3)], at(3))
    follower.arrived(pub(4), "e")
    assert missed(follower, at(1)) == [2, 3, 4]
    assert missed(follower, at(1, "")) == [2, 3, 4]
    assert missed(follower, at(1, "other")) is None
    assert missed(follower, at(9)) is None
    follower.drop_buffer()
    assert follower.recover(at(1)) is None


def test_pages_are_kept_until_they_are_forgotten() -> None:
    follower = follower_at(2)
    follower.forget_pages()
    follower.loading()
    follower.loaded([pub(1), pub(2)], at(2))
    first = follower.recover(at(0))
    assert first is not None
    assert first == follower.recover(at(0))
    follower.forget_pages()
    assert first != follower.recover(at(0))
    assert missed(follower, at(0)) == [1, 2]


def test_what_the_history_has_lost_is_not_recovered() -> None:
    follower = follower_at(5)
    follower.loading()
    follower.loaded([pub(4), pub(5)], at(5))
    assert missed(follower, at(3)) == [4, 5]
    assert missed(follower, at(2)) is None


def test_a_load_that_finds_another_stream_is_a_doubt() -> None:
    follower = follower_at(2)
    follower.loading()
    assert follower.loaded([], at(0, "new")) == [Read(at(2))]
    assert follower.recover(at(2)) is None
