"""Where a hub is."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

PATH: Final = "/connection/websocket"
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def endpoint(url: str) -> str:
    """The address of a hub's WebSocket endpoint.

    Args:
        url: that of the endpoint (a `ws` or `wss` URL with a path), or of where the hub lives.

    Raises:
        ValueError: it is neither.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a hub: give one like https://hub.example")
    path = parts.path.rstrip("/")
    if not path.endswith(PATH) and not (parts.scheme.startswith("ws") and path):
        path += PATH
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))
