"""The npm package `hub-realtime` in apps that Vite builds. Their components are those of docs/browser.md."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from browser.conftest import OpenWindow
from browser.proxy import Proxy
from browser.window import Window
from playwright.async_api import expect
from starlette.staticfiles import StaticFiles
from support.limits import WAIT_S
from support.server import Running, running
from support.snippets import blocks

from hub.app import create_app
from hub.config import load

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP = Path(__file__).parent.parent / "js" / "app"
CHANNEL = "chat:lobby"
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join(
        (str(Path(sys.executable).parent), os.environ["PATH"], str(APP / "node_modules" / ".bin"))
    ),
    "npm_config_offline": "true",
    "npm_config_audit": "false",
}
"""The `python` of the documentation is the one of these tests, and no package comes from elsewhere."""

COMPONENTS = {"tsx": "react.tsx", "vue": "Room.vue", "svelte": "Room.svelte", "ts": "news.ts"}
"""Names of the files that the code blocks of docs/browser.md are written to, by language."""


async def _run(cwd: Path, name: str, *arguments: str) -> None:
    """Run a program of the system, or of the packages that the app is built with."""
    program = shutil.which(name, path=ENVIRONMENT["PATH"])
    assert program, f"{name} is missing: scripts/test installs it"
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(2 * WAIT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, f"{name}:\n{output.decode()}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the packed package installed, and the components of the documentation."""
    project = tmp_path_factory.mktemp("project")
    code = dict(blocks("browser.md"))
    await _run(project, "sh", "-ec", code["sh"])
    modules = project / "node_modules"
    for installed in (APP / "node_modules").iterdir():
        if not (modules / installed.name).exists():
            (modules / installed.name).symlink_to(installed)
    for source in APP.iterdir():
        if source.is_file() and source.name != "package.json":
            shutil.copy(source, project)
    for language, name in COMPONENTS.items():
        text = code[language].replace('"https://hub.example"', "location.origin")
        (project / name).write_text(text)
    return project


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(project: Path) -> Path:
    """The app as Vite builds it."""
    await _run(project, "vite", "build", "--logLevel", "warn")
    return project / "dist"


@asynccontextmanager
async def serving(site: Path) -> AsyncIterator[Running]:
    settings = load(
        overrides={
            "dev": True,
            "client": {"reconnect": {"presence_grace_s": 1}},
            "server": {"lag_max_s": 0},
        },
        env={},
    )
    app = create_app(settings)
    app.mount("/app", StaticFiles(directory=site))
    async with running(app, settings) as server:
        yield server


async def _shows(window: Window, *texts: str) -> None:
    await expect(window.page.locator("li")).to_have_text(list(texts))


async def _says(window: Window, text: str) -> None:
    await window.page.locator("[name=text]").fill(text)
    await window.page.keyboard.press("Enter")


@pytest.mark.parametrize("framework", ["react", "vue", "svelte"])
async def test_a_room_in_each_framework(open_window: OpenWindow, site: Path, framework: str) -> None:
    async with serving(site) as server, Proxy(server.port) as proxy:
        await server.app.state.hub.publish(CHANNEL, {"text": "before"})
        ann = await open_window(f"{proxy.url}/app/{framework}.html")
        bob = await open_window(f"{server.url}/app/{framework}.html")
        state = ann.page.locator("p")
        await expect(state).to_have_text("connected, 2 here")
        for window in (ann, bob):
            await _shows(window, "before")
        await _says(ann, "hello")
        await _shows(bob, "before", "hello")
        proxy.cut()
        await expect(state).to_contain_text("connecting")
        await _says(bob, "missed")
        await _shows(bob, "before", "hello", "missed")
        await _says(ann, "kept")
        proxy.heal()
        for window in (ann, bob):
            await _shows(window, "before", "hello", "missed", "kept")
        await bob.page.close()
        await expect(state).to_have_text("connected, 1 here")


async def test_the_types_hold_for_the_documentation_and_refuse_mistakes(project: Path) -> None:
    await _run(project, "tsc", "--project", str(project))


async def test_the_package_has_no_dependency_and_a_type_for_each_export(project: Path) -> None:
    package = project / "node_modules" / "hub-realtime"
    described = json.loads((package / "package.json").read_text())
    assert "dependencies" not in described
    for entry in described["exports"].values():
        for file in entry.values() if isinstance(entry, dict) else [entry]:
            assert (package / file).is_file()
    assert not [path.name for path in package.iterdir() if path.suffix in (".html", ".css")]
