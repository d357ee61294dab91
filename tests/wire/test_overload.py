"""An overloaded node: what it gives up, step by step, what it keeps, and that it is well soon after."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected, unconnected
from support.rawws import HandshakeError, RawWebSocket

from hub import Hub
from hub.core.overload import Step
from hub.node import overload as load
from hub.node.overload import memory_bytes, memory_bytes_max
from hub.protocol.api import SubscribeRequest

LAG_S = 0.25


@contextlib.asynccontextmanager
async def busy() -> AsyncIterator[None]:
    """Hold the event loop up, again and again, for as long as the block lasts."""

    async def hold_up() -> None:
        while True:
            time.sleep(2 * LAG_S)  # noqa: ASYNC251 - this is the load
            await asyncio.sleep(0)

    task = asyncio.ensure_future(hold_up())
    try:
        yield
    finally:
        task.cancel()


async def reached(hub: Hub, step: Step) -> None:
    """Wait until the node is on a step."""
    async with asyncio.timeout(WAIT_S):
        while hub.node.overload.step is not step:  # noqa: ASYNC110 - the node tells nobody
            await asyncio.sleep(0.02)


async def ready(url: str) -> tuple[int, str]:
    """What `/readyz` says."""
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        response = await client.get("/readyz")
        return response.status_code, response.json()["status"]


async def test_a_late_loop_stops_what_is_optional_and_then_new_connections_and_is_well_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    configured = sdk.settings(server={"lag_max_s": LAG_S})
    async with (
        sdk.live(configured) as (hub, server),
        connected(server.port, sdk.token("ann", channels=["private:room"])) as ann,
        connected(server.port, sdk.token("ben")),
    ):
        assert "join" in (await ann.reply())["push"]
        async with busy():
            await reached(hub, Step.OPTIONAL)
            assert hub.node.state == "overloaded"
            assert hub.node.is_serving
            await hub.request("subscribe", SubscribeRequest(user="ben", channel="private:room"))
            await hub.publish("private:room", 1)
            assert (await ann.reply())["push"]["pub"]["data"] == 1  # and no join of ben's
            await reached(hub, Step.ADMISSION)
            with pytest.raises(HandshakeError, match="503"):
                await RawWebSocket.connect(server.port)
            assert await ready(server.url) == (503, "overloaded")
            await hub.publish("private:room", 2)
            assert (await ann.reply())["push"]["pub"]["data"] == 2
        await reached(hub, Step.NORMAL)
        assert await ready(server.url) == (200, "healthy")
        async with connected(server.port, sdk.token("eve", channels=["private:room"])):
            assert "join" in (await ann.reply())["push"]
    steps = [
        step for step in ("optional", "admission", "normal", "shedding") if f"[step={step} " in caplog.text
    ]
    assert steps == ["optional", "admission", "normal"]
    assert caplog.text.count("load.step") == 4


async def test_where_memory_is_short_those_who_read_slowest_go(caplog: pytest.LogCaptureFixture) -> None:
    configured = sdk.settings({"outbox_bytes_max": 1 << 26}, server={"memory_bytes_max": 1})
    async with (
        sdk.live(configured) as (hub, server),
        connected(server.port, sdk.token("fast", channels=["own:news"])) as fast,
        unconnected(server.port, receive_buffer_bytes=4096) as slow,
    ):
        await slow.ask(command(1, "connect", token=sdk.token("slow", channels=["own:news"])))
        [behind] = hub.node.registry.of_user("slow")
        while not behind.waiting_bytes:
            await hub.publish("own:news", "x" * 50_000)
            assert "pub" in (await fast.reply())["push"]
        async with asyncio.timeout(WAIT_S):
            while behind.reason is None:  # noqa: ASYNC110 - the node tells nobody
                await asyncio.sleep(0.02)
        assert behind.reason.code == 3008
        assert hub.node.overload.step is Step.SHEDDING
        await hub.publish("own:news", "last")
        assert (await fast.reply())["push"]["pub"]["data"] == "last"
        assert "load.shed" in caplog.text
        assert hub.node.outboxes.size == 0


async def test_what_is_measured_is_shown() -> None:
    async with sdk.live() as (hub, _):
        async with asyncio.timeout(WAIT_S):
            while not hub.node.overload._memory_bytes:  # noqa: ASYNC110 - the node tells nobody
                await asyncio.sleep(0.02)
        shown = dict(
            line.rsplit(" ", 1)
            for line in hub.metrics.render()[0].decode().splitlines()
            if not line.startswith("#")
        )
        assert float(shown["hub_memory_bytes"]) > 10_000_000
        assert float(shown["hub_loop_lag_seconds"]) < WAIT_S
        assert (shown["hub_load_step"], shown["hub_outbox_bytes"]) == ("0.0", "0.0")


@pytest.mark.parametrize(
    ("groups", "files", "workers", "bound"),
    [
        ("0::/\n", {"memory.max": "1000"}, 1, 900),
        ("0::/pod\n", {"pod/memory.max": "1000", "memory.max": "max"}, 3, 300),
        ("0::/pod\n", {"pod/memory.max": "max"}, 1, 0),
        ("5:cpu:/a\n4:memory:/a\n0::/\n", {"memory/memory.limit_in_bytes": "2000"}, 1, 1_800),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, 1, 0),
        ("", {}, 1, 0),
    ],
)
def test_the_bound_of_memory_is_the_containers(
    groups: str,
    files: dict[str, str],
    workers: int,
    bound: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(load, "_CGROUP", tmp_path / "groups")
    monkeypatch.setattr(load, "_CGROUPS", tmp_path)
    configured = sdk.settings(server={"workers": workers}, redis={"url": "redis://127.0.0.1"})
    assert memory_bytes_max(configured) == bound
    assert memory_bytes_max(sdk.settings(server={"memory_bytes_max": 7})) == 7


def test_a_system_that_tells_nothing_bounds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CGROUP", "_STATM"):
        monkeypatch.setattr(load, name, tmp_path / "missing")
    assert memory_bytes_max(sdk.settings()) == 0
    assert memory_bytes() == 0
