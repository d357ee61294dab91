"""A client of the server API for code that has an event loop of its own, and no hub in it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import msgspec
from msgspec import Raw

from hub.client import posting
from hub.client.exchange import (
    TIMEOUT_S,
    APICall,
    HTTPAnswer,
    Try,
    TryFailure,
    call_of,
    call_of_body,
    checked_key,
    checked_url,
    exchange,
    result_of,
)
from hub.protocol import api
from hub.protocol.server_api import ServerAPI


class AsyncPublisher(ServerAPI):
    """A client of the server API for asyncio: `Publisher`, with the calls to await.

    Each event loop has connections of its own, so that one publisher serves one `asyncio.run` after another,
    and each process after a fork. Tries, keys and errors are those of `Publisher`.

    Args:
        url: of the hub, such as `http://127.0.0.1:8000`; with its path where it lives in an app.
        key: of the server API (`api.key`).
        timeout_s: how long a call may take, with all its tries, in seconds.

    Raises:
        SetupError: the URL is not one of HTTP, or no HTTP header can carry the key.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = checked_url(url)
        self._options = posting.options(checked_key(key))
        self._timeout_s = timeout_s
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def _run(self, request: api.Request) -> Any:
        return result_of(request, await self._perform(call_of(request, secrets.token_hex(16))))

    async def request(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Call any method of the server API, as `Publisher.request`."""
        call = call_of_body(method, body, secrets.token_hex(16))
        return dict(msgspec.json.decode(await self._perform(call)))

    async def _perform(self, call: APICall) -> Raw:
        """Make a call: the loop around `exchange`."""
        steps = exchange(call, self._url, self._timeout_s, time.monotonic(), posting.chances())
        step = next(steps)
        while True:
            outcome = None
            if isinstance(step, Try):
                outcome = await self._post(call, step.timeout_s)
            else:
                await asyncio.sleep(step.duration_s)
            try:
                step = steps.send((outcome, time.monotonic()))
            except StopIteration as end:
                result: Raw = end.value
                return result

    async def _post(self, call: APICall, timeout_s: float) -> HTTPAnswer | TryFailure:
        url = f"{self._url}/api/{call.method}"
        try:
            return posting.answer(await self._connections().post(url, content=call.body, timeout=timeout_s))
        except posting.ERRORS as error:
            return posting.failure(error)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._connections().aclose()

    def _connections(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._pools.get(loop)
        if client is None:
            client = self._pools[loop] = httpx.AsyncClient(**self._options)
        return client

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
