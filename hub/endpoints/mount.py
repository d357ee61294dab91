"""Where the endpoints lie in an app."""

from __future__ import annotations

from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

from hub.endpoints.websocket import elsewhere
from hub.errors import SetupError

_PROBES: Final = (
    ("websocket", "GET", "/connection/websocket"),
    ("http", "GET", "/connection/websocket"),
    ("http", "POST", "/api/publish"),
)
"""Requests for the hub: their ASGI type, method and path."""


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


def check_target(app: Any, path: Any) -> None:
    """Check that a hub can be installed into an app.

    Args:
        app: should be a Starlette or FastAPI app that has not started.
        path: should be where the hub's endpoints go.

    Raises:
        SetupError: it cannot. The text names the remedy.
    """
    if not isinstance(app, Starlette):
        raise SetupError(
            f"hub.install takes a Starlette or FastAPI app, and not {app!r:.80}: beside an app of another"
            " framework run hub serve, and publish with hub.Publisher"
        )
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise SetupError(f"{path!r} is no path in an app: give hub.install one such as /live")
    if app.middleware_stack is not None:
        raise SetupError(
            "the app has started already: call hub.install(app) where the app is made, not in its lifespan"
        )


def add_mount(app: Starlette, mount: HubMount) -> None:
    """Add the hub's endpoints to an app.

    A WebSocket for which the app has no route is told where the hub is, unless the app handles such requests.

    Raises:
        SetupError: another route of the app takes the hub's requests. The text names the route.
    """
    if any(isinstance(route, Mount) and route.path == mount.path for route in app.router.routes):
        shown = mount.path or "/"
        raise SetupError(f"{shown} is taken by another hub or app: give each a path of its own")
    for route in app.router.routes:
        if any(_takes(route, *_at(mount, probe)) for probe in _PROBES):
            shown = getattr(route, "path", "") or "/"
            raise SetupError(
                f"the app's route {shown} takes the requests to the hub at {mount.path or '/'}: call"
                " hub.install(app) before that route is added"
            )
    app.router.routes.append(mount)
    if app.router.default == app.router.not_found:
        app.router.default = elsewhere(mount.path, app.router.not_found)


def _at(mount: HubMount, probe: tuple[str, str, str]) -> tuple[str, str, str]:
    kind, method, path = probe
    return kind, method, mount.path + path


def _takes(route: BaseRoute, kind: str, method: str, path: str) -> bool:
    scope: Scope = {"type": kind, "method": method, "path": path, "root_path": "", "headers": []}
    return route.matches(scope)[0] is Match.FULL
