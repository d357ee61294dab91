"""What browsers load: the client `hub.js`, and in development mode the chat page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

_STATIC: Final = Path(__file__).parent.parent / "static"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_TYPES: Final = "application/typescript; charset=utf-8"
_NO_SNIFFING: Final = {"X-Content-Type-Options": "nosniff"}

_PAGE_HEADERS: Final = {
    **_NO_SNIFFING,
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
_STATIC_HEADERS: Final = {**_NO_SNIFFING, "Cache-Control": "no-cache"}
# A page of any origin may load the client; who may connect with it is decided at the connection.
_CLIENT_HEADERS: Final = {
    **_STATIC_HEADERS,
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

_IMPORTED: Final = ("calls.js", "common.js", "stream.js", "subscription.js")
"""The scripts that `hub.js` imports."""


def client_routes() -> list[BaseRoute]:
    """The browser client for the pages of every app: `static/hub.js`, what it imports, and its types."""
    return [
        _file("/static/hub.js", "hub.js", _SCRIPT, _CLIENT_HEADERS | {"X-TypeScript-Types": "./hub.d.ts"}),
        *(_file(f"/static/{name}", name, _SCRIPT, _CLIENT_HEADERS) for name in _IMPORTED),
        _file("/static/hub.d.ts", "hub.d.ts", _TYPES, _CLIENT_HEADERS),
    ]


def routes() -> list[BaseRoute]:
    """The chat page of the development mode and all that it loads. Its addresses are relative to its own."""
    return [
        _file("/", "chat.html", "text/html; charset=utf-8", _PAGE_HEADERS),
        _file("/static/chat.js", "chat.js", _SCRIPT, _STATIC_HEADERS),
        _file("/static/room.js", "room.js", _SCRIPT, _STATIC_HEADERS),
        _file("/static/chat.css", "chat.css", "text/css; charset=utf-8", _STATIC_HEADERS),
        *client_routes(),
    ]


def _file(path: str, name: str, media_type: str, headers: dict[str, str]) -> Route:
    async def serve(request: Request) -> Response:
        return FileResponse(_STATIC / name, media_type=media_type, headers=headers)

    return Route(path, serve, name=name)
