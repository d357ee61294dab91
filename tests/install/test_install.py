"""The built distribution, installed with pip into environments of its own: what each extra makes work."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import httpx
import pytest
from support.limits import WAIT_S
from support.ports import free_port

from hub import server
from hub.version import commit

ROOT = Path(__file__).parents[2]
PIP_S = 600.0
"""What pip may take, which downloads."""

pytestmark = pytest.mark.timeout(2 * PIP_S)

SHOP = """
from fastapi import FastAPI

from hub import Hub, Settings

app = FastAPI()
hub = Hub(Settings().for_development())
hub.install(app, "/live")


@app.post("/say")
async def say(text: str) -> None:
    await hub.publish("news", {"text": text})
"""

READER = """
import asyncio, sys

import httpx

from hub import Publisher
from hub.client import Client


async def main(url):
    texts = asyncio.Queue()
    async with Client(url + "/live") as client:
        news = client.new_subscription("news")
        news.on_publication(lambda event: texts.put_nowait(event.pub.data["text"]))
        await news.subscribe()
        await news.ready()
        async with httpx.AsyncClient(timeout=60) as http:
            (await http.post(url + "/say", params={"text": "from the app"})).raise_for_status()
        print(await asyncio.wait_for(texts.get(), 60))
        with Publisher(url + "/live", "dev") as publisher:
            await asyncio.to_thread(publisher.publish, "news", {"text": "from a publisher"})
        print(await asyncio.wait_for(texts.get(), 60))


asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this source tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


class Environment:
    """An environment of its own, in which nothing is installed.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv")
        self._bin = folder / "venv" / "bin"
        hidden = ("HUB_", "PYTHON", "VIRTUAL_ENV", "COVERAGE", "COV_")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}

    @property
    def python(self) -> str:
        return str(self._bin / "python")

    def install(self, *requirements: str) -> None:
        """Install with pip, the ordinary way."""
        pip = (sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check")
        done = subprocess.run(
            [*pip, "install", "--quiet", *requirements], capture_output=True, text=True, timeout=PIP_S
        )
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, away from the source tree."""
        return subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=2 * WAIT_S,
        )

    def serving(self, port: int, path: str, program: str, *arguments: str) -> Served:
        """A server of the environment, once it answers with 200 under a path."""
        return Served(self, port, path, [str(self._bin / program), *arguments])


class Served:
    """A server in a process of its own: `with environment.serving(…)` waits until it answers."""

    def __init__(self, environment: Environment, port: int, path: str, command: list[str]) -> None:
        self._environment = environment
        self._command = command
        self._log = environment.folder / "log"
        self.url = f"http://127.0.0.1:{port}"
        self._path = path

    def __enter__(self) -> Served:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._environment.folder, env=self._environment.env, stdout=log, stderr=log
            )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}{self._path}", timeout=WAIT_S).status_code == 200:
                    return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)  # of another process

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


def test_the_wheel_and_the_sdist_have_the_commit_and_every_file(built: Path) -> None:
    [wheel] = built.glob("hub_realtime-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("hub/commit.txt").decode().strip() == commit()
    files = (path for folder in ("hub", "pytest_hub") for path in (ROOT / folder).rglob("*"))
    package = {str(path.relative_to(ROOT)) for path in files if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {name for name in names if ".dist-info/" not in name} == package | {"hub/commit.txt"}
    [sdist] = built.glob("hub_realtime-*.tar.gz")
    with tarfile.open(sdist) as archive:
        inner = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hub/commit.txt", "scripts/build_hook.py", "pyproject.toml"} <= inner


def test_the_plain_distribution_lives_in_an_app_beside_its_own_uvicorn(built: Path, tmp_path: Path) -> None:
    plain = Environment(tmp_path)
    [wheel] = built.glob("*.whl")
    plain.install(str(wheel), "fastapi", "starlette", "uvicorn!=0.54.*")
    found = plain.run("python", "-c", "import importlib.util as u; print(*map(u.find_spec, NAMES))".replace(
        "NAMES", repr(["typer", "rich", "httptools", "uvloop", "locust"])))  # fmt: skip
    assert found.stdout.split() == ["None"] * 5, found.stderr
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "reader.py").write_text(READER)
    port = free_port()
    with plain.serving(port, "/live/readyz", "uvicorn", "shop:app", "--port", str(port)) as shop:
        done = plain.run("python", "reader.py", shop.url)
    assert done.stdout.splitlines() == ["from the app", "from a publisher"], done.stderr
    lacking = plain.run("hub", "serve")
    assert (lacking.returncode, lacking.stdout) == (1, "")
    assert lacking.stderr == "hub: the command needs an extra: pip install 'hub-realtime[server]'\n"
    lacking = plain.run("python", "-c", "import hub.server")
    assert re.search(
        r"StartupError: the hub's server needs uvicorn 0\.54, and [\d.]+ is installed: pip install",
        lacking.stderr,
    )


def test_the_extras_serve_and_load_a_hub(built: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    [sdist] = built.glob("*.tar.gz")
    environment.install(f"{sdist}[server]")
    shown = environment.run("hub", "--version")
    assert re.fullmatch(r"hub [\d.]+, commit (\w+)\n", shown.stdout), shown.stderr
    assert commit() in shown.stdout
    port = free_port()
    with environment.serving(port, "/readyz", "hub", "serve", "--dev", "--port", str(port)) as hub:
        assert httpx.get(f"{hub.url}/readyz").json() == {"status": "healthy"}
    lacking = environment.run("hub", "load", "chat")
    assert (lacking.returncode, lacking.stdout) == (1, "")
    assert lacking.stderr == "hub: hub load needs an extra: pip install 'hub-realtime[load]'\n"
    environment.install(f"{sdist}[load]")
    environment.run("hub", "load", "idle", "--users", "2", "--minutes", "0.05", "--out", "run")
    assert '"connect"' in (tmp_path / "run" / "run.json").read_text()
    assert (tmp_path / "run" / "report.html").exists()


def test_the_server_says_which_uvicorn_it_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [pin] = [each for each in extras["server"] if each.startswith("uvicorn>=")]
    assert pin.startswith(f"uvicorn>={server.UVICORN},<")
