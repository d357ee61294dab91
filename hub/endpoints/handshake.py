"""Which requests may connect, over any transport: by their origin, their URL, and the limits of the node."""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from hub.node.admission import retry_after
from hub.node.node import Node
from hub.node.state import STOPPED

NOT_RUNNING: Final = (
    "the hub is not running: hub.install(app) runs it with an app that has not started and is not mounted in"
    " another; an app with a lifespan of its own enters hub.lifespan() in it"
)

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class RequestChecks:
    """Refuses requests that may not connect, and counts and logs why.

    Args:
        node: that gets the requests.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._refusals = node.refusals
        self._log = node.refusals.log

    def refuse_host(self, request: HTTPConnection) -> PlainTextResponse | None:
        """Return the answer to a request that names a foreign host; None to all others.

        Only an insecure hub checks the host. A page of another site may give its own name the address of
        this hub (DNS rebinding). To the browser the hub is then of the page's origin; the host shows it.
        """
        settings = self._node.settings
        if not settings.client.insecure:
            return None
        server = request.scope.get("server") or ("", None)
        served = (settings.server.host, str(server[0]))
        for host in request.headers.getlist("host"):
            if not is_served(host, served, settings.client.allowed_origins):
                self._log.warning("host.refused", host=host)
                self._refusals.count("host")
                return PlainTextResponse(
                    "this host is not local: in development mode the hub serves local hosts, server.host,"
                    " and the hosts of client.allowed_origins\n",
                    403,
                )
        return None

    def refuse_page(self, request: HTTPConnection) -> PlainTextResponse | None:
        """Return the answer to a page that may not connect, by its host or origin; None to all others."""
        if refusal := self.refuse_host(request):
            return refusal
        for origin in request.headers.getlist("origin"):
            if not self._is_allowed(request, origin):
                remedy = "not in client.allowed_origins: add the origin, if its pages may connect"
                self._log.warning("origin.refused", origin=origin, reason=remedy)
                self._refusals.count("origin")
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
        remedy = "a token in a URL would be logged: send the token in the connect command"
        self._log.warning("client.token_in_url", path=request.url.path, reason=remedy)
        self._refusals.count("token_in_url")
        return PlainTextResponse("a token in the URL would be logged: send it in the connect command\n", 400)

    def refuse_excess(self, request: HTTPConnection) -> PlainTextResponse | None:
        """Return the answer where the node takes no more connections; None where it takes this one."""
        reason = self._node.admission.refusal(address_of(request))
        if reason == STOPPED:
            self._log.warning("hub.not_running", reason=NOT_RUNNING)
        return busy(reason) if reason else None

    def refuse_key(self, method: str, reason: str) -> None:
        """Count and log a call of the server API without the right key.

        Args:
            method: of the API, as the caller named it.
            reason: why the key is not the right one, in a few fixed words.
        """
        self._log.warning("api.refused", kind=reason, method=method[:64], reason=reason)
        self._refusals.count("api_key")

    def cors(self, request: HTTPConnection) -> dict[str, str]:
        """Return the headers that let a page of another origin read the answer, if it may (Fetch, CORS)."""
        origin = request.headers.get("origin")
        if origin is None or not self._is_allowed(request, origin):
            return {}
        headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if self._is_allowed(request, origin, by_name=True):
            # The page may send the cookies that a WebSocket sends. Pages that only `*` allows may not.
            headers["Access-Control-Allow-Credentials"] = "true"
        return headers

    def _is_allowed(self, request: HTTPConnection, origin: str, *, by_name: bool = False) -> bool:
        settings = self._node.settings
        allowed = settings.client.allowed_origins
        if by_name:
            allowed = tuple(each for each in allowed if each != "*")
        return is_allowed(origin, request.headers.get("host", ""), allowed, dev=settings.dev)


def busy(reason: str) -> PlainTextResponse:
    """Return a 503 that says when to come back."""
    text = f"this node takes no connection now ({reason}): retry later"
    text = NOT_RUNNING if reason == STOPPED else text
    return PlainTextResponse(f"{text}\n", 503, {"Retry-After": retry_after()})


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


@lru_cache(maxsize=64)
def is_served(host: str, served: tuple[str, ...], origins: tuple[str, ...]) -> bool:
    """Whether an insecure hub serves requests to a host: a local one, one that it serves on, or a named one.

    Args:
        host: the Host header.
        served: the host that the hub was told to bind, and the address that the request came to.
        origins: `client.allowed_origins`, whose hosts are served too.
    """
    name = _host_name(f"//{host}")
    if not name:
        return False
    if name == "localhost" or name.endswith(".localhost") or name in served:
        return True
    if any(name == _host_name(origin) for origin in origins):
        return True
    try:
        address = ipaddress.ip_address(name)
        # A hub that is bound to all addresses is reached by any. No other site has an address for its name.
        return address.is_loopback or any(ipaddress.ip_address(each).is_unspecified for each in served[:1])
    except ValueError:
        return False


def _host_name(url: str) -> str:
    """The host in a URL, in lower case and without its port; empty where it cannot be read."""
    try:
        parts = urlsplit(url)
        is_plain = "@" not in parts.netloc and url.endswith(parts.netloc)
        return (parts.hostname or "").rstrip(".") if is_plain else ""
    except ValueError:
        return ""


def has_token(query: bytes, besides: str = "") -> bool:
    """Whether a query seems to hold a token, in another parameter than the one that may."""
    return bool(query) and any(
        "token" in name.lower()
        or "jwt" in name.lower()
        or (value.startswith("eyJ") and value.count(".") == 2)
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if name != besides
    )


def forget_query(scope: MutableMapping[str, Any]) -> None:
    """Take the query out of a request, once it was read: a server that logs requests would log its tokens.

    A middleware that hands on a copy of the scope keeps the query in the original.
    """
    scope["query_string"] = b""


def is_binary(request: HTTPConnection) -> bool:
    """Whether a request's body is Protobuf, and the answer is to be."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    return media_type.lower() == "application/octet-stream"


def address_of(request: HTTPConnection) -> str:
    """The peer's address, as the proxies before the hub say; empty where it has none."""
    client = request.scope.get("client")
    return client[0] if client else ""
