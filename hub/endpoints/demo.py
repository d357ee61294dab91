"""What browsers load: the client `hub.js`, and in development mode the chat page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
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
        # The page shows itself in a frame, as a second person.
        " frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
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
_SCRIPTS: Final = (
    "chat.js",
    "code.js",
    "elements.js",
    "guest.js",
    "links.js",
    "messages.js",
    "network.js",
    "people.js",
    "person.js",
    "recovery.js",
    "room.js",
    "rooms.js",
    "typing.js",
)
_STYLES: Final = ("chat.css", "demo.css", "room.css")


def client_routes() -> list[BaseRoute]:
    """The browser client for the pages of every app: `static/hub.js`, what it imports, and its types."""
    return [
        _file("/static/hub.js", "hub.js", _SCRIPT, _CLIENT_HEADERS | {"X-TypeScript-Types": "./hub.d.ts"}),
        *(_file(f"/static/{name}", name, _SCRIPT, _CLIENT_HEADERS) for name in _IMPORTED),
        _file("/static/hub.d.ts", "hub.d.ts", _TYPES, _CLIENT_HEADERS),
    ]


def routes(*handlers: Callable[..., Any]) -> list[BaseRoute]:
    """The chat page of the development mode and all that it loads. Its addresses are relative to its own.

    Args:
        handlers: functions of the server that the page shows the source of, as `static/handlers.py`.
    """
    source = "\n\n".join(inspect.getsource(handler) for handler in handlers)

    async def serve_source(request: Request) -> Response:
        return PlainTextResponse(source, headers=_STATIC_HEADERS)

    return [
        _file("/", "chat.html", "text/html; charset=utf-8", _PAGE_HEADERS),
        *(_file(f"/static/{name}", name, _SCRIPT, _STATIC_HEADERS) for name in _SCRIPTS),
        *(_file(f"/static/{name}", name, "text/css; charset=utf-8", _STATIC_HEADERS) for name in _STYLES),
        Route("/static/handlers.py", serve_source),
        *client_routes(),
    ]


def _file(path: str, name: str, media_type: str, headers: dict[str, str]) -> Route:
    async def serve(request: Request) -> Response:
        return FileResponse(_STATIC / name, media_type=media_type, headers=headers)

    return Route(path, serve, name=name)
