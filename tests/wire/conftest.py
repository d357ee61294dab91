"""What the wire tests need from outside Python."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sdk
from support.redis import RedisServer

JS = Path(__file__).parent.parent / "js"


@pytest.fixture(scope="session")
def js_clients() -> Path:
    """The folder with the clients from npm, installed where they are not yet."""
    wanted, installed = JS / "package.json", JS / "node_modules" / "installed"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        npm = shutil.which("npm")
        assert npm, "npm is missing: run scripts/test, which installs it"
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([npm, "install", "--prefix", str(JS), *options], check=True, timeout=100)
        installed.write_bytes(wanted.read_bytes())
    return JS


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis for whoever keeps to a prefix of its own."""
    with RedisServer() as redis:
        yield redis.url


@pytest.fixture(params=sdk.CLIENTS)
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What SDK clients speak: a test that uses this runs once for each, and not on one hub alone for both."""
    name: str = request.param
    monkeypatch.setattr(sdk, "encoding", name)
    if name != "json":
        monkeypatch.setattr(sdk, "redis_url", request.getfixturevalue("redis_url"))
    return name
