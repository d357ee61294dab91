"""What a run proved: for each subscriber what it has, against what was acknowledged and what Redis holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.faults.clients import Publisher, Subscriber
from loadtests.faults.cluster import History


@dataclass
class Verdict:
    """The figures of one fault, over all subscribers.

    Args:
        lost: publications that a subscriber should have and has not; one more for each subscriber that is not
            subscribed, or not at the end of the stream that there is.
        told: times that a subscriber was told that something is missing (2500, or not recovered).
        dropped: sockets that broke.
        lateness_s: the longest that a publication took.
        history_reads: streams that Redis read.
    """

    published: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    told: int = 0
    dropped: int = 0
    lateness_s: float = 0.0
    history_reads: int = 0


@dataclass
class Account:
    """What a publisher did: the part of it that counts here."""

    published: int
    refused: int
    dropped: int
    acknowledged: dict[str, dict[int, float]]


def judge(
    subscribers: Sequence[Subscriber],
    publishers: Sequence[Publisher | Account],
    histories: Mapping[str, History],
    *,
    history_reads: int,
) -> Verdict:
    """Compare. One that was told is forgiven what was acknowledged before, where Redis has it no more."""
    verdict = Verdict(
        published=sum(publisher.published for publisher in publishers),
        acknowledged=sum(len(ids) for publisher in publishers for ids in publisher.acknowledged.values()),
        refused=sum(publisher.refused for publisher in publishers),
        dropped=sum(client.dropped for client in (*subscribers, *publishers)),
        history_reads=history_reads,
    )
    acknowledged: dict[str, dict[int, float]] = {}
    for publisher in publishers:
        for channel, ids in publisher.acknowledged.items():
            acknowledged.setdefault(channel, {}).update(ids)
    for subscriber in subscribers:
        _judge_one(verdict, subscriber, acknowledged[subscriber.channel], histories[subscriber.channel])
    return verdict


def _judge_one(
    verdict: Verdict, subscriber: Subscriber, acknowledged: Mapping[int, float], history: History
) -> None:
    has = set(subscriber.ids)
    verdict.delivered += len(subscriber.ids)
    verdict.told += subscriber.told
    verdict.lateness_s = max(verdict.lateness_s, subscriber.lateness_s)
    verdict.duplicated += subscriber.repeated + len(subscriber.ids) - len(has)
    verdict.out_of_order += subscriber.jumps + _inversions(subscriber.ids)
    missing = acknowledged.keys() - has
    if subscriber.told:
        missing = {id_ for id_ in missing if acknowledged[id_] > subscriber.told_at}
    verdict.lost += len(missing | (set(history.ids) - has))
    is_lost = not subscriber.subscribed.is_set() or subscriber.epoch != history.epoch
    verdict.lost += is_lost or subscriber.offset != history.offset


def _inversions(ids: Sequence[int]) -> int:
    """How often a publication came after a later one of its publisher."""
    count = 0
    last: dict[int, int] = {}
    for id_ in ids:
        publisher = id_ % 10
        count += id_ < last.get(publisher, 0)
        last[publisher] = id_
    return count
