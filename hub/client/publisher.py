"""A client for code that has no event loop: a script, a Django view, a Celery task."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

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
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.messages import StreamPosition
from hub.protocol.server_api import ServerAPI
from hub.protocol.values import ClientInfo, HistoryResult, PresenceStatsResult

_T = TypeVar("_T")

_publishers: WeakSet[Publisher] = WeakSet()
"""All of this process, which a fork concerns."""


class Publisher:
    """A blocking client of the server API. Threads may share it, and it may be used after a fork.

    A call is tried again, within its time, until the hub has answered it. A publication without an
    idempotency key gets one, so that it is sent once, however many tries it takes.

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
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._inherited: list[httpx.Client] = []
        _publishers.add(self)
        self._calls = _Calls(self)

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> StreamPosition:
        """Publish to a channel.

        Args:
            channel, data, tags, skip_history, idempotency_key, delta: as of `Hub.publish`.

        Returns:
            Its position; offset 0 where the channel keeps no history.

        Raises:
            RequestError: the hub refused, or could not be reached.
            UnconfirmedError: no answer came in time, so the publication may have been sent.
            TypeError, ValueError: the data or the tags have no JSON form.
        """
        return _finish(
            self._calls.publish(
                channel,
                data,
                tags=tags,
                skip_history=skip_history,
                idempotency_key=idempotency_key,
                delta=delta,
            )
        )

    def broadcast(
        self,
        channels: Iterable[str],
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> list[StreamPosition]:
        """Publish the same to several channels, as `Hub.broadcast`. Errors are those of `publish` too."""
        return _finish(
            self._calls.broadcast(
                channels,
                data,
                tags=tags,
                skip_history=skip_history,
                idempotency_key=idempotency_key,
                delta=delta,
            )
        )

    def history(
        self, channel: str, *, limit: int = -1, since: StreamPosition | None = None, reverse: bool = False
    ) -> HistoryResult:
        """Read a channel's history, as `Hub.history`."""
        return _finish(self._calls.history(channel, limit=limit, since=since, reverse=reverse))

    def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Return who is in a channel, as `Hub.presence`."""
        return _finish(self._calls.presence(channel))

    def presence_stats(self, channel: str) -> PresenceStatsResult:
        """Return how many clients and users are in a channel, as `Hub.presence_stats`."""
        return _finish(self._calls.presence_stats(channel))

    def subscribe(
        self, user: str, channel: str, *, info: Any = None, data: Any = None
    ) -> api.ConfirmedResult:
        """Subscribe the connections that a user has now to a channel, as `Hub.subscribe`."""
        return _finish(self._calls.subscribe(user, channel, info=info, data=data))

    def unsubscribe(self, user: str, channel: str) -> api.ConfirmedResult:
        """Unsubscribe a user's connections from a channel, as `Hub.unsubscribe`."""
        return _finish(self._calls.unsubscribe(user, channel))

    def disconnect(
        self, user: str, disconnect: Disconnect = Disconnects.FORCE_NO_RECONNECT, *, revoke: bool = False
    ) -> api.ConfirmedResult:
        """End a user's connections, as `Hub.disconnect`."""
        return _finish(self._calls.disconnect(user, disconnect, revoke=revoke))

    def refresh(self, user: str, *, expired: bool = False, expire_at: int = 0) -> api.ConfirmedResult:
        """Move the end of a user's connections, as `Hub.refresh`."""
        return _finish(self._calls.refresh(user, expired=expired, expire_at=expire_at))

    def request(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Call any method of the server API.

        Args:
            method: such as `channels` or `drain`.
            body: its fields.

        Raises:
            RequestError, UnconfirmedError: as `publish`.
        """
        return dict(msgspec.json.decode(self._perform(call_of_body(method, body, secrets.token_hex(16)))))

    def _perform(self, call: APICall) -> Raw:
        """Make a call: the loop around `exchange`."""
        steps = exchange(call, self._url, self._timeout_s, time.monotonic(), posting.chances())
        step = next(steps)
        while True:
            outcome = None
            if isinstance(step, Try):
                outcome = self._post(call, step.timeout_s)
            else:
                time.sleep(step.duration_s)
            try:
                step = steps.send((outcome, time.monotonic()))
            except StopIteration as end:
                result: Raw = end.value
                return result

    def _post(self, call: APICall, timeout_s: float) -> HTTPAnswer | TryFailure:
        url = f"{self._url}/api/{call.method}"
        try:
            return posting.answer(self._connections().post(url, content=call.body, timeout=timeout_s))
        except posting.ERRORS as error:
            return posting.failure(error)

    def close(self) -> None:
        """Close the connections to the hub. A later call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connections(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(**self._options)
            return self._client

    def _on_fork(self) -> None:
        """In the child of a fork, leave the parent's connections alone.

        A connection that two processes share would give each the answers of the other. The child keeps the
        parent's, unused, since to close them could disturb their streams.
        """
        self._lock = threading.Lock()  # a thread of the parent may have held the other one
        if self._client is not None:
            self._inherited.append(self._client)
            self._client = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Calls(ServerAPI):
    """The server API over a publisher. Its coroutines block, and never wait for an event loop."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def _run(self, request: api.Request) -> Any:
        return result_of(request, self._publisher._perform(call_of(request, secrets.token_hex(16))))


def _finish(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    raise AssertionError("a call of a blocking publisher does not wait for an event loop")


def _after_fork() -> None:
    for publisher in list(_publishers):
        publisher._on_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
