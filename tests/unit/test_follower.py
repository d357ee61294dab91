"""hub/core/channel/follower.py, case by case. The simulation combines the cases."""

from __future__ import annotations

from msgspec import Raw

from hub.core.channel.follower import PENDING_MAX, Broken, Deliver, Read, StreamFollower
from hub.protocol.messages import Publication, StreamPosition


def pub(offset: int) -> Publication:
    return Publication(Raw(b"%d" % offset), offset=offset)


def at(offset: int, epoch: str = "e") -> StreamPosition:
    return StreamPosition(offset, epoch)


def feed_at(offset: int) -> StreamFollower:
    feed = StreamFollower(10)
    feed.loading()
    feed.loaded(None, at(offset))
    return feed


def test_what_follows_is_delivered_and_what_came_before_is_not() -> None:
    feed = feed_at(2)
    assert feed.arrived(pub(3), "e") == [Deliver(pub(3))]
    assert feed.arrived(pub(3), "e") == []
    assert feed.position == at(3)


def test_what_is_in_no_history_is_delivered_as_it_comes() -> None:
    assert feed_at(2).arrived(pub(0), "") == [Deliver(pub(0))]


def test_a_gap_is_read_and_comes_first() -> None:
    feed = feed_at(2)
    assert feed.arrived(pub(5), "e") == [Read(at(2))]
    assert feed.arrived(pub(6), "e") == []
    effects = feed.read([pub(3), pub(4), pub(5)], at(5))
    assert effects == [Deliver(pub(offset)) for offset in (3, 4, 5, 6)]


def test_a_gap_that_history_lacks_is_told() -> None:
    feed = feed_at(2)
    feed.arrived(pub(5), "e")
    assert feed.read([pub(4), pub(5)], at(5)) == [Broken(), Deliver(pub(4)), Deliver(pub(5))]
    assert feed.position == at(5)


def test_another_epoch_is_confirmed_by_the_history() -> None:
    feed = feed_at(2)
    assert feed.arrived(pub(7), "new") == [Read(at(2))]
    assert feed.read([], at(7, "new")) == [Broken(), Deliver(pub(7))]
    assert feed.arrived(pub(3), "e") == [], "what comes late of the old one"


def test_a_late_word_of_an_old_epoch_breaks_nothing() -> None:
    feed = feed_at(2)
    assert feed.arrived(pub(9), "old") == [Read(at(2))]
    assert feed.read([], at(2)) == []
    assert feed.arrived(pub(10), "old") == []


def test_a_new_epoch_without_a_publication() -> None:
    feed = feed_at(2)
    assert feed.doubt() == [Read(at(2))]
    assert feed.read([], at(4, "new")) == [Broken()]
    assert feed.position == at(4, "new")


def test_a_read_that_failed_is_made_again() -> None:
    feed = feed_at(2)
    feed.arrived(pub(4), "e")
    assert feed.read_failed() == [Read(at(2))]


def test_more_than_can_be_held_is_read_again() -> None:
    feed = feed_at(0)
    feed.arrived(pub(2), "e")
    for offset in range(3, PENDING_MAX + 3):
        assert feed.arrived(pub(offset), "e") == []
    effects = feed.read([pub(1), pub(2)], at(2))
    assert len(effects) == PENDING_MAX + 2
    assert effects[-1] == Read(at(PENDING_MAX + 1))


def test_what_is_in_no_history_and_cannot_be_held_goes_out_at_once() -> None:
    feed = feed_at(0)
    feed.arrived(pub(2), "e")
    for _ in range(1, PENDING_MAX):
        assert feed.arrived(pub(0), "") == []
    assert feed.arrived(pub(0), "") == [Deliver(pub(0))]
    effects = feed.read([pub(1), pub(2)], at(2))
    assert effects.count(Deliver(pub(0))) == PENDING_MAX - 1


def test_doubt_while_a_read_is_under_way_asks_once_more() -> None:
    feed = feed_at(2)
    assert feed.doubt() == [Read(at(2))]
    assert feed.doubt() == []
    assert feed.read([], at(2)) == [Read(at(2))]


def test_nothing_is_doubted_of_a_stream_that_was_never_seen() -> None:
    feed = StreamFollower(10)
    assert feed.doubt() == []
    assert feed.recover(at(0)) is None
    assert feed.arrived(pub(4), "e") == [Deliver(pub(4))]
    assert feed.position == at(4)


def test_the_first_look_holds_back_until_it_is_done() -> None:
    feed = StreamFollower(10)
    feed.loading()
    assert feed.arrived(pub(3), "e") == []
    assert feed.loaded(None, at(2)) == [Deliver(pub(3))]


def test_a_first_look_that_fails() -> None:
    feed = StreamFollower(10)
    feed.loading()
    feed.arrived(pub(3), "e")
    feed.load_failed()
    assert feed.arrived(pub(4), "e") == [Deliver(pub(4))]


def test_a_later_load_that_fails_changes_nothing() -> None:
    feed = feed_at(2)
    feed.loading()
    feed.load_failed()
    assert feed.arrived(pub(3), "e") == [Deliver(pub(3))]


def missed(feed: StreamFollower, since: StreamPosition) -> list[int] | None:
    """The offsets of a recovery; None where it failed."""
    recovery = feed.recover(since)
    assert recovery is not None
    if not recovery.recovered:
        assert (len(recovery.publications), recovery.position) == (0, feed.position)
        return None
    assert recovery.position == at(since.offset)
    return [publication.offset for publication in recovery.publications]


def test_those_who_come_back_are_served_from_the_window() -> None:
    feed = feed_at(2)
    assert missed(feed, at(2)) == []
    assert feed.recover(at(1)) is None
    feed.loading()
    feed.arrived(pub(3), "e")
    feed.loaded([pub(1), pub(2), pub(3)], at(3))
    feed.arrived(pub(4), "e")
    assert missed(feed, at(1)) == [2, 3, 4]
    assert missed(feed, at(1, "")) == [2, 3, 4]
    assert missed(feed, at(1, "other")) is None
    assert missed(feed, at(9)) is None
    feed.drop_buffer()
    assert feed.recover(at(1)) is None


def test_pages_are_kept_until_they_are_forgotten() -> None:
    feed = feed_at(2)
    feed.forget_pages()
    feed.loading()
    feed.loaded([pub(1), pub(2)], at(2))
    first = feed.recover(at(0))
    assert first is not None
    assert first == feed.recover(at(0))
    feed.forget_pages()
    assert first != feed.recover(at(0))
    assert missed(feed, at(0)) == [1, 2]


def test_what_the_history_has_lost_is_not_recovered() -> None:
    feed = feed_at(5)
    feed.loading()
    feed.loaded([pub(4), pub(5)], at(5))
    assert missed(feed, at(3)) == [4, 5]
    assert missed(feed, at(2)) is None


def test_a_load_that_finds_another_stream_is_a_doubt() -> None:
    feed = feed_at(2)
    feed.loading()
    assert feed.loaded([], at(0, "new")) == [Read(at(2))]
    assert feed.recover(at(2)) is None
