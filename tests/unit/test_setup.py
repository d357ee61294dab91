"""What an app may do once alone when it sets a hub up."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from hub import Hub, SetupError
from hub.config import load
from hub.core.hooks import HOOKS
from hub.server import run


def hub() -> Hub:
    return Hub(load(env={}))


@pytest.mark.parametrize("event", HOOKS.values())
def test_a_second_handler_of_an_event_is_refused(event: str) -> None:
    def first(event: object) -> None:
        pass

    one, other = hub(), hub()
    name = event if event == "after_publish" else f"on_{event}"
    getattr(one, name)(first)
    with pytest.raises(SetupError, match=f"{name} has a handler already, .*first: call both from one"):
        getattr(one, name)(lambda event: None)
    assert [each.function for each in one._handlers.all()] == [first]
    getattr(other, name)(first)


@pytest.mark.parametrize("make", [Starlette, FastAPI])
def test_a_hub_is_installed_once(make: type[Starlette]) -> None:
    one, app = hub(), make()
    one.install(app)
    for other_app, path in ((app, "/live"), (app, "/other"), (make(), "/live")):
        with pytest.raises(SetupError, match=r"installed already: hub\.install\(app\) is called once"):
            one.install(other_app, path)
    assert app.state.hubs == [one]


def test_two_hubs_of_an_app_have_paths_of_their_own() -> None:
    app, one, other = Starlette(), hub(), hub()
    one.install(app, "/one")
    for path in ("/one", "/one/"):
        with pytest.raises(SetupError, match=r"^/one/? is taken by another hub"):
            other.install(app, path)
    other.install(app, "/two")
    assert app.state.hubs == [one, other]


@pytest.mark.parametrize("make", [Starlette, FastAPI])
def test_a_hub_is_not_installed_behind_what_takes_its_requests(make: type[Starlette]) -> None:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()

    behind: list[tuple[Callable[[Starlette], object], str]] = [
        (lambda app: app.mount("/", Starlette()), "/"),
        (lambda app: app.mount("/shop", Starlette()), "/shop"),
        (lambda app: app.router.add_route("/{path:path}", answer), "/{path:path}"),
        (lambda app: app.router.add_websocket_route("/{path:path}", accept), "/{path:path}"),
        (lambda app: hub().install(app, "/shop"), "/shop"),
    ]
    for add, route in behind:
        app = make()
        add(app)
        with pytest.raises(
            SetupError, match=re.escape(f"the app's route {route} takes the requests to the hub")
        ):
            hub().install(app, "/shop/live")
    app = make()
    app.host("shop.example", Starlette())
    app.mount("/shop/lives", Starlette())
    app.router.add_route("/shop/live-orders", answer)
    app.router.add_websocket_route("/{name}", accept)
    hub().install(app, "/shop/live")


@pytest.mark.parametrize(
    ("app", "path", "fault"),
    [
        ("/live", "/live", "takes a Starlette or FastAPI app, and not '/live'"),
        (object, "/live", "takes a Starlette or FastAPI app"),
        (Starlette(), "live", "'live' is no path in an app"),
        (Starlette(), "http://app/live", "'http://app/live' is no path in an app"),
        (Starlette(), None, "None is no path in an app"),
    ],
)
def test_a_hub_is_not_installed_into_what_is_no_app(app: Any, path: Any, fault: str) -> None:
    with pytest.raises(SetupError, match=re.escape(fault)):
        hub().install(app, path)


async def test_an_app_that_answers_all_else_by_itself_goes_on_to() -> None:
    app = Starlette()
    app.router.default = default = PlainTextResponse("x")
    hub().install(app)
    assert app.router.default is default


async def test_a_hub_has_one_life_at_a_time() -> None:
    one = hub()
    async with one.lifespan():
        with pytest.raises(SetupError, match="started already"):
            async with one.lifespan():
                pass
        await one.publish("news", 1)
    async with one.lifespan():
        await one.publish("news", 1)


def test_run_refuses_workers_where_it_cannot_start_the_program_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.process.program.can_restart", lambda: False)
    settings = load(
        overrides={"server": {"workers": 2}, "redis": {"url": "redis://127.0.0.1"}, "dev": True}, env={}
    )
    app = Starlette()
    Hub(settings).install(app)
    with pytest.raises(SetupError, match=r"^server\.workers = 2: a worker starts this program again"):
        run(app, settings)


def test_run_refuses_an_app_without_a_hub() -> None:
    with pytest.raises(SetupError, match=r"call hub\.install"):
        run(Starlette(), load(env={}))
