"""Who may open a connection, whatever the transport: by its origin, its URL, and the room that there is."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from hub.node.admission import retry_after
from hub.node.node import Node
from hub.telemetry import get_logger

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_log = get_logger("hub.handshake")


def refuse_page(node: Node, request: HTTPConnection) -> PlainTextResponse | None:
    """The answer to a page of an origin that is not allowed; None to all others."""
    for origin in request.headers.getlist("origin"):
        if not _is_allowed(node, request, origin):
            _log.warning("origin.refused", origin=origin)
            return PlainTextResponse("this origin is not in client.allowed_origins\n", 403)
    return None


def refuse_token(request: HTTPConnection, *, besides: str = "") -> PlainTextResponse | None:
    """The answer to a URL that holds a token; None to all others.

    Args:
        besides: the one parameter that may, where there is no other place for it.
    """
    if not has_token(request.scope["query_string"], besides):
        return None
    _log.warning("client.token_in_url", path=request.url.path)
    return PlainTextResponse("a token in the URL would be logged: send it in the connect command\n", 400)


def refuse_crowd(node: Node, request: HTTPConnection) -> PlainTextResponse | None:
    """The answer where the node takes no more connections; None where it takes this one."""
    reason = node.admission.refusal(address_of(request))
    return busy(reason) if reason else None


def busy(reason: str) -> PlainTextResponse:
    """503, and when to come back."""
    text = f"this node takes no connection now ({reason}): retry later\n"
    return PlainTextResponse(text, 503, {"Retry-After": retry_after()})


def cors(node: Node, request: HTTPConnection) -> dict[str, str]:
    """What lets a page of another origin read the answer, where it may connect (Fetch standard, CORS)."""
    origin = request.headers.get("origin")
    if origin is None or not _is_allowed(node, request, origin):
        return {}
    # No credentials: a cookie means nothing to the hub.
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def preflight(request: HTTPConnection, method: str) -> Response:
    """The answer to another method than an endpoint's: to a browser that asks before it sends, or 405."""
    if request.scope["method"] != "OPTIONS":
        return PlainTextResponse(f"this endpoint takes {method}\n", 405, {"Allow": f"{method}, OPTIONS"})
    headers = {
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": "86400",
    }
    return Response(status_code=204, headers=headers)


def _is_allowed(node: Node, request: HTTPConnection, origin: str) -> bool:
    settings = node.settings
    host = request.headers.get("host", "")
    return is_allowed(origin, host, settings.client.allowed_origins, dev=settings.dev)


def is_allowed(origin: str, host: str, allowed: tuple[str, ...], *, dev: bool) -> bool:
    """Whether a page may connect: one of the same host, one on the list, in development a local one.

    Compared to the letter, since a browser writes an origin in one way only (RFC 6454 section 6.2).

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
