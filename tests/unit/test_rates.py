"""hub/core/rates: what may be done how often, and what a client is told that does more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from support.sessions import Peer, options

from hub.config import load
from hub.core.rates import SWEEP_MIN, Bucket, Rate, UserBuckets, too_many
from hub.core.tokens import ConnectionClaims
from hub.errors import SettingsError
from hub.protocol import messages as m
from hub.protocol.codes import Errors


def test_a_burst_and_then_the_rate() -> None:
    rate, bucket = Rate(2, 3), Bucket()
    assert [bucket.take(rate, 10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(rate, 10.4) == pytest.approx(0.1)
    assert bucket.take(rate, 10.5) == 0
    assert bucket.take(rate, 10.5) == 0.5
    assert not bucket.is_full(rate, 11.9)
    assert bucket.is_full(rate, 12.1)


@given(st.lists(st.floats(0, 2), max_size=60))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    rate, bucket, now, done = Rate(5, 4), Bucket(), 0.0, 0
    for pause in pauses:
        now += pause
        done += bucket.take(rate, now) == 0
        assert done <= 4 + 5 * now + 1e-6


def test_users_do_not_share() -> None:
    buckets = UserBuckets(Rate(1, 1))
    assert buckets.take("ann", 0) == 0
    assert buckets.take("ann", 0) == 1
    assert buckets.take("bob", 0) == 0
    assert buckets.take("", 0) == buckets.take("", 0) == 0
    assert len(buckets) == 2


def test_no_rate_is_no_limit() -> None:
    buckets = UserBuckets(Rate(0, 1))
    assert buckets.take("ann", 0) == buckets.take("ann", 0) == 0
    assert len(buckets) == 0


def test_users_are_forgotten_once_their_bucket_is_full_again() -> None:
    buckets = UserBuckets(Rate(1, 1))
    for number in range(SWEEP_MIN):
        buckets.take(f"early {number}", 0)
    buckets.take("late", 5)
    assert len(buckets) == 1
    for number in range(SWEEP_MIN):
        buckets.take(f"busy {number}", 5)
    assert len(buckets) == SWEEP_MIN + 1


def test_the_answer_tells_when() -> None:
    assert too_many(0.44).message == "too many requests: retry in 0.4 s"
    assert (too_many(1).code, too_many(1).temporary) == (111, True)


# In a session


def ann(**limits: Any) -> Peer:
    open_to_all = options(allow_publish_for_client=True, allow_subscribe_for_client=True)
    peer = Peer({"default": open_to_all}, tokens={"token": ConnectionClaims("ann")}, channels_max=4, **limits)
    peer.connect("token")
    return peer


PUBLISH = {"publish": m.PublishRequest("c", Raw(b"1"))}


@pytest.mark.parametrize("limit", ["publishes_per_s", "user_publishes_per_s"])
def test_publishes_over_the_rate_are_refused_for_a_while(limit: str) -> None:
    peer = ann(**{limit: 0.4})
    assert [peer.reply(peer.send(**PUBLISH)).error for _ in range(2)] == [None, None]
    assert peer.error(**PUBLISH) == Errors.TOO_MANY_REQUESTS.code
    assert [type(operation).__name__ for operation in peer.operations].count("Publish") == 2
    peer.now += 2.6
    assert peer.reply(peer.send(**PUBLISH)).error is None


def test_subscribes_over_the_rate_are_refused() -> None:
    peer = ann(subscribes_per_s=0.8)
    for number in range(4):
        peer.subscribe(f"c{number}")
    assert peer.subscribe_error("c4") == Errors.TOO_MANY_REQUESTS.code


def test_connects_of_a_user_over_the_rate_are_refused() -> None:
    first = Peer(tokens={"token": ConnectionClaims("ann")}, user_connects_per_s=0.2)
    first.connect("token")
    again = Peer(tokens={"token": ConnectionClaims("ann")}, share=first)
    assert again.error(connect=m.ConnectRequest("token")) == Errors.TOO_MANY_REQUESTS.code
    assert not again.closed


def test_a_rate_must_let_a_client_come_back_with_all_its_channels() -> None:
    with pytest.raises(SettingsError, match=r"client\.subscribes_per_s \(2\) times burst_s"):
        load(overrides={"client": {"subscribes_per_s": 2}}, env={})
