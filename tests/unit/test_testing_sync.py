"""`SyncTestHub`, and the fixtures of pytest."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.shop import shop

from hub import (
    RPCEvent,
    RPCReply,
    SetupError,
)
from hub.testing import (
    Joined,
    LeakedTasksError,
    NextTimeoutError,
    SyncTestHub,
)

# Without async


def test_the_synchronous_kit_works_beside_a_test_client() -> None:
    app, _ = shop()
    for _ in range(2):
        with SyncTestHub(app) as hub, TestClient(app) as http:
            ann = hub.connect(user="ann")
            assert ann.subscribe("orders:1").recoverable
            assert http.post("/orders/1/paid").json() == {"offset": 1}
            assert ann.next().data == {"status": "paid"}
            ann.drop_link()
            http.post("/orders/1/shipped")
            ann.reconnect()
            assert ann.next().data == {"status": "shipped"}
            assert [each.data["status"] for each in hub.published("orders:1")] == ["paid", "shipped"]
            with hub.redis_away():
                assert hub.state == "degraded"
            assert hub.state == "healthy"
            hub.advance(61)
            assert ann.history("orders:1").publications == []


def test_the_synchronous_kit_runs_an_app_by_itself() -> None:
    app, inner = shop()

    @inner.on_rpc
    def rpc(event: RPCEvent) -> RPCReply:
        return RPCReply(event.data)

    told: list[Any] = []
    inner.on_message(told.append)
    for _ in range(2):
        with SyncTestHub(app) as hub:
            ann, bob = hub.connect(user="ann"), hub.connect(user="bob")
            assert ann.name == "ann"
            ann.subscribe("room:1", join_leave=True)
            bob.subscribe("room:1")
            bob.publish("room:1", "hello")
            assert ann.next().data == "hello"
            assert [ann.next(Joined).info.user for _ in range(2)] == ["ann", "bob"]
            assert len(ann.presence("room:1")) == 2
            assert ann.channels == ["room:1"]
            assert len(ann.received) == 3
            assert ann.rpc("echo", 1) == 1
            ann.send("typing")
            ann.unsubscribe("room:1")
            with pytest.raises(NextTimeoutError, match="subscribed to no channel"):
                ann.next(timeout=0.01)
            assert "connected" in ann.describe()
            assert repr(bob) == "<HubClient bob: connected>"
            assert bob.is_connected
            assert bob.id
            bob.disconnect()
            assert not bob.is_connected
    assert [event.data for event in told] == ["typing", "typing"]


def test_a_test_client_that_comes_too_late_is_told() -> None:
    app, _ = shop()
    with SyncTestHub(app) as hub:
        hub.connect(user="ann")
        with pytest.raises(SetupError, match="before the first connect"), TestClient(app):
            pass


def test_the_synchronous_kit_finds_leaked_tasks_too() -> None:
    app, inner = shop()

    async def forgotten() -> None:
        await asyncio.sleep(3600)

    @inner.on_rpc
    async def rpc(event: RPCEvent) -> None:
        asyncio.create_task(forgotten())  # noqa: RUF006

    def beside_a_test_client() -> None:
        with SyncTestHub(app) as hub, TestClient(app):
            hub.connect(user="ann").rpc("a")

    def alone() -> None:
        with SyncTestHub(app) as hub:
            hub.connect(user="ann").rpc("a")

    for use in (beside_a_test_client, alone):
        with pytest.raises(LeakedTasksError, match="forgotten at"):
            use()
    with SyncTestHub(app) as hub, TestClient(app) as http:
        http.post("/orders/1/paid")
        assert len(hub.published("orders:1")) == 1


# pytest


def test_the_kit_imports_without_pytest() -> None:
    code = "import sys; import hub.testing; assert not {'pytest', '_pytest'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


SUITE = """
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from hub import Hub, Settings
from hub.settings import ChannelOptions

news = ChannelOptions(allow_subscribe_for_client=True)
inner = Hub(Settings(channels={"news": news}))
shop = Starlette()
inner.install(shop, "/live")

@pytest.fixture
def app():
    return shop

@pytest.mark.MARK
async def test_async(test_hub):
    ann = await test_hub.connect(user="ann")
    await ann.subscribe("news:1")
    await inner.publish("news:1", 1)
    assert (await ann.next()).data == 1

def test_sync(sync_test_hub):
    with TestClient(shop):
        sync_test_hub.connect(user="ann").subscribe("news:1")
"""


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("asyncio", ["-o", "asyncio_mode=strict"]),
        ("asyncio", ["-o", "asyncio_mode=auto"]),
        ("anyio", ["-p", "no:asyncio"]),
        ("anyio", ["-o", "asyncio_mode=strict"]),
    ],
)
def test_pytest_finds_the_fixtures_by_itself(mark: str, options: list[str], tmp_path: Any) -> None:
    backend = '\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    (tmp_path / "test_shop.py").write_text(SUITE.replace("MARK", mark) + backend)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_pytest_does_not_import_the_hub_by_itself(tmp_path: Any) -> None:
    (tmp_path / "test_a.py").write_text(
        "import sys\n\ndef test_a():\n    assert 'pytest_hub' in sys.modules and 'hub' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
