"""A client for code that has no event loop: a script, a Django view, a Celery task."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

import httpx
import msgspec

from hub.errors import RequestError
from hub.protocol.messages import StreamPosition, payload

TIMEOUT_S: Final = 5.0

IDLE_S: Final = 3.0
"""Seconds that an idle connection is kept. Servers and proxies keep it for 5 seconds and longer, so no call
meets a connection that the other side closes at that moment."""

RETRY_AFTER_S: Final = 0.3
"""Seconds until a call that was not carried out is made again, once."""

_READS: Final = frozenset({"presence", "presence_stats", "history", "channels", "info"})
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_CUT_OFF: Final = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class Publisher:
    """A blocking client of the server API. Safe to share between threads, and to use after a fork.

    Args:
        url: of the hub, such as `http://127.0.0.1:8000`; with its path where it lives in an app.
        key: of the server API (`api.key`).
        timeout_s: how long a call may take.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._pool = self._make_pool()

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
            channel: its name.
            data: any JSON value, or `bytes`, which are binary.
            tags: sent with the publication.
            skip_history: keep it out of the channel's history.
            idempotency_key: a repeat with the same key within five minutes sends nothing, so that a call
                that failed can be made again.
            delta: send what changed since the publication before to those who take deltas.

        Returns:
            Its position; offset 0 where the channel keeps no history.

        Raises:
            RequestError: the hub refused, or did not answer.
        """
        # What msgspec makes of bytes in JSON is base64.
        body: dict[str, Any] = {
            "channel": channel,
            "b64data" if isinstance(data, bytes) else "data": payload(data),
        }
        if tags:
            body["tags"] = dict(tags)
        if skip_history:
            body["skip_history"] = True
        if idempotency_key:
            body["idempotency_key"] = idempotency_key
        if delta:
            body["delta"] = True
        result = self.request("publish", body)
        return StreamPosition(result.get("offset", 0), result.get("epoch", ""))

    def request(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Call any method of the server API.

        A call is made once more where the hub certainly did not carry it out: no connection could be made,
        or the answer was 503. The same holds for a call whose connection ended before the answer, if the call
        changes nothing or has an idempotency key.

        Args:
            method: such as `broadcast` or `disconnect`.
            body: its fields.

        Raises:
            RequestError: the hub refused, or did not answer.
        """
        repeatable = method in _READS or bool(body.get("idempotency_key"))
        content = msgspec.json.encode(body)
        try:
            reply = self._post(method, content)
            is_done = reply.status_code != httpx.codes.SERVICE_UNAVAILABLE
        except (*_UNSENT, *_CUT_OFF) as exc:
            if not repeatable and not isinstance(exc, _UNSENT):
                raise self._lost(exc) from None
            is_done = False
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise self._lost(exc) from None
        if not is_done:
            time.sleep(RETRY_AFTER_S)
            try:
                reply = self._post(method, content)
            except httpx.HTTPError as exc:
                raise self._lost(exc) from None
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            raise RequestError(0, f"the hub at {self._url} did not accept the API key: give its api.key")
        try:
            answer = reply.json()
            if "error" in answer:
                raise RequestError(answer["error"]["code"], answer["error"]["message"])
            return dict(answer["result"])
        except (ValueError, KeyError, TypeError):
            raise RequestError(
                0, f"{self._url} answered HTTP {reply.status_code}, and not as a hub does"
            ) from None

    def _post(self, method: str, content: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return self._connections().post(f"{self._url}/api/{method}", content=content, headers=headers)

    def _lost(self, exc: httpx.HTTPError | httpx.InvalidURL) -> RequestError:
        """The error of a call without an answer."""
        why = str(exc) or type(exc).__name__
        if isinstance(exc, (*_UNSENT, httpx.InvalidURL, httpx.UnsupportedProtocol)):
            return RequestError(0, f"no hub answered at {self._url}: {why}; is it running?", True)
        text = f"no answer came from {self._url}: {why}; the hub may have carried out the call"
        return RequestError(0, text, True)

    def close(self) -> None:
        """Close the connections to the hub."""
        self._connections().close()

    def _make_pool(self) -> tuple[int, httpx.Client]:
        limits = httpx.Limits(keepalive_expiry=IDLE_S)
        headers = {"X-API-Key": self._key}
        return os.getpid(), httpx.Client(headers=headers, timeout=self._timeout_s, limits=limits)

    def _connections(self) -> httpx.Client:
        """Return the connections of this process: after a fork, the child makes its own.

        A connection that two processes share would give each the answers of the other. The child closes none
        of the parent's, whose streams such a close could disturb.
        """
        process, client = self._pool
        if process != os.getpid():
            self._pool = _, client = self._make_pool()
        return client

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
