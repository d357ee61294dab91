"""The public keys of a JWKS URL (RFC 7517 section 5), kept fresh."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import httpx
import msgspec
from msgspec import Raw, Struct

from hub.core.tokens import VerifyingKey, jwk_key
from hub.telemetry import RateLimitedLog, get_logger

FETCH_TIMEOUT_S: Final = 5
FETCH_INTERVAL_S: Final = 5
"""Seconds between two fetches at least, however many tokens name keys that the set lacks."""

LOOK_UP_S: Final = 2
"""Seconds that one token waits for a fetch. Clients wait for their answer for 5 s, and then try again."""

ASKED_MAX: Final = 1_000
"""Ids of keys that are remembered from one fetch to the next. Clients with others are asked to try again."""

REFRESH_INTERVAL_S: Final = 3_600
"""Seconds for which a key that the issuer withdrew is trusted at the most, while the URL answers."""

KEY_SET_BYTES_MAX: Final = 1_048_576

MEMBER_DEPTH_MAX: Final = 8
"""Nesting of arrays and objects in a key set. Deeper values are ignored: no key contains them."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[\[\]{}]', re.DOTALL)
"""A string or a bracket of JSON text."""

_log = get_logger("hub.keys")


class _KeySetForm(Struct):
    keys: list[Raw]


class KeySet:
    """The keys that a JWKS URL publishes. If a fetch fails, the keys of the last one stay.

    A token that names a key which the set lacks is invalid only if a later fetch lacks the key too. Until
    then nobody knows, and the client is asked to try again. So neither an issuer that is down nor a key that
    is newer than the last fetch turns a client away for good.

    Args:
        url: of the set. Redirects are not followed.
        clock: monotonic seconds.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: dict[str, VerifyingKey] = {}
        self._tried_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None
        self._asked: set[str] = set()
        """Ids that tokens named since the last fetch began, and that the set lacks."""
        self._absent: frozenset[str] = frozenset()
        """Ids that tokens named before the last fetch began, and that it did not bring."""
        self._is_current = False
        """Whether the last fetch succeeded."""
        self._log = RateLimitedLog(_log)

    @property
    def keys(self) -> Mapping[str, VerifyingKey]:
        """The keys by `kid`, in a mapping that each fetch updates."""
        return self._keys

    async def start(self) -> None:
        """Begin to fetch the set, now and every hour. This does not wait for the first fetch."""
        self._client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_S)
        self._refresher = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """Stop fetching, and cancel the request in progress."""
        tasks = [self._refresher, *([self._fetching] if self._fetching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def refresh(self) -> None:
        """Fetch the set, or wait for the fetch in progress. Do nothing until `FETCH_INTERVAL_S` after one."""
        if self._fetching is None:
            now = self._clock()
            if now < self._tried_at + FETCH_INTERVAL_S:
                return
            self._tried_at = now
            asked, self._asked = self._asked, set()
            self._fetching = asyncio.create_task(self._fetch(asked))
        await asyncio.shield(self._fetching)

    async def lacks(self, kid: str) -> bool:
        """Look for a key that a token names. Returns whether the issuer is known not to publish the key.

        False means that the set has the key now, or that the issuer could not be asked yet.
        """
        if len(self._asked) < ASKED_MAX:
            self._asked.add(kid)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_UP_S):
                await self.refresh()
        return kid in self._absent and kid not in self._keys

    async def _keep_fresh(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_INTERVAL_S if self._is_current else FETCH_INTERVAL_S)

    async def _fetch(self, asked: set[str]) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = await asyncio.to_thread(_keys_in, await self._body())
        except Exception as exc:  # the refresher must outlive whatever the URL answers
            self._is_current, self._absent = False, frozenset()
            self._log.warning("keys.fetch_failed", url=self._url, reason=str(exc) or type(exc).__name__)
            return
        finally:
            self._fetching = None
        self._is_current, self._absent = True, frozenset(asked - keys.keys())
        self._keys.clear()
        self._keys.update(keys)

    async def _body(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"HTTP status {response.status_code}")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > KEY_SET_BYTES_MAX:
                    raise ValueError(f"longer than {KEY_SET_BYTES_MAX} bytes")
        return bytes(body)


def _keys_in(body: bytes) -> dict[str, VerifyingKey]:
    """The keys of a JWKS by `kid`.

    Raises:
        ValueError: the body is not a JWKS.
    """
    keys = {}
    for member in msgspec.json.decode(_without_deep_values(body), type=_KeySetForm).keys:
        try:
            jwk = msgspec.json.decode(member, type=dict[str, Any])
        except ValueError:
            continue  # RFC 7517 section 5: implementations ignore members that they do not understand
        if isinstance(kid := jwk.get("kid"), str) and (key := jwk_key(jwk)):
            keys[kid] = key
    return keys


def _without_deep_values(text: bytes) -> bytes:
    """Replace values nested deeper than `MEMBER_DEPTH_MAX` by null: a parser that recurses fails for them."""
    kept = bytearray()
    depth = end = 0
    for token in _TOKEN.finditer(text):
        bracket = token[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth == MEMBER_DEPTH_MAX + 1:
                kept += text[end : token.start()] + b"null"
        elif bracket in (b"]", b"}"):
            depth -= 1
            if depth == MEMBER_DEPTH_MAX:
                end = token.end()
    return bytes(kept) + text[end:] if depth <= MEMBER_DEPTH_MAX else bytes(kept)
