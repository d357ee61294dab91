"""The token of a connection or of a subscription: fetched where there is none, renewed before its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hub.client.backoff import backoff_s
from hub.client.errors import UnauthorizedError
from hub.client.timers import Timer, Timers
from hub.errors import RequestError

RENEWAL_LEAST_S: Final = 1.0
RETRY_LEAST_S: Final = 5.0
RETRY_MOST_S: Final = 10.0
"""A renewal that failed is tried again after a time between the two."""

_RENEWED_AT: Final = 0.9
"""How much of a token's life is over when it is renewed."""

_TTL_MAX_S: Final = 31_536_000
"""A longer life is taken for this one."""

Fetched: TypeAlias = Callable[[str | Exception], None]
"""Takes what `get_token` came to: a token, empty for a refusal, or why there is none for now."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """What every token manager of a client shares.

    Args:
        timers: of the client.
        now: monotonic seconds.
        chance: a random number from 0 up to 1.
        ask: asks the app for the token of a channel; an empty name stands for the connection.
    """

    timers: Timers
    now: Callable[[], float]
    chance: Callable[[], float]
    ask: Callable[[str, Fetched], None]


class TokenManager:
    """A token, and its renewal.

    Args:
        source: of tokens, and the client's time.
        token: the first one.
        renewable: whether the app can be asked for others.
        channel: the subscription's, empty for the connection.
        present: has the hub take a renewed token; `answered` is to have the result.
        problem: a renewal failed for now.
        refused: there is no token any more, and why: code and reason.
    """

    def __init__(
        self,
        source: TokenSource,
        token: str,
        *,
        renewable: bool,
        channel: str,
        present: Callable[[str], None],
        problem: Callable[[Exception], None],
        refused: Callable[[int, str], None],
    ) -> None:
        self.token = token
        self.renewable = renewable
        self._source = source
        self._channel = channel
        self._present = present
        self._problem = problem
        self._refused = refused
        self._timer: Timer | None = None
        self._turn = 0
        self._presented = 0
        """The turn in which the token was presented."""

    @property
    def missing(self) -> bool:
        """Whether a token has to be fetched first."""
        return not self.token and self.renewable

    def fetch(self, then: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Fetch a token, then go on; a refusal goes to `refused`, anything else to `failed`.

        After a `stop` nothing of this is heard any more.
        """
        self._turn += 1
        turn = self._turn

        def fetched(outcome: str | Exception) -> None:
            if turn != self._turn:
                return
            if outcome == "" or isinstance(outcome, UnauthorizedError):
                self._refused(1, "unauthorized")
            elif isinstance(outcome, Exception):
                failed(outcome)
            else:
                self.token = outcome
                then()

        self._source.ask(self._channel, fetched)

    def hold(self, expires: bool, ttl: int) -> None:
        """The hub said when the token ends: renew it before, where that is possible.

        Args:
            expires: whether it does.
            ttl: seconds until then.
        """
        self.stop()
        if expires and self.renewable:
            self._renew_in(max(min(ttl, _TTL_MAX_S) * _RENEWED_AT, RENEWAL_LEAST_S))

    def stop(self) -> None:
        """What the token was for is gone: renew nothing."""
        self._turn += 1
        if self._timer is not None:
            self._timer.cancel()

    def answered(self, outcome: Any) -> None:
        """The hub answered to a renewed token, with a result that has `expires` and `ttl`, or an error.

        After a `stop` the answer means nothing: what the token was for is gone, or begins again.
        """
        if self._presented != self._turn:
            return
        if not isinstance(outcome, RequestError):
            self.hold(outcome.expires, outcome.ttl)
        elif outcome.temporary:
            self._again(outcome)
        else:
            self._refused(outcome.code, outcome.message)

    def _renew_in(self, delay_s: float) -> None:
        renew = lambda: self.fetch(self._renew, self._again)  # noqa: E731
        self._timer = self._source.timers.at(self._source.now() + delay_s, renew)

    def _renew(self) -> None:
        self._presented = self._turn
        self._present(self.token)

    def _again(self, error: Exception) -> None:
        self._renew_in(backoff_s(0, RETRY_LEAST_S, RETRY_MOST_S, self._source.chance()))
        self._problem(error)
