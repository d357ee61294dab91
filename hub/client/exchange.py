"""One call to the server API over HTTP: its tries, their outcomes and its errors, without I/O or clock.

A call is a generator. It yields a `Try` or a `Pause`, and is sent what became of it; it returns the result as
JSON text. `Publisher` and `AsyncPublisher` drive it.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from hub.client.backoff import backoff_s
from hub.errors import RequestError, SetupError, UnconfirmedError
from hub.protocol import api
from hub.protocol.payloads import in_json
from hub.protocol.server_api import refusal

TIMEOUT_S: Final = 5.0
"""How long a call may take, with all its tries."""

IDLE_S: Final = 3.0
"""Seconds that an idle connection is kept. Servers and proxies keep it for 5 seconds and longer, so that a
call seldom meets a connection that the other side closes at that moment; then the call is tried again."""

RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
"""Wait between two tries: at random, up to a bound that doubles."""

TRY_MIN_S: Final = 1.0
"""A try gets half of the time that is left, so that another one can follow, but at least this."""

_READS: Final = frozenset({"presence", "presence_stats", "history", "channels", "info"})
_KEYED: Final = frozenset({"publish", "broadcast"})
_NOT_CARRIED_OUT: Final = frozenset({429, 503})
_REMEDIES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted: install the authority that signed it",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: try http:// in place of https://",
}
"""What to do about failures that no further try mends, by a part of their text."""


@dataclass(frozen=True, slots=True)
class APICall:
    """A request on its way.

    Args:
        method: of the server API.
        body: JSON text.
        key: the idempotency key, if any.
    """

    method: str
    body: bytes
    key: str = ""

    @property
    def is_repeatable(self) -> bool:
        """Whether the call may be made again although it may have been carried out."""
        return bool(self.key) or self.method in _READS


@dataclass(frozen=True, slots=True)
class Try:
    """Send the request, and wait for the answer for so many seconds."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """An HTTP response came.

    Args:
        status: its status code.
        body: its body.
        location: where it redirects to; empty for none.
    """

    status: int
    body: bytes
    location: str = ""


@dataclass(frozen=True, slots=True)
class TryFailure:
    """No HTTP response came.

    Args:
        why: what happened.
        was_sent: whether the hub may have read the request.
        is_final: whether another try would fail alike.
    """

    why: str
    was_sent: bool
    is_final: bool = False


Step: TypeAlias = Try | Pause
Exchange: TypeAlias = Generator[Step, tuple[HTTPAnswer | TryFailure | None, float], Raw]
"""Is sent what became of a step, None after a `Pause`, and the time then, in monotonic seconds."""


class _Reply(Struct):
    result: Raw | UnsetType = UNSET
    error: api.ErrorResult | None = None


def checked_url(url: str) -> str:
    """Return the URL of a hub, without a slash at its end.

    Raises:
        SetupError: it is no URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SetupError(f"{url!r} is no URL of a hub's server API: give one such as http://127.0.0.1:8000")
    return url.rstrip("/")


def checked_key(key: str) -> str:
    """Return an API key that a header can carry.

    Raises:
        SetupError: it cannot.
    """
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise SetupError("the API key has a space, a newline or another character that no header carries")
    return key


def call_of(request: api.Request, new_key: str) -> APICall:
    """The call of a request of `hub.protocol.api`.

    Args:
        request: of a method of the server API.
        new_key: becomes the idempotency key of a publication that has none.
    """
    method, key = api.METHOD_OF[type(request)], ""
    changes: dict[str, Any] = {}
    if isinstance(request, api.PublishRequest | api.BroadcastRequest):
        key = changes["idempotency_key"] = request.idempotency_key or new_key
    for name in ("data", "info"):
        # In JSON, binary payloads have members of their own.
        if isinstance(data := getattr(request, name, None), bytes):
            changes |= {name: UNSET, f"b64{name}": base64.b64encode(data).decode()}
    body = msgspec.json.encode(msgspec.structs.replace(request, **changes), enc_hook=in_json)
    return APICall(method, body, key)


def call_of_body(method: str, body: Mapping[str, Any], new_key: str) -> APICall:
    """The call of a method of the server API with the fields of its body. `new_key` is as of `call_of`."""
    key = str(body.get("idempotency_key") or "")
    if method in _KEYED and not key:
        key = new_key
        body = {**body, "idempotency_key": key}
    return APICall(method, msgspec.json.encode(body), key)


def result_of(request: api.Request, result: Raw) -> Any:
    """The result of a request of `hub.protocol.api`, from its JSON text.

    Raises:
        RequestError: it is not the result of such a request.
    """
    _, result_type = api.METHODS[api.METHOD_OF[type(request)]]
    try:
        return msgspec.json.decode(result, type=result_type)
    except msgspec.ValidationError as error:
        raise RequestError(0, f"the hub is of another version: {error}") from None


def exchange(call: APICall, url: str, budget_s: float, now: float, chances: Iterator[float]) -> Exchange:
    """Make a call, again if need be, until it is answered or its time is over.

    A call that the hub did not carry out is made again; a call that it may have carried out only where a
    repeat changes nothing.

    Args:
        call: what to do.
        url: of the hub, for errors.
        budget_s: seconds for all tries.
        now: monotonic seconds.
        chances: numbers from 0 up to 1, for the waits.

    Raises:
        RequestError: the hub refused, or did not answer.
        UnconfirmedError: the hub may have carried out the call.
    """
    ends_at = now + budget_s
    was_sent = False
    attempt = 0
    while True:
        left_s = ends_at - now
        outcome, now = yield Try(min(left_s, max(left_s / 2, TRY_MIN_S)))
        if isinstance(outcome, HTTPAnswer):
            verdict = _verdict(outcome, url)
            if isinstance(verdict, Raw):
                return verdict
            error, may_repeat = verdict, verdict.temporary
            is_sent = may_repeat and outcome.status not in _NOT_CARRIED_OUT
        else:
            assert outcome is not None, "a try has an outcome"
            error, may_repeat, is_sent = _lost(outcome, url), not outcome.is_final, outcome.was_sent
        was_sent = was_sent or is_sent
        pause_s = backoff_s(attempt, RETRY_MIN_S, RETRY_MAX_S, next(chances))
        if not may_repeat or (is_sent and not call.is_repeatable) or now + pause_s >= ends_at:
            break
        _, now = yield Pause(pause_s)
        attempt += 1
    if was_sent and call.method not in _READS:
        message = f"{error.message}; the hub may have carried out the call"
        raise UnconfirmedError(message, call.key, code=error.code)
    raise error


def _verdict(answer: HTTPAnswer, url: str) -> Raw | RequestError:
    """The result that an answer brings, or its error: a temporary one if the call may be made again."""
    reply: _Reply | None
    try:
        reply = msgspec.json.decode(answer.body, type=_Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        reply = None
    status = answer.status
    if status == 200 and reply is not None:
        if reply.error is not None:
            return refusal(reply.error)
        if isinstance(reply.result, Raw):
            return reply.result
    said = f": {reply.error.message}" if reply is not None and reply.error is not None else ""
    if status == 401:
        return RequestError(0, f"the hub at {url} did not accept the API key: give its api.key")
    if status == 413:
        return RequestError(0, f"the call is larger than {url} takes{said}")
    if status in _NOT_CARRIED_OUT or status in (408, 500, 502, 504):
        return RequestError(0, f"{url} answered HTTP {status}{said}", temporary=True)
    if 300 <= status < 400:
        return RequestError(0, f"{url} redirects to {answer.location or 'nowhere'}: give the URL of the hub")
    remedy = "" if said else ": give the URL of the hub, with its path where it lives in an app"
    return RequestError(0, f"{url} answered HTTP {status}, and not as a hub does{said or remedy}")


def _lost(failure: TryFailure, url: str) -> RequestError:
    """The error of a try without an answer."""
    if failure.was_sent:
        return RequestError(0, f"no answer came from {url}: {failure.why}", temporary=True)
    for sign, remedy in _REMEDIES.items():
        if sign in failure.why:
            return RequestError(0, f"no hub answered at {url}: {remedy} ({failure.why})")
    remedy = "give a URL such as http://127.0.0.1:8000" if failure.is_final else "is it running?"
    return RequestError(0, f"no hub answered at {url}: {failure.why}; {remedy}", not failure.is_final)


def is_hopeless(why: str) -> bool:
    """Whether a failure to connect is one that no further try mends."""
    return any(sign in why for sign in _REMEDIES)
