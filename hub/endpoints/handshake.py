"""Which requests may connect, over any transport: by their origin, their URL, and the limits of the node."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from hub.node.admission import retry_after
from hub.node.node import Node
from hub.telemetry import RateLimitedLog, get_logger

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_log = get_logger("hub.handshake")


class RequestChecks:
    """Refuses requests that may not connect, and counts and logs why.

    Args:
        node: that gets the requests.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = RateLimitedLog(_log)

    def refuse_page(self, request: HTTPConnection) -> PlainTextResponse | None:
        """Return the answer to a page of an origin that is not allowed; None to all others."""
        for origin in request.headers.getlist("origin"):
            if not self._is_allowed(request, origin):
                self._log.warning("origin.refused", origin=origin)
                self._count("origin")
                return PlainTextResponse("this origin is not in client.allowed_origins\n", 403)
        return None

    def refuse_token(self, request: HTTPConnection, *, besides: str = "") -> PlainTextResponse | None:
        """Return the answer to a URL that holds a token; None to all others.

        Args:
            request: with the URL.
            besides: the one parameter that may hold a token, where there is no other place for it.
        """
        if not has_token(request.scope["query_string"], besides):
            return None
        self._log.warning("client.token_in_url", path=request.url.path)
        self._count("token_in_url")
        return PlainTextResponse("a token in the URL would be logged: send it in the connect command\n", 400)

    def refuse_excess(self, request: HTTPConnection) -> PlainTextResponse | None:
        """Return the answer where the node takes no more connections; None where it takes this one."""
        reason = self._node.admission.refusal(address_of(request))
        return busy(reason) if reason else None

    def refuse_key(self, method: str, reason: str) -> None:
        """Count and log a call of the server API without the right key.

        Args:
            method: of the API, as the caller named it.
            reason: why the key is not the right one, in a few fixed words.
        """
        self._log.warning("api.refused", kind=reason, method=method[:64], reason=reason)
        self._count("api_key")

    def cors(self, request: HTTPConnection) -> dict[str, str]:
        """Return the headers that let a page of another origin read the answer, if it may (Fetch, CORS)."""
        origin = request.headers.get("origin")
        if origin is None or not self._is_allowed(request, origin):
            return {}
        # No credentials: a cookie means nothing to the hub.
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    def _is_allowed(self, request: HTTPConnection, origin: str) -> bool:
        settings = self._node.settings
        host = request.headers.get("host", "")
        return is_allowed(origin, host, settings.client.allowed_origins, dev=settings.dev)

    def _count(self, reason: str) -> None:
        self._node.metrics.refusals.labels(reason).inc()


def busy(reason: str) -> PlainTextResponse:
    """Return a 503 that says when to come back."""
    text = f"this node takes no connection now ({reason}): retry later\n"
    return PlainTextResponse(text, 503, {"Retry-After": retry_after()})


def preflight(request: HTTPConnection, method: str) -> Response:
    """Answer a request with another method than the endpoint's: a CORS preflight, or 405."""
    if request.scope["method"] != "OPTIONS":
        return PlainTextResponse(f"this endpoint takes {method}\n", 405, {"Allow": f"{method}, OPTIONS"})
    headers = {
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": "86400",
    }
    return Response(status_code=204, headers=headers)


def is_allowed(origin: str, host: str, allowed: tuple[str, ...], *, dev: bool) -> bool:
    """Whether a page may connect: of the same host, of an origin on the list, or in development a local page.

    Origins are compared exactly, since a browser writes an origin in one way only (RFC 6454 section 6.2).

    Args:
        origin: the Origin header.
        host: the Host header of the same request.
        allowed: origins, or `*` for all.
        dev: whether the hub is in development mode.
    """
    if "*" in allowed or origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False  # such as half an IPv6 address
    if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
        return False
    if parts.netloc == host:
        return True
    return dev and parts.netloc.rpartition(":")[0 if ":" in parts.netloc else 2] in _LOCAL


def has_token(query: bytes, besides: str = "") -> bool:
    """Whether a query seems to hold a token, in another parameter than the one that may."""
    return any(
        "token" in name.lower()
        or "jwt" in name.lower()
        or (value.startswith("eyJ") and value.count(".") == 2)
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if name != besides
    )


def is_binary(request: HTTPConnection) -> bool:
    """Whether a request's body is Protobuf, and the answer is to be."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/octet-stream"


def address_of(request: HTTPConnection) -> str:
    """The peer's address, as the proxies before the hub say; empty where it has none."""
    return request.client.host if request.client else ""
