"""hub/node/bus.py: every node applies the log once and in order, whatever happens to its messages."""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from support.limits import WAIT_S

from hub.broker.base import BUS_LOG_MAX, BusLog
from hub.errors import BrokerError
from hub.node import bus as bus_module
from hub.node.boundary import Boundary
from hub.node.bus import Bus
from hub.node.bus_messages import (
    LOGGED_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Hello,
    OwnerChanged,
    Relay,
    UnknownError,
    UnreadableError,
    decode,
    encode,
)
from hub.node.environment import Clock
from hub.node.tasks import Tasks, known
from hub.telemetry import Metrics


class Log:
    """The log that the nodes share. On the way to a node messages may be lost or repeated, and reads fail."""

    def __init__(self, seed: int = 0, *, dropped: float = 0.0, repeated: float = 0.0, failing: float = 0.0):
        self.entries: list[tuple[str, bytes]] = []
        self.first = 1
        """Number of the next entry: the ids of a log that began again are higher."""
        self.is_trimmed = False
        """Whether entries that are not there were cut off, and not lost."""
        self.is_away = False
        self.nodes: list[Bus] = []
        self._chance = random.Random(seed)
        self._dropped, self._repeated, self.failing = dropped, repeated, failing

    def append_bus(self, message: bytes) -> Future[str]:
        if self.is_away:
            failed: Future[str] = asyncio.get_running_loop().create_future()
            failed.set_exception(BrokerError("away"))
            return failed
        before = self.entries[-1][0] if self.entries else ""
        entry = f"{self.first}-0"
        self.first += 1
        self.entries.append((entry, message))
        for node in self.nodes:
            self.send(node, message, entry, before)
        return known(entry)

    def send_bus(self, message: bytes, node: str = "") -> Future[int]:
        return known(0)

    def send(self, node: Bus, message: bytes, entry: str, before: str) -> None:
        if self._chance.random() >= self._dropped:
            node.on_message(message, entry, before)
            if self._chance.random() < self._repeated:
                node.on_message(message, entry, before)

    def read_bus(self, after: str, limit: int) -> Future[BusLog]:
        if self._chance.random() < self.failing:
            future: Future[BusLog] = asyncio.get_running_loop().create_future()
            future.set_exception(BrokerError("no answer"))
            return future
        ids = [entry for entry, _ in self.entries]
        start = ids.index(after) + 1 if after in ids else 0
        is_gone = bool(after) and after not in ids
        last = ids[-1] if ids else ""
        part = self.entries[start : start + limit]
        return known(BusLog(part, last, is_complete=not is_gone, is_lost=is_gone and not self.is_trimmed))


class Node:
    """A node of the test: the clients whose sessions it was told to end, in order."""

    def __init__(self, name: str, log: Log) -> None:
        metrics = Metrics()
        boundary = Boundary(metrics)
        self.tasks = Tasks(boundary, metrics)
        self.catching_up: list[bool] = []
        broker: Any = log
        self.missed = 0
        self.bus = Bus(
            name, broker, self.tasks, boundary, metrics, Clock(), self.catching_up.append, self._on_missed
        )
        self.applied: list[str] = []
        self.bus.handle(OwnerChanged, lambda message: self.applied.append(message.client))
        log.nodes.append(self.bus)

    def _on_missed(self) -> None:
        self.missed += 1

    async def say(self, client: str) -> None:
        await self.bus.append(OwnerChanged(client=client, owner=""))


async def until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the bus tells nobody
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "CHECK_PERIOD_S", 0.02)
    monkeypatch.setattr(bus_module, "RETRY_S", 0.005)
    monkeypatch.setattr(bus_module, "READ_MAX", 7)


@pytest.mark.parametrize("seed", range(30))
async def test_each_message_of_the_log_is_applied_once_and_in_order(seed: int) -> None:
    log = Log(seed, dropped=0.3, repeated=0.3)
    nodes = [Node(name, log) for name in ("a", "b", "c")]
    for node in nodes:
        await node.bus.start()
    log.failing = 0.3
    chance = random.Random(seed)
    said: list[tuple[int, str]] = []
    for number in range(60):
        speaker = chance.randrange(3)
        said.append((speaker, str(number)))
        await nodes[speaker].say(str(number))
        if chance.random() < 0.1:
            chance.choice(nodes).bus.on_gap()
        if chance.random() < 0.3:
            await asyncio.sleep(0.001)
    expected = [[client for speaker, client in said if speaker != own] for own in range(3)]
    try:
        await until(lambda: all(len(nodes[own].applied) >= len(expected[own]) for own in range(3)))
        assert [node.applied for node in nodes] == expected, f"seed {seed}"
        await until(lambda: not any(node.bus.is_catching_up for node in nodes))
    finally:
        for node in nodes:
            await node.tasks.stop()


async def test_a_node_that_starts_applies_nothing_that_was_said_before() -> None:
    log = Log()
    one = Node("a", log)
    await one.bus.start()
    await one.say("before")
    two = Node("b", log)
    await two.bus.start()
    await one.say("after")
    two.bus.on_gap()
    await until(lambda: not two.bus.is_catching_up)
    assert two.applied == ["after"]
    assert two.catching_up == [True, False]
    for node in (one, two):
        await node.tasks.stop()


async def test_a_log_that_the_broker_lost_is_appended_again_and_applied_once() -> None:
    log = Log()
    one, two = Node("a", log), Node("b", log)
    for node in (one, two):
        await node.bus.start()
    await one.say("heard")
    two_hears = log.nodes.pop()
    await one.say("missed")
    log.entries.clear()
    log.nodes.append(two_hears)
    for node in (one, two):
        node.bus.on_gap()
    await until(lambda: len(two.applied) == 2)
    await until(lambda: not two.bus.is_catching_up)
    assert two.applied == ["heard", "missed"]
    for node in (one, two):
        await node.tasks.stop()


async def test_what_is_older_than_a_node_is_not_applied_by_it_when_the_log_is_lost() -> None:
    log = Log()
    one = Node("a", log)
    await one.bus.start()
    await one.say("old")
    await asyncio.sleep(0.01)
    two = Node("b", log)
    await two.bus.start()
    log.entries.clear()
    for node in (one, two):
        node.bus.on_gap()
    await one.say("new")
    await until(lambda: "new" in two.applied)
    await until(lambda: not two.bus.is_catching_up)
    await asyncio.sleep(0.05)
    assert two.applied == ["new"]
    for node in (one, two):
        await node.tasks.stop()


async def test_a_node_that_starts_without_the_broker_applies_what_is_said_from_then_on() -> None:
    log = Log()
    one = Node("a", log)
    await one.bus.start()
    await one.say("before")
    await asyncio.sleep(0.01)
    log.failing = 1.0
    two = Node("b", log)
    await two.bus.start()
    log.nodes.remove(two.bus)
    await one.say("meanwhile")
    log.nodes.append(two.bus)
    log.failing = 0.0
    two.bus.on_gap()
    await until(lambda: two.applied)
    assert two.applied == ["meanwhile"]
    for node in (one, two):
        await node.tasks.stop()


async def test_a_node_is_told_that_the_log_was_cut_before_it_had_read_it() -> None:
    log = Log()
    one, two = Node("a", log), Node("b", log)
    for node in (one, two):
        await node.bus.start()
    await one.say("first")
    log.nodes.remove(two.bus)
    for number in range(5):
        await one.say(str(number))
    del log.entries[:3]
    log.is_trimmed = True
    log.nodes.append(two.bus)
    two.bus.on_gap()
    await until(lambda: not two.bus.is_catching_up)
    assert two.missed == 1
    assert two.applied == ["first", "2", "3", "4"]
    for node in (one, two):
        await node.tasks.stop()


async def test_what_cannot_be_appended_is_appended_when_the_broker_is_there_again() -> None:
    log = Log()
    one, two = Node("a", log), Node("b", log)
    for node in (one, two):
        await node.bus.start()
    log.is_away = True
    one.bus.append_surely(OwnerChanged(client="ann", owner="s2"))
    await asyncio.sleep(0.01)
    assert two.applied == []
    log.is_away = False
    one.bus.on_gap()
    await until(lambda: two.applied)
    assert two.applied == ["ann"]
    for node in (one, two):
        await node.tasks.stop()


async def test_little_is_kept_of_what_a_node_said() -> None:
    node = Node("a", Log())
    await node.bus.start()
    for number in range(2 * BUS_LOG_MAX + 10):
        await node.say(str(number))
    assert len(node.bus._applied) == 2 * BUS_LOG_MAX
    assert node.bus._own_bytes <= bus_module.REPEAT_BYTES_MAX
    with pytest.raises(ValueError, match="at most"):
        node.bus.append(OwnerChanged(client="a" * LOGGED_BYTES_MAX, owner=""))
    await node.tasks.stop()


async def test_an_invented_id_of_an_entry_moves_no_node_past_the_log() -> None:
    log = Log()
    one, two = Node("a", log), Node("b", log)
    for node in (one, two):
        await node.bus.start()
    forged = encode(OwnerChanged(node="x", client="forged", owner="", id="x-1"))
    two.bus.on_message(forged, "9999-0", "9998-0")
    await one.say("real")
    await until(lambda: two.applied)
    assert two.applied == ["real"]
    for node in (one, two):
        await node.tasks.stop()


async def test_what_changes_state_comes_through_the_log_alone() -> None:
    node = Node("a", Log())
    await node.bus.start()
    node.bus.on_message(encode(OwnerChanged(node="b", client="ann", owner="", id="b-1")), "", "")
    assert node.applied == []
    await node.tasks.stop()


async def test_who_waits_for_the_log_waits_no_longer_than_it_said() -> None:
    log = Log(failing=1.0)
    node = Node("a", log)
    await node.bus.start()
    assert await node.bus.caught_up(1)
    node.bus.on_gap()
    assert not await node.bus.caught_up(0.05)
    await node.tasks.stop()


# Messages


@pytest.mark.parametrize(
    "message",
    [
        Hello(node="a"),
        Relay(node="a", session="s", data=b"\x00\xff"),
        OwnerChanged(node="a", client="c", owner=""),
    ],
)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b'{"type": "hello"}',
        msgpack.packb([1]),
        msgpack.packb({"v": 1, "type": "hello", "node": [1]}),
        msgpack.packb({"v": 1, "type": "hello", "node": {"a": 1}}),
        msgpack.packb({"v": 1, "type": "owner", "node": "a"}),
        msgpack.packb({"v": 1, "type": "hello"}),
        msgpack.packb({"v": 1, "type": "hello", "node": ""}),
        msgpack.packb({"v": 1, "type": "hello", "node": 1}),
        msgpack.packb({"v": 1, "type": "relay", "session": "s", "data": "e30="}),
        b"\x81\xa1a" * 10_000,
        b"\xdf\xff\xff\xff\xff",
        bytes(MESSAGE_BYTES_MAX + 1),
    ],
)
def test_bytes_that_are_no_message_are_told_apart(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode(data)


@pytest.mark.parametrize(
    "fields", [{"v": 2, "type": "hello"}, {"v": 1, "type": "word"}, {"v": 1, "type": []}, {"v": 1}, {}]
)
def test_versions_and_types_of_other_releases_are_told_apart(fields: dict[str, Any]) -> None:
    with pytest.raises(UnknownError):
        decode(msgpack.packb(fields))


def test_fields_of_a_later_release_are_ignored() -> None:
    assert decode(msgpack.packb({"v": 1, "type": "hello", "node": "a", "new": 1})) == Hello(node="a")


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode(Relay(session="s", data=bytes(MESSAGE_BYTES_MAX)))
