"""A connection on a real node, with a transport that only writes down what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from support.limits import WAIT_S

from hub.broker.memory import MemoryBroker
from hub.config import load
from hub.core.hooks import ConnectEvent, ConnectReply, DisconnectEvent, SubscribeEvent, SubscribeReply
from hub.handlers.handler import AppHandler
from hub.handlers.registry import HandlerTable
from hub.handlers.signature import Hints
from hub.node.environment import Environment
from hub.node.node import Node
from hub.protocol.codes import Disconnect, Disconnects
from hub.protocol.encoding import JSON
from hub.telemetry import Metrics

SETTINGS = load(
    overrides={
        "client": {"insecure": True, "commands_max": 64},
        "channels": {"default": {"history_size": 5, "history_ttl_s": 60}},
        "server": {"lag_max_s": 0},  # a busy machine is no overload
    },
    env={},
)


class Recorder:
    """A `Transport` that is never full."""

    encoding = JSON.messages
    name = "recorder"

    def __init__(self) -> None:
        self.replies: list[dict[str, Any]] = []
        self.closed: Disconnect | None = None
        self.reading = True
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def write(self, data: bytes) -> None:
        self.replies += [msgspec.json.decode(line) for line in data.split(b"\n")]
        self._changed.set()

    def close(self, disconnect: Disconnect) -> None:
        self.closed = disconnect
        self._changed.set()

    def pause_reading(self) -> None:
        self.reading = False
        self._changed.set()

    def resume_reading(self) -> None:
        self.reading = True
        self._changed.set()


@asynccontextmanager
async def node_with(**handlers: Callable[[Any], Any]) -> AsyncIterator[Node]:
    table = HandlerTable()
    for hook, function in handlers.items():
        table.add(AppHandler(hook, None, function, Hints()))
    node = Node(SETTINGS, Environment(MemoryBroker), table, Metrics(), "test", lambda: None)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


async def test_a_session_that_ends_in_a_frame_leaves_no_channel_open() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(event: ConnectEvent) -> ConnectReply:
        asked.set()
        await answer.wait()
        return ConnectReply("ann")

    async with node_with(connect=slow) as node:
        transport = Recorder()
        connection = node.connections.accept(transport, {})
        connection.on_messages(
            [
                b'{"id":1,"connect":{}}\n{"id":2,"refresh":{"token":"bad"}}',
                b'{"id":3,"subscribe":{"channel":"a"}}',
            ]
        )
        await asked.wait()
        answer.set()
        await transport.until(lambda: transport.closed is not None)
        assert transport.closed == Disconnects.INVALID_TOKEN
        assert node.registry.channels == {}
        connection.on_closed()
        assert not node.connections


async def test_thousands_of_commands_that_waited_are_answered_each() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(event: SubscribeEvent) -> SubscribeReply:
        asked.set()
        await answer.wait()
        return SubscribeReply()

    async with node_with(subscribe=slow) as node:
        transport = Recorder()
        connection = node.connections.accept(transport, {})
        commands = [b'{"id":%d,"history":{"channel":"a"}}' % number for number in range(3, 3003)]
        first = [b'{"id":1,"connect":{}}', b'{"id":2,"subscribe":{"channel":"a"}}']
        connection.on_messages([b"\n".join([*first, *commands])])
        await asked.wait()
        # A slow machine reaches the limit of commands in progress in a later turn of the event loop.
        await transport.until(lambda: not transport.reading)
        answer.set()
        await transport.until(lambda: len(transport.replies) >= 3002)
        assert [reply["id"] for reply in transport.replies] == list(range(1, 3003))
        assert all("history" in reply for reply in transport.replies[2:])
        await transport.until(lambda: transport.reading)


async def test_a_node_that_stops_lets_the_app_say_goodbye() -> None:
    gone = []

    async def goodbye(event: DisconnectEvent) -> None:
        await asyncio.sleep(0)
        gone.append((event.client, event.code))

    async with node_with(disconnect=goodbye) as node:
        connection = node.connections.accept(Recorder(), {})
        connection.on_messages([b'{"id":1,"connect":{}}'])
    assert gone == [(connection.client, 3001)]
