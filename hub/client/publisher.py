"""A client for code that has no event loop: a script, a Django view, a Celery task."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

import httpx
import msgspec

from hub.errors import RequestError
from hub.protocol.messages import StreamPosition, payload

TIMEOUT_S: Final = 5.0


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

        Args:
            method: such as `broadcast` or `disconnect`.
            body: its fields.

        Raises:
            RequestError: the hub refused, or did not answer.
        """
        try:
            reply = self._connections().post(
                f"{self._url}/api/{method}",
                content=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
            )
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            why = str(exc) or type(exc).__name__
            raise RequestError(0, f"no hub answered at {self._url}: {why}; is it running?", True) from None
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

    def close(self) -> None:
        """Close the connections to the hub."""
        self._connections().close()

    def _make_pool(self) -> tuple[int, httpx.Client]:
        return os.getpid(), httpx.Client(headers={"X-API-Key": self._key}, timeout=self._timeout_s)

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
