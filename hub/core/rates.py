"""Rate limits: token buckets, filled as time goes by and emptied by what clients do. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from hub.protocol.codes import Error, Errors
from hub.settings import ClientSettings

SWEEP_MIN: Final = 1024
"""Buckets of users that are kept before those that are full again are looked for."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done.

    Args:
        per_s: times a second; 0 for no limit.
        burst: times that may be saved up, and spent at once.
    """

    per_s: float
    burst: float


class Bucket:
    """What is left of a rate. It begins full."""

    __slots__ = ("_at", "_spent")

    def __init__(self) -> None:
        self._spent = 0.0
        self._at = 0.0

    def take(self, rate: Rate, now: float) -> float:
        """Do it once, if the rate allows.

        Returns:
            0 where it may be done; else the seconds until it may.
        """
        spent = self._spent_at(rate, now)
        if spent + 1 > rate.burst:
            return (spent + 1 - rate.burst) / rate.per_s
        self._spent, self._at = spent + 1, now
        return 0.0

    def is_full(self, rate: Rate, now: float) -> bool:
        """Whether it is as good as a new one."""
        return self._spent_at(rate, now) == 0

    def _spent_at(self, rate: Rate, now: float) -> float:
        return max(0.0, self._spent - (now - self._at) * rate.per_s)


class UserBuckets:
    """A bucket for each user, kept while it is not full.

    Args:
        rate: of each user.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, user: str, now: float) -> float:
        """As `Bucket.take`, of this user. Those without an id share none, and have no limit."""
        if not self._rate.per_s or not user:
            return 0.0
        bucket = self._buckets.get(user)
        if bucket is None:
            self._sweep(now)
            bucket = self._buckets[user] = Bucket()
        return bucket.take(self._rate, now)

    def _sweep(self, now: float) -> None:
        if len(self._buckets) >= self._sweep_at:
            rate = self._rate
            self._buckets = {
                user: each for user, each in self._buckets.items() if not each.is_full(rate, now)
            }
            self._sweep_at = max(SWEEP_MIN, 2 * len(self._buckets))


class Rates:
    """The rate limits of a node.

    Args:
        client: what may be done how often.
    """

    def __init__(self, client: ClientSettings) -> None:
        def rate(per_s: float) -> Rate:
            return Rate(per_s, max(1.0, per_s * client.burst_s))

        self.publish: Final = rate(client.publishes_per_s)
        self.subscribe: Final = rate(client.subscribes_per_s)
        self.user_publish: Final = UserBuckets(rate(client.user_publishes_per_s))
        self.limits_publishes: Final = bool(client.publishes_per_s or client.user_publishes_per_s)
        self.user_connect: Final = UserBuckets(rate(client.user_connects_per_s))


def too_many(wait_s: float) -> Error:
    """The answer to what comes too often, with the time after which it may be repeated."""
    refusal = Errors.TOO_MANY_REQUESTS
    return replace(refusal, message=f"{refusal.message}: retry in {wait_s:.1f} s")
