"""The generator: what it finds of a server that does as it should, and what it says of one that does not."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import pytest
from websockets.asyncio.server import ServerConnection, serve

from loadtests.bench.programs import BenchError, Mode, floor, in_turns, load
from loadtests.bench.servers import CHANNELS, hub, token

SUBSCRIBERS = 3

Fault: TypeAlias = Callable[[int, list[str]], Sequence[str]]
"""What the second subscriber is sent at a publish, given its number and all pushes so far."""


class FakeServer:
    """A server that is right but for what it is told to do wrong.

    Args:
        fault: what it does wrong to its second subscriber.
        replies: what it answers to commands in place of the right reply, by the name of the command.
    """

    def __init__(self, fault: Fault | None = None, replies: Mapping[str, str] | None = None) -> None:
        self._fault = fault
        self._replies = replies or {}
        self._subscribers: list[ServerConnection] = []
        self._pushes: list[str] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """It serves: its port."""
        async with serve(self._serve, "127.0.0.1", 0, compression=None) as server:
            yield next(iter(server.sockets)).getsockname()[1]

    async def _serve(self, connection: ServerConnection) -> None:
        async for message in connection:
            assert isinstance(message, str)
            if message == "{}":
                continue
            command = json.loads(message)
            name = next(iter(command.keys() - {"id"}))
            if name == "subscribe":
                self._subscribers.append(connection)
            if name == "publish":
                await self._publish(command[name])
            reply = _json({"id": command["id"], name: {}})
            await connection.send(self._replies.get(name, "REPLY").replace("REPLY", reply))

    async def _publish(self, publish: dict[str, Any]) -> None:
        pub = {"data": publish["data"]}
        self._pushes.append(_json({"push": {"channel": publish["channel"], "pub": pub}}))
        for index, subscriber in enumerate(self._subscribers):
            lines: Sequence[str] = self._pushes[-1:]
            if self._fault is not None and index == 1:
                lines = self._fault(len(self._pushes) - 1, self._pushes)
            if lines:
                await subscriber.send("\n".join(lines))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def lost(number: int, pushes: list[str]) -> Sequence[str]:
    return [] if number == 5 else pushes[-1:]


def all_lost(number: int, pushes: list[str]) -> Sequence[str]:
    return []


def doubled(number: int, pushes: list[str]) -> Sequence[str]:
    return pushes[-1:] * (2 if number == 5 else 1)


def swapped(number: int, pushes: list[str]) -> Sequence[str]:
    if number == 5:
        return []
    return [pushes[6], pushes[5]] if number == 6 else pushes[-1:]


def changed(number: int, pushes: list[str]) -> Sequence[str]:
    return [pushes[-1].replace("xxx", "xyx", 1)]


def foreign(number: int, pushes: list[str]) -> Sequence[str]:
    return [pushes[-1].replace('"n":1', '"n":9')]


def unsubscribed(number: int, pushes: list[str]) -> Sequence[str]:
    return ['{"push":{"unsubscribe":{"code":2500}}}']


async def test_a_server_that_does_as_it_should_is_measured() -> None:
    async with FakeServer().serving() as port:
        found = await load("window", [port], [os.getpid()], seconds=0.3, clients=SUBSCRIBERS, window=4)
    assert found.connections == SUBSCRIBERS + 1
    assert 0 < found.deliveries <= found.published * SUBSCRIBERS
    assert 0 < found.latency_ms.p50 <= found.latency_ms.p99 <= found.latency_ms.max
    assert found.server_cpu_s > 0
    assert found.watched[0].rss_peak >= found.watched[0].rss_end > 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lost, r"1 deliveries were lost, 0 doubled, 0 out of order"),
        (all_lost, r"4 deliveries were lost, 0 doubled, 0 out of order"),
        (doubled, r"0 deliveries were lost, 1 doubled, 0 out of order"),
        (swapped, r"1 out of order"),
        (changed, "a payload was changed"),
        (foreign, "a message came that was never published"),
        (unsubscribed, r"the server said: .*2500"),
    ],
)
async def test_what_a_subscriber_gets_wrong_is_told(fault: Fault, said: str) -> None:
    async with FakeServer(fault).serving() as port:
        with pytest.raises(BenchError, match=said):
            await load("window", [port], seconds=0.3, clients=SUBSCRIBERS, window=4)


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ({"publish": '{"id":3,"error":{"code":103}}'}, "a publish was answered: .*103"),
        ({"connect": '{"id":1,"error":{"code":101}}'}, "the server answered: .*101"),
        ({"subscribe": '{"id":2,"error":{"code":103}}'}, "the server answered: .*103"),
        ({"publish": "{}"}, r"[1-9]\d* publishes were not acknowledged"),
    ],
)
async def test_what_a_command_is_answered_is_told(replies: dict[str, str], said: str) -> None:
    async with FakeServer(replies=replies).serving() as port:
        with pytest.raises(BenchError, match=said):
            await load("window", [port], seconds=0.1, clients=SUBSCRIBERS, window=4)


async def test_latency_is_from_the_time_at_which_a_message_was_due() -> None:
    def held_back(number: int, pushes: list[str]) -> Sequence[str]:
        if number < 5:
            return []
        return pushes if number == 5 else pushes[-1:]

    # What comes with the fifth after it is 5/60 s late, or more.
    async with FakeServer(held_back).serving() as port:
        found = await load("rate", [port], seconds=0.6, clients=2, rate=60)
    assert found.latency_ms.max >= 83
    assert found.latency_ms.p50 < found.latency_ms.max


async def test_pings_are_answered_and_clients_only_held() -> None:
    async with FakeServer(replies={"subscribe": "REPLY\n{}\n{}"}).serving() as port:
        found = await load("idle", [port], seconds=0.2, clients=SUBSCRIBERS)
    assert (found.connections, found.published, found.pings) == (SUBSCRIBERS, 0, 2 * SUBSCRIBERS)


async def test_a_silent_client_is_not_waited_for() -> None:
    async with FakeServer().serving() as port:
        found = await load("window", [port], seconds=0.2, clients=SUBSCRIBERS, silent=1, window=4)
    assert found.published > 4
    assert 0 < found.deliveries <= 2 * found.published


async def test_a_hub_is_measured_in_each_encoding_and_over_each_transport() -> None:
    subscribed: dict[str, Any] = {"token": token(), "clients": 20, "size": 300}
    async with hub() as server:
        measure = partial(load, "window", server.ports, seconds=0.1)
        for encoding in ("json", "protobuf", "msgpack"):
            assert (await measure(encoding=encoding, clients=20, size=300)).deliveries > 0
            assert (await measure(encoding=encoding, **subscribed)).deliveries > 0
        for transport, encoding in (("http_stream", "json"), ("http_stream", "protobuf"), ("sse", "json")):
            found = await measure(transport=transport, encoding=encoding, window=4, **subscribed)
            assert found.deliveries > 0
        with pytest.raises(BenchError, match="who has no token for the channel cannot subscribe"):
            await measure(transport="sse")


async def test_two_generators_measure_in_turns() -> None:
    options: dict[str, Any] = {"clients": 10, "window": 4, "seconds": 0.05}
    async with hub() as server:
        run = partial(in_turns, server.ports, server.pids, **options)
        json_run = run(channel=CHANNELS[0], token=token(CHANNELS[0]))
        protobuf_run = run(channel=CHANNELS[1], token=token(CHANNELS[1]), encoding="protobuf")
        async with json_run as measure, protobuf_run as measure_other:
            for _ in range(3):
                for found in (await measure(), await measure_other()):
                    assert found.connections == 11
                    assert found.deliveries > 0
                    assert found.server_cpu_s > 0


async def test_what_goes_wrong_in_a_turn_is_told() -> None:
    async with FakeServer(lost).serving() as port:
        with pytest.raises(BenchError, match="1 deliveries were lost"):
            async with in_turns([port], [], clients=SUBSCRIBERS, seconds=0.05) as measure:
                await measure()


async def test_what_ends_the_generator_between_turns_is_told() -> None:
    async with FakeServer(unsubscribed).serving() as port:
        with pytest.raises(BenchError, match=r"the server said: .*2500"):
            async with in_turns([port], [], clients=SUBSCRIBERS, seconds=0.05) as measure:
                await measure()


async def test_a_client_that_is_refused_is_told() -> None:
    async with FakeServer().serving() as port:
        pass
    with pytest.raises(BenchError, match="does not take a connection"):
        await load("connects", [port], clients=1)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("window", {"clients": 20, "window": 4}),
        ("rate", {"clients": 20, "rate": 50, "size": 16_000}),
        ("connects", {"clients": 200, "in_flight": 64}),
        ("idle", {"clients": 20}),
    ],
)
async def test_the_floor_does_as_it_should(mode: Mode, options: dict[str, float]) -> None:
    async with floor() as (port, pid):
        found = await load(mode, [port], [pid], seconds=0.3, **options)
    assert found.connections >= options["clients"]
    assert (found.published > 0) == (found.deliveries > 0) == (mode in ("window", "rate"))
