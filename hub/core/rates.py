"""Rate limits by token buckets. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from hub.protocol.codes import Error, Errors
from hub.settings import ClientSettings

SWEEP_MIN: Final = 1024
"""Buckets of users that are kept before the full ones are removed."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit.

    Args:
        per_s: actions a second; 0 for no limit.
        burst: actions that may happen at once after a pause.
    """

    per_s: float
    burst: float


class Bucket:
    """The state of one rate limit. It begins full."""

    __slots__ = ("_at", "_spent")

    def __init__(self) -> None:
        self._spent = 0.0
        self._at = 0.0

    def take(self, rate: Rate, now: float) -> float:
        """Count one action, if the rate permits it.

        Returns:
            0 if it is permitted, otherwise the seconds until it is.
        """
        spent = self._spent_at(rate, now)
        if spent + 1 > rate.burst:
            return (spent + 1 - rate.burst) / rate.per_s
        self._spent, self._at = spent + 1, now
        return 0.0

    def is_full(self, rate: Rate, now: float) -> bool:
        """Whether the bucket is in the state of a new one."""
        return self._spent_at(rate, now) == 0

    def _spent_at(self, rate: Rate, now: float) -> float:
        return max(0.0, self._spent - (now - self._at) * rate.per_s)


class UserBuckets:
    """A bucket for each user, kept while it is not full.

    Args:
        rate: the limit of each user.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, user: str, now: float) -> float:
        """Count one action of a user, as `Bucket.take` does. Anonymous users have no limit."""
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
        client: the limits.
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
    """The error that answers a command beyond its rate limit, with the seconds to wait."""
    refusal = Errors.TOO_MANY_REQUESTS
    return replace(refusal, message=f"{refusal.message}: retry in {wait_s:.1f} s")
