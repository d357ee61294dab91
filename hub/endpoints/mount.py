"""Where the endpoints lie in an app."""

from __future__ import annotations

from starlette.routing import Match, Mount
from starlette.types import Scope


class HubMount(Mount):
    """A mount that works behind a proxy that strips a prefix from the path.

    With `FastAPI(root_path="/shop")`, such a proxy and the path `/live/readyz`, the root path of a mount is
    `/shop/live`. Starlette finds a route of the mount only in a path that begins with the root path, as ASGI
    has it.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        if match is not Match.NONE and not scope["path"].startswith(child["root_path"]):
            child["path"] = scope["root_path"] + scope["path"]
        return match, child
