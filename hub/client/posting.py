"""What both publishers ask of httpx: how its errors read, and how it is set up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import httpx

from hub.client.exchange import IDLE_S, HTTPAnswer, TryFailure, is_hopeless

_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_FAULTY: Final = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)

ERRORS: Final = (httpx.HTTPError, httpx.InvalidURL)
"""What a request may raise."""


def chances() -> Iterator[float]:
    """Numbers from 0 up to 1, by which a call chooses its waits."""
    while True:
        yield random.random()  # noqa: S311 - jitter


def options(key: str) -> dict[str, Any]:
    """The arguments of an httpx client.

    Args:
        key: of the server API.
    """
    return {
        "headers": {"X-API-Key": key, "Content-Type": "application/json"},
        "limits": httpx.Limits(keepalive_expiry=IDLE_S),
    }


def answer(response: httpx.Response) -> HTTPAnswer:
    """What a response says."""
    return HTTPAnswer(response.status_code, response.content, response.headers.get("location", ""))


def failure(error: Exception) -> TryFailure:
    """What an exception of `ERRORS` says."""
    why = " ".join(str(error).split()) or type(error).__name__
    is_faulty = isinstance(error, _FAULTY)
    return TryFailure(why, not is_faulty and not isinstance(error, _UNSENT), is_faulty or is_hopeless(why))
