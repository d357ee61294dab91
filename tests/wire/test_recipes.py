"""The code of docs/publishing.md: from threads, other processes, Celery and Django, and the outbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.ports import free_port
from support.redis import RedisServer
from support.server import Running, running
from support.snippets import python_files

import hub
from hub import Hub, Publisher, RequestError

CODE = python_files("publishing.md")
HISTORY = {"history_size": 100, "history_ttl_s": 60}
SETTINGS = sdk.settings(channels={"orders": HISTORY, "shop": HISTORY})


@contextlib.asynccontextmanager
async def shop() -> AsyncIterator[tuple[Hub, Running]]:
    """A hub with the channels of the snippets."""
    async with sdk.live(SETTINGS) as (hub, server):
        yield hub, server


async def run(folder: Path, *command: str, **env: str) -> str:
    """Run Python in a folder, and return what it writes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def sent(hub: Hub, channel: str) -> list[Any]:
    """The data of a channel's publications."""
    return [publication.data for publication in (await hub.history(channel)).publications]


def module(name: str, **given: Any) -> SimpleNamespace:
    """A snippet as a module, with modules that it imports in place of those that are installed."""
    scope: dict[str, Any] = {"__name__": name}
    with pytest.MonkeyPatch.context() as patch:
        for each, value in given.items():
            patch.setitem(sys.modules, each, value)
        exec(compile(CODE[name], name, "exec"), scope)  # noqa: S102 - a page of the project
    return SimpleNamespace(**scope)


def test_every_snippet_is_tested_here() -> None:
    source = Path(__file__).read_text()
    assert [name for name in CODE if f'"{name}"' not in source] == []


async def test_a_def_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "Hub", lambda: Hub(SETTINGS))
    made = module("def_endpoint.py")
    async with running(made.app, SETTINGS) as server, httpx.AsyncClient(timeout=WAIT_S) as client:
        answers = [await client.post(f"{server.url}/orders/7/paid") for _ in range(2)]
        assert [answer.json() for answer in answers] == [1, 2]
        assert await sent(made.hub, "orders:7") == [{"status": "paid"}] * 2


@pytest.mark.parametrize("name", ["script.py", "async_script.py"])
async def test_scripts(name: str, tmp_path: Path) -> None:
    async with shop() as (live, server):
        (tmp_path / name).write_text(CODE[name])
        said = await run(tmp_path, name, LIVE_URL=server.url, LIVE_KEY=sdk.API_KEY)
        if name == "script.py":
            assert said == "{'status': 'sent'}\n"
            assert await sent(live, "shop:today") == [{"status": "sent"}]
        assert (await sent(live, "orders:7"))[0] == {"status": "paid"}


async def test_celery(tmp_path: Path) -> None:
    """Two processes that a worker forked publish: each task runs twice, and sends once."""
    (tmp_path / "tasks.py").write_text(CODE["tasks.py"])
    with RedisServer() as redis:
        env = {"CELERY_BROKER": redis.url, "LIVE_KEY": sdk.API_KEY}
        async with shop() as (live, server):
            env["LIVE_URL"] = server.url
            log = (tmp_path / "log").open("wb")
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "celery", "-A", "tasks", "worker"),
                *("-P", "prefork", "-c", "2", "-l", "INFO"),
                cwd=tmp_path,
                env={**os.environ, **env},
                stdout=log,
                stderr=log,
            )
            try:
                ask = (
                    "from tasks import tell_paid\nfor n in range(20): tell_paid.delay(n); tell_paid.delay(n)"
                )
                await run(tmp_path, "-c", ask, **env)
                async with asyncio.timeout(WAIT_S):
                    while (tmp_path / "log").read_text().count(" succeeded in ") < 40:
                        assert worker.returncode is None, (tmp_path / "log").read_text()
                        await asyncio.sleep(0.05)  # of another process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    worker.terminate()
                await asyncio.wait_for(worker.wait(), WAIT_S)
                log.close()
            # Each task ran twice, and sent once.
            for number in range(20):
                assert await sent(live, f"orders:{number}") == [{"status": "paid"}]


DJANGO = """
import os
import django
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["*"], INSTALLED_APPS=["shop"], ROOT_URLCONF="urls",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite"}},
)
django.setup()
from django.db import connection
from django.test import Client
from shop.models import Order
with connection.schema_editor() as editor:
    editor.create_model(Order)
order = Order.objects.create(pk=7, status="new")
answer = Client().post("/orders/7/paid")
order.refresh_from_db()
print(answer.status_code, order.status)
"""


@pytest.mark.parametrize("is_away", [False, True], ids=["the hub is there", "the hub is away"])
async def test_django(tmp_path: Path, is_away: bool) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(
        "from django.db import models\n"
        "class Order(models.Model):\n    status = models.CharField(max_length=9)\n"
    )
    (package / "views.py").write_text(CODE["views.py"])
    (tmp_path / "urls.py").write_text(
        "from django.urls import path\nfrom shop import views\n"
        "urlpatterns = [path('orders/<int:number>/paid', views.paid)]\n"
    )
    async with shop() as (live, server):
        url = f"http://127.0.0.1:{free_port()}" if is_away else server.url
        said = await run(tmp_path, "-c", DJANGO, LIVE_URL=url, LIVE_KEY=sdk.API_KEY)
        assert said.splitlines()[-1] == "200 paid"
        assert await sent(live, "orders:7") == ([] if is_away else [{"status": "paid"}])


def database() -> sqlite3.Connection:
    """A database with one order. One thread at a time uses it."""
    db = sqlite3.connect(":memory:", check_same_thread=False)
    with db:
        db.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, status TEXT)")
        db.execute("INSERT INTO orders VALUES (7, 'new')")
    return db


def status(db: sqlite3.Connection) -> str:
    [[found]] = db.execute("SELECT status FROM orders")
    return str(found)


async def test_after_the_commit(caplog: pytest.LogCaptureFixture) -> None:
    pay = module("after_commit.py").pay
    async with shop() as (live, server):
        with Publisher(server.url, sdk.API_KEY) as publisher, contextlib.closing(database()) as db:
            for _ in range(2):
                await asyncio.to_thread(pay, db, publisher, 7)
            assert (status(db), await sent(live, "orders:7")) == ("paid", [{"status": "paid"}])
        url = server.url
    with Publisher(url, sdk.API_KEY, timeout_s=0.2) as publisher, contextlib.closing(database()) as db:
        await asyncio.to_thread(pay, db, publisher, 7)
        assert status(db) == "paid"
    assert "order 7 is paid, and its page was not told: no hub answered at" in caplog.text


async def test_the_outbox() -> None:
    outbox = module("outbox.py")
    pay = module("orders.py", outbox=outbox).pay
    paid = {"number": 7, "status": "paid"}
    with contextlib.closing(database()) as db:
        db.execute(outbox.SCHEMA)
        outbox.enqueue(db, "orders:7", "rolled back")
        db.rollback()
        pay(db, 7)
        with Publisher("http://127.0.0.1:1", "key", timeout_s=0.2) as publisher, pytest.raises(RequestError):
            outbox.send_pending(db, publisher)
        assert status(db) == "paid"
        async with shop() as (live, server):
            with Publisher(server.url, sdk.API_KEY) as publisher:
                # As by a poller that died between the publication and the deletion.
                [[number]] = db.execute("SELECT id FROM outbox").fetchall()
                publish = publisher.publish
                await asyncio.to_thread(publish, "orders:7", paid, idempotency_key=f"outbox-{number}")
                with db:
                    outbox.enqueue(db, "unknown:7", "refused")
                    outbox.enqueue(db, "orders:7", "next")
                assert await asyncio.to_thread(outbox.send_pending, db, publisher) == 3
                assert await asyncio.to_thread(outbox.send_pending, db, publisher) == 0
            assert await sent(live, "orders:7") == [paid, "next"]
        [[channel, error]] = db.execute("SELECT channel, error FROM outbox").fetchall()
        assert channel == "unknown:7"
        assert error.startswith("unknown channel: no [channels.unknown] is configured")
