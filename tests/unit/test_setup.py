"""What an app may do once alone when it sets a hub up."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

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
    getattr(one, f"on_{event}")(first)
    with pytest.raises(SetupError, match=f"on_{event} has a handler already, .*first: call both from one"):
        getattr(one, f"on_{event}")(lambda event: None)
    assert one._handlers[event] is first
    getattr(other, f"on_{event}")(first)


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
    monkeypatch.setattr("hub.program.can_restart", lambda: False)
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
