"""Many commands in one frame: they cost as much as one at a time, and hold up no other client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import pytest
from msgspec import Raw
from support import sdk
from support.faults import count, pinging, resident_bytes, serving, until
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected
from support.rawstream import StreamPeer
from support.rawws import RawWebSocket, frame
from support.redis import RedisServer
from support.server import Running
from websockets.frames import Opcode

from hub import Hub, RPCReply
from hub.protocol import api
from hub.protocol.messages import ClientInfo
from hub.settings import Settings

GROWTH_BYTES_MAX = 60_000_000
"""How much the process may grow for one client."""

PING_S_MAX = 0.5
"""How much CPU time the hub may spend while the ping of another client waits."""

PING_SHARE_MAX = 0.1
"""The part of a long request's publications that the hub may make while the ping of another client waits."""

PUBLICATION_BYTES = 60_000
PUBLICATIONS = 100
COMMANDS = 1_129
"""History commands that fit a message of 64 KiB."""

TOO_MUCH = {3008, 3013}
"""How the hub may end a client that asks for more than it reads."""


@pytest.fixture(params=["memory", "redis"])
def configured(request: pytest.FixtureRequest) -> Iterable[Settings]:
    """Settings of a hub over each broker."""
    if request.param == "memory":
        yield sdk.settings()
    else:
        with RedisServer() as redis:
            yield sdk.settings(redis={"url": redis.url})


def lines(number: int, name: str, /, **fields: Any) -> list[str]:
    """A number of equal commands, as short as JSON allows; ids begin at 3."""
    return [json.dumps({"id": 3 + n, name: fields}, separators=(",", ":")) for n in range(number)]


async def fill(hub: Hub, channel: str = "chat:a", size: int = PUBLICATION_BYTES) -> None:
    """Publish the history that the commands ask for."""
    for number in range(PUBLICATIONS):
        await hub.publish(channel, f"{number:03}" + "x" * size)


async def peak_bytes(seconds: float) -> int:
    """The largest resident memory of this process within a time."""
    peak = resident_bytes()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(0.02)
        peak = max(peak, resident_bytes())
    return peak


async def replies_until(socket: RawWebSocket, last: int) -> tuple[list[dict[str, Any]], int]:
    """Read replies until one of them has an id, or the hub closes the connection.

    Returns:
        The replies that have an id, and the close code; 0 where the connection is open.
    """
    replies: list[dict[str, Any]] = []
    while (received := await socket.read_frame()) is not None:
        opcode, payload = received
        if opcode == Opcode.CLOSE:
            return replies, int.from_bytes(payload[:2], "big")
        if opcode != Opcode.TEXT:
            continue
        for line in payload.split(b"\n"):
            reply = json.loads(line)
            if not reply:
                socket.send_text("{}")
            elif "id" in reply:
                replies.append(reply)
        if replies and replies[-1]["id"] >= last:
            return replies, 0
    return replies, 1006


@contextlib.asynccontextmanager
async def slow_reader(server: Running, channel: str = "chat:a") -> AsyncIterator[Peer]:
    """A subscriber that reads only what the test reads; its kernel buffer is small."""
    async with unconnected(server.port, receive_buffer_bytes=4096) as peer:
        await peer.ask(command(1, "connect", token=sdk.token("ann")))
        [joined] = await peer.ask(command(2, "subscribe", channel=channel))
        assert "subscribe" in joined
        yield peer


# History


async def test_a_frame_of_history_commands_takes_bounded_memory_and_delays_nobody(
    configured: Settings,
) -> None:
    async with serving(configured) as (hub, server), pinging(server.port) as pinger:
        await fill(hub)
        async with slow_reader(server) as ann:
            before = resident_bytes()
            pinger.restart()
            data = "\n".join(lines(COMMANDS, "history", channel="chat:a", limit=-1)).encode()
            assert len(data) <= hub.settings.client.message_bytes_max
            ann.socket.send(frame(Opcode.TEXT, data))
            peak = await peak_bytes(1.5)
            assert peak - before < GROWTH_BYTES_MAX
            assert max(pinger.waits) < PING_S_MAX
            assert hub.node.state == "healthy"
            replies, code = await replies_until(ann.socket, last=12)
            assert [reply["id"] for reply in replies] == list(range(3, 3 + len(replies)))
            assert len(replies) >= 10 or code in TOO_MUCH, code


async def test_every_command_of_a_frame_is_answered_in_order_once_the_client_reads(
    configured: Settings,
) -> None:
    commands = 300
    async with serving(configured) as (hub, server), slow_reader(server) as ann:
        await fill(hub, "chat:b", size=1_000)
        [joined] = await ann.ask(command(2, "subscribe", channel="chat:b"))
        assert "subscribe" in joined
        ann.send(*lines(commands, "history", channel="chat:b", limit=-1))
        await until(lambda: count(hub, "hub_messages_in_total", type="history"), "the hub began to answer")
        replies, code = await replies_until(ann.socket, last=commands + 2)
        assert [reply["id"] for reply in replies] == list(range(3, 3 + len(replies)))
        assert len(replies) == commands or code in TOO_MUCH, code
        assert all("history" in reply for reply in replies)


async def test_history_commands_over_emulation_take_bounded_memory() -> None:
    """Each request brings commands of a client whose stream is not read."""
    async with (
        serving() as (hub, server),
        await StreamPeer.open(
            server.port, "http_stream", {"token": sdk.token("ann")}, receive_buffer_bytes=4096
        ) as ann,
        pinging(server.port) as pinger,
    ):
        await ann.connected()
        await fill(hub)
        [joined] = await ann.ask(command(2, "subscribe", channel="chat:a"))
        assert "subscribe" in joined
        before = resident_bytes()
        pinger.restart()
        batch = lines(200, "history", channel="chat:a", limit=-1)
        statuses = await asyncio.gather(*(ann.post(*batch) for _ in range(3)))
        assert set(statuses) <= {204, 404}, "404 where the hub has ended the client by then"
        assert await peak_bytes(1.0) - before < GROWTH_BYTES_MAX
        assert max(pinger.waits) < PING_S_MAX


async def test_one_history_reply_is_bounded_and_says_where_to_continue(configured: Settings) -> None:
    async with serving(configured) as (hub, server):
        await fill(hub)
        async with connected(server.port, sdk.token("ann")) as ann:
            [joined] = await ann.ask(command(2, "subscribe", channel="chat:a"))
            assert "subscribe" in joined
            offsets: list[int] = []
            since: dict[str, Any] = {"offset": 0, "epoch": ""}
            number = 3
            while len(offsets) < PUBLICATIONS:
                ann.send(command(number, "history", channel="chat:a", limit=-1, since=since))
                text = await ann.line()
                assert len(text) < 2_500_000
                result = json.loads(text)["history"]
                assert result["publications"], f"no progress after {offsets}"
                assert result["offset"] == PUBLICATIONS, "the position of the newest publication"
                offsets += [publication["offset"] for publication in result["publications"]]
                since = {"offset": offsets[-1], "epoch": result["epoch"]}
                number += 1
            assert offsets == list(range(1, PUBLICATIONS + 1))
            assert number > 4, "6 MB are more than one reply holds"


async def test_a_frame_of_recoveries_takes_bounded_memory_and_delays_nobody() -> None:
    """Each of 60 channels has a megabyte that the client missed."""
    channels = 60
    async with serving() as (hub, server), pinging(server.port) as pinger:
        positions = {}
        for number in range(channels):
            positions[f"chat:{number}"] = await hub.publish(f"chat:{number}", 0)
            for _ in range(20):
                await hub.publish(f"chat:{number}", "x" * 50_000)
        async with unconnected(server.port, receive_buffer_bytes=4096) as ann:
            await ann.ask(command(1, "connect", token=sdk.token("ann")))
            before = resident_bytes()
            pinger.restart()
            ann.send(
                *(
                    command(
                        *(2 + number, "subscribe"),
                        **{"channel": channel, "recover": True, "recoverable": True},
                        **{"epoch": position.epoch, "offset": position.offset},
                    )
                    for number, (channel, position) in enumerate(positions.items())
                )
            )
            assert await peak_bytes(1.0) - before < GROWTH_BYTES_MAX
            assert max(pinger.waits) < PING_S_MAX


# Presence


@pytest.mark.parametrize("method", ["presence", "presence_stats"])
async def test_a_frame_of_presence_commands_delays_nobody(method: str, configured: Settings) -> None:
    members, commands = 1_000, 400
    async with (
        serving(configured) as (hub, server),
        slow_reader(server) as ann,
        pinging(server.port) as pinger,
    ):
        for number in range(members):
            client = f"{number:032}"
            info = ClientInfo(f"user-{number}", client, Raw(b'{"name":"%b"}' % (b"x" * 100)))
            await hub.node.broker.presence_add("chat:a", client, info, 60.0)
        before = resident_bytes()
        pinger.restart()
        ann.send(*lines(commands, method, channel="chat:a"))
        assert await peak_bytes(1.0) - before < GROWTH_BYTES_MAX
        assert max(pinger.waits) < PING_S_MAX
        assert hub.node.state == "healthy"
        replies, code = await replies_until(ann.socket, last=12)
        assert [reply["id"] for reply in replies] == list(range(3, 3 + len(replies)))
        assert len(replies) >= 10 or code in TOO_MUCH, code


# Handlers


class Slow:
    """A handler that takes some time, and keeps how many of its calls run at once.

    Args:
        seconds: the time of a call.
    """

    def __init__(self, seconds: float) -> None:
        self.most = 0
        self.calls = 0
        self._seconds = seconds
        self._running = 0

    async def __call__(self, event: Any) -> None:
        self.calls += 1
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._running -= 1


@pytest.mark.parametrize("frames", [1, 20])
@pytest.mark.parametrize("event", ["rpc", "publish", "message"])
async def test_so_many_calls_of_slow_handlers_run_at_once_and_all_are_made(event: str, frames: int) -> None:
    most, commands = 50, 1_000
    slow = Slow(0.02)
    sent = {
        "rpc": lines(commands, "rpc", method="m", data=1),
        "publish": lines(commands, "publish", channel="plain:a", data=1),
        "message": ['{"send":{"data":1}}'] * commands,
    }[event]
    async with (
        serving(sdk.settings({"commands_max": most}), **{event: slow}) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        size = commands // frames
        for start in range(0, commands, size):
            ann.send(*sent[start : start + size])
        if event != "message":
            answered = {(await ann.reply())["id"] for _ in range(commands)}
            assert answered == set(range(3, 3 + commands))
        await until(lambda: slow.calls == commands, "every command reached the handler")
        assert slow.most <= most


async def test_slow_handlers_of_a_client_over_emulation_are_bounded() -> None:
    most = 50
    slow = Slow(0.1)
    async with (
        serving(sdk.settings({"commands_max": most}), rpc=slow) as (_, server),
        await StreamPeer.open(server.port, "http_stream", {"token": sdk.token("ann")}) as ann,
    ):
        await ann.connected()
        await asyncio.gather(*(ann.post(*lines(100, "rpc", method="m", data=1)) for _ in range(5)))
        await until(lambda: slow.calls, "handlers run")
        await asyncio.sleep(0.3)
        assert slow.most <= most


async def test_a_client_whose_commands_wait_for_the_hub_is_not_blamed_for_a_late_pong() -> None:
    """The client answers each ping, but the hub reads no more of it until its slow handlers are done."""
    configured = sdk.settings({"commands_max": 1, "ping_interval_s": 1.5, "pong_timeout_s": 1.0})

    async def handle(event: Any) -> RPCReply:
        await asyncio.sleep(3.0)
        return RPCReply(event.data)

    async with (
        serving(configured, rpc=handle) as (_, server),
        connected(server.port, sdk.token("ann")) as ann,
    ):
        ann.send(*lines(2, "rpc", method="m", data=1))
        assert [(await ann.reply())["id"] for _ in range(2)] == [3, 4]
        [pong] = await ann.ask(command(9, "ping"))
        assert pong["id"] == 9


# Subscribes


async def test_a_frame_of_a_thousand_subscribes_lets_other_clients_in_between() -> None:
    channels = 1_000
    client = {"channels_max": channels, "message_bytes_max": 512 * channels}
    async with (
        serving(sdk.settings(client)) as (hub, server),
        connected(server.port, sdk.token("ann")) as ann,
        connected(server.port, sdk.token("ben")) as ben,
    ):
        await ben.ask(command(2, "ping"))
        ann.send(*(command(2 + number, "subscribe", channel=f"chat:{number}") for number in range(channels)))
        await until(lambda: count(hub, "hub_subscriptions"), "the hub began to subscribe")
        asked = [int(count(hub, "hub_subscriptions"))]
        [pong] = await ben.ask(command(3, "ping"))
        assert pong["id"] == 3
        asked.append(int(count(hub, "hub_subscriptions")))
        assert asked[1] - asked[0] < channels / 4, f"subscriptions at the ping and at its answer: {asked}"
        replies, code = await replies_until(ann.socket, last=channels + 1)
        assert (len(replies), code) == (channels, 0)
        assert not any("error" in reply for reply in replies)


# The server API


def publications(hub: Hub) -> Callable[[], float]:
    """Count the publications of a hub from now on. Returns a function that returns the count."""
    broker, count = hub.node.broker, 0
    publish = broker.publish

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return publish(*args, **options)

    broker.publish = counted  # type: ignore[method-assign]
    return lambda: count


async def test_a_broadcast_to_many_channels_delays_nobody(configured: Settings) -> None:
    channels = [f"plain:{number}" for number in range(100_000)]
    async with (
        serving(configured) as (hub, server),
        pinging(server.port, publications(hub)) as pinger,
        httpx.AsyncClient(base_url=server.url, timeout=WAIT_S, headers={"X-API-Key": sdk.API_KEY}) as http,
    ):
        response = await http.post("/api/broadcast", json={"channels": channels, "data": 1})
        responses = response.json()["result"]["responses"]
        assert len(responses) == len(channels)
        assert all("result" in each and "error" not in each for each in responses)
        assert pinger.longest_share < PING_SHARE_MAX
        assert hub.node.state == "healthy"


async def test_a_broadcast_from_the_app_delays_nobody() -> None:
    channels = [f"plain:{number}" for number in range(100_000)]
    async with serving() as (hub, server), pinging(server.port, publications(hub)) as pinger:
        request = api.BroadcastRequest(channels=channels, data=Raw(b"1"))
        result: api.BroadcastResult = await hub.request("broadcast", request)
        assert len(result.responses) == len(channels)
        assert pinger.longest_share < PING_SHARE_MAX


@pytest.mark.parametrize("parallel", [False, True], ids=["in order", "parallel"])
async def test_a_batch_of_many_commands_delays_nobody(parallel: bool) -> None:
    """Each of 5,000 commands is a broadcast to ten channels."""
    commands = [
        {"broadcast": {"channels": [f"plain:{number + n}" for n in range(10)], "data": 1}}
        for number in range(0, 50_000, 10)
    ]
    async with (
        serving() as (hub, server),
        pinging(server.port, publications(hub)) as pinger,
        httpx.AsyncClient(base_url=server.url, timeout=WAIT_S, headers={"X-API-Key": sdk.API_KEY}) as http,
    ):
        response = await http.post("/api/batch", json={"commands": commands, "parallel": parallel})
        replies = response.json()["replies"]
        assert len(replies) == len(commands)
        assert all(len(reply["broadcast"]["responses"]) == 10 for reply in replies)
        assert pinger.longest_share < PING_SHARE_MAX
