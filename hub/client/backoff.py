"""How long a client waits before it tries again, so that a crowd does not come back in step."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

RETRY_AFTER_MAX_S: Final = 3600.0
"""The longest wait that a server may ask for."""

_DOUBLINGS_MAX: Final = 30
"""Beyond it the bound no longer grows: an exponent without a limit overflows."""


def backoff_s(attempt: int, least_s: float, most_s: float, chance: float) -> float:
    """Seconds to wait before a try, with full jitter.

    The bound is cut to `most_s` before chance has its part: cut after it, all would wait `most_s` in the end.

    Args:
        attempt: how many tries failed before, from 0.
        least_s: the shortest wait.
        most_s: the longest.
        chance: from 0 up to 1, drawn anew each time.
    """
    bound_s = min(most_s - least_s, least_s * 2.0 ** min(attempt, _DOUBLINGS_MAX))
    return least_s + chance * bound_s


def retry_after_s(header: str | None, unix_now: float) -> float:
    """Seconds that a `Retry-After` asks for (RFC 9110 section 10.2.3); 0 for none, or one of no known form.

    Args:
        header: a number of seconds, or a date.
        unix_now: Unix seconds.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return min(max(date.timestamp() - unix_now, 0.0), RETRY_AFTER_MAX_S)
    except (ValueError, OverflowError):
        return 0.0
