"""The public keys of a JWKS URL (RFC 7517 section 5), kept fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import msgspec
import structlog
from msgspec import Struct

from hub.core.tokens import VerifyingKey, jwk_key

FETCH_TIMEOUT_S: Final = 5
FETCH_INTERVAL_S: Final = 60
"""A key that no set holds costs one request in this time, however many tokens name such keys."""

REFRESH_INTERVAL_S: Final = 3_600
"""A key that the issuer withdrew is trusted this long at the most, while the URL answers."""

KEY_SET_BYTES_MAX: Final = 1_048_576

_log = structlog.get_logger("hub.keys")


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class KeySet:
    """The keys that a JWKS URL publishes. While it does not answer, those that it last gave stay.

    Args:
        url: where the set is; a redirect is not followed.
        clock: monotonic seconds.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: dict[str, VerifyingKey] = {}
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    @property
    def keys(self) -> Mapping[str, VerifyingKey]:
        """The keys by `kid`: one live mapping, that each fetch brings up to date."""
        return self._keys

    async def start(self) -> None:
        """Begin to fetch the set, now and every hour. Only who needs a key waits for the first fetch."""
        self._client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_S)
        self._refresher = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """End, and drop the request that is on its way."""
        tasks = [self._refresher, *([self._fetching] if self._fetching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def refresh(self) -> None:
        """Fetch the set, or wait for the fetch on its way. Within a minute of the last it does nothing."""
        if self._fetching is None:
            now = self._clock()
            if self._tried_at is not None and now < self._tried_at + FETCH_INTERVAL_S:
                return
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _keep_fresh(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_INTERVAL_S if self._keys else FETCH_INTERVAL_S)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                found = msgspec.json.decode(await self._body(), type=_KeySet).keys
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as exc:
            _log.warning("keys.fetch_failed", url=self._url, reason=str(exc) or type(exc).__name__)
            return
        finally:
            self._fetching = None
        keys = {jwk["kid"]: key for jwk in found if isinstance(jwk.get("kid"), str) and (key := jwk_key(jwk))}
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
