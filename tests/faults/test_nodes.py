"""Two nodes over Redis, and one fault after another: nobody misses anything without being told."""

from __future__ import annotations

import asyncio
from asyncio import Future
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected, unconnected

from hub.broker.memory import MemoryBroker
from hub.protocol.codes import Disconnects
from hub.protocol.messages import Publication
from loadtests.faults.cluster import History
from loadtests.faults.injections import FAULTS
from loadtests.faults.run import run
from loadtests.faults.verdict import judge

SUBSCRIBERS = 20
SECONDS = 3.0
FREEZE_S = 4.0


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"herd"}))
async def test_what_was_acknowledged_arrives_once_and_in_order(name: str) -> None:
    fault = FAULTS[name]
    verdict = await run(fault, subscribers=SUBSCRIBERS, seconds=SECONDS, freeze_s=FREEZE_S)
    assert (verdict.lost, verdict.duplicated, verdict.out_of_order) == (0, 0, 0), verdict
    assert verdict.acknowledged > verdict.published / 4, verdict
    assert verdict.delivered, verdict
    # Whoever could be repaired was: only data that is gone is told.
    assert fault.may_lose or not verdict.told, verdict
    assert name != "wipe" or verdict.told == 2 * SUBSCRIBERS, verdict
    assert verdict.dropped == (SUBSCRIBERS + 1 if fault.drops_sockets else 0), verdict


async def test_all_who_come_back_to_a_channel_share_the_reads_of_its_history() -> None:
    clients = 250
    verdict = await run(FAULTS["herd"], subscribers=clients, seconds=SECONDS)
    assert verdict.dropped == clients + 1, verdict
    assert (verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.told) == (0, 0, 0, 0), verdict
    # On a busy machine they come in several groups, and one read serves each group.
    assert verdict.history_reads <= clients / 5, verdict


@pytest.mark.parametrize(
    ("ids", "told_at", "lost", "duplicated", "out_of_order"),
    [
        ([10, 20, 30], None, 0, 0, 0),
        ([10, 30], None, 1, 0, 0),
        ([10, 20, 20, 30], None, 0, 1, 0),
        ([20, 10, 30], None, 0, 0, 1),
        ([20, 30], 1.5, 0, 0, 0),
        ([30], 1.5, 1, 0, 0),
        ([20], 1.5, 1, 0, 0),
    ],
)
def test_the_judge_sees_what_is_wrong(
    ids: list[int], told_at: float | None, lost: int, duplicated: int, out_of_order: int
) -> None:
    """The first of three was acknowledged before the subscriber was told, and Redis has lost it."""
    subscribed = asyncio.Event()
    subscribed.set()
    subscriber: Any = SimpleNamespace(
        **{"channel": "c", "ids": ids, "epoch": "e", "offset": 2, "subscribed": subscribed},
        **{"told": told_at is not None, "told_at": told_at, "repeated": 0, "jumps": 0},
        **{"dropped": 0, "lateness_s": 0.0},
    )
    acknowledged = {"c": {10: 1.0, 20: 2.0, 30: 3.0}}
    publisher: Any = SimpleNamespace(published=3, refused=0, dropped=0, acknowledged=acknowledged)
    verdict = judge([subscriber], [publisher], {"c": History([20, 30], 2, "e")}, history_reads=0)
    assert (verdict.lost, verdict.duplicated, verdict.out_of_order) == (lost, duplicated, out_of_order)


async def test_a_client_is_told_of_a_stream_that_breaks_while_it_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sdk.live() as (hub, server):
        broker = hub.node.broker
        assert isinstance(broker, MemoryBroker)
        asked = asyncio.Event()
        late: Future[None] = asyncio.get_running_loop().create_future()
        subscribe = broker.subscribe

        def subscribe_late(channel: str) -> Future[None]:
            if channel != "own:late":
                return subscribe(channel)
            asked.set()
            return late

        monkeypatch.setattr(broker, "subscribe", subscribe_late)
        async with (
            connected(server.port, sdk.token("ann", channels=["own:news"])) as ann,
            unconnected(server.port) as ben,
        ):
            await hub.publish("own:news", 1)
            assert (await ann.reply())["push"]["pub"]["offset"] == 1
            ben.send(command(1, "connect", token=sdk.token("ben", channels=["own:news", "own:late"])))
            async with asyncio.timeout(WAIT_S):
                await asked.wait()
            broker._streams.clear()
            hub.node._on_gap()
            assert (await ann.closed())[0] == Disconnects.INSUFFICIENT_STATE.code
            late.set_result(None)
            assert (await ben.reply())["connect"]["subs"]["own:news"]["offset"] == 1
            assert (await ben.closed())[0] == Disconnects.INSUFFICIENT_STATE.code


async def test_what_comes_late_of_a_channel_that_was_left_is_no_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who left a channel and comes back at once must not go on from what was still on its way to the node."""
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as ann:
        broker = hub.node.broker
        assert isinstance(broker, MemoryBroker)
        asked = asyncio.Event()
        late: Future[None] = asyncio.get_running_loop().create_future()

        def subscribe_late(channel: str) -> Future[None]:
            asked.set()
            return late

        monkeypatch.setattr(broker, "subscribe", subscribe_late)
        for number in range(1, 4):
            position = await hub.publish("chat:a", number)
        since = {"recover": True, "epoch": position.epoch, "offset": 1}
        ann.send(command(2, "subscribe", channel="chat:a", recoverable=True, **since))
        async with asyncio.timeout(WAIT_S):
            await asked.wait()
        hub.node.channels.followers.arrived("chat:a", Publication(Raw(b"2"), offset=2), position.epoch)
        late.set_result(None)
        result = (await ann.reply())["subscribe"]
        assert result["recovered"]
        assert [publication["data"] for publication in result["publications"]] == [2, 3]
