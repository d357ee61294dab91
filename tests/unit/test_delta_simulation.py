"""Deltas, filters, slow readers and returns, all at once: each client has what was published, or is behind.

Seeded worlds of a whole node, with clients of every encoding and wish. A failure prints its seed.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from msgspec import Raw
from support.dialects import DIALECTS, Dialect
from support.sockets import Socket

from hub import Hub
from hub.config import load
from hub.protocol.codes import Disconnects
from hub.protocol.payloads import Packed, Payload, octets

WORLDS: Final = 2
STEPS: Final = 120
UNREAD_BYTES_MAX: Final = 3_000
KINDS: Final = ("goal", "foul", "shot")

FILTERS: Final[dict[str, tuple[Any, Callable[[str], bool]]]] = {
    "all": (None, lambda kind: True),
    "goals": ({"key": "kind", "cmp": "eq", "val": "goal"}, lambda kind: kind == "goal"),
    "no fouls": ({"key": "kind", "cmp": "neq", "val": "foul"}, lambda kind: kind != "foul"),
    "goals again": (
        {"op": "or", "nodes": [{"key": "kind", "cmp": "in", "vals": ["goal", "own goal"]}]},
        lambda kind: kind == "goal",
    ),
}


@asynccontextmanager
async def hub_of(**channel: Any) -> AsyncIterator[Hub]:
    """A hub with one kind of channel."""
    options = {"allowed_delta_types": ["fossil"], "delta_publish": True, "allow_tags_filter": True, **channel}
    server = {"lag_max_s": 0}  # it is not overloaded for being late
    client = {"insecure": True, "outbox_bytes_max": 12_000}
    hub = Hub(load(env={}, overrides={"client": client, "server": server, "channels": {"default": options}}))
    async with hub.lifespan():
        yield hub


class Published:
    """Publishes, and remembers what: each publication's tags say which one it is."""

    def __init__(self, hub: Hub, chance: random.Random) -> None:
        self.payloads: list[Payload] = []
        self.kinds: list[str] = []
        self.kept: list[bool] = []
        """Whether it is in the history."""
        self._hub = hub
        self._chance = chance
        self._rows = [{"row": number, "text": "é" * 9, "value": 0} for number in range(20)]

    def publish(self) -> None:
        """Publish anything."""
        chance = self._chance
        self._publish(chance.choice(KINDS), self._payload(), skip_history=chance.random() < 0.05)

    def publish_last(self) -> None:
        """Publish what everybody hears: it passes every filter, and is in the history if there is one."""
        self._publish("goal", Raw(b'"the last one"'), skip_history=False)

    def _publish(self, kind: str, payload: Payload, *, skip_history: bool) -> None:
        self.payloads.append(payload)
        self.kinds.append(kind)
        tags = {"n": str(len(self.kinds) - 1), "kind": kind}
        delta = self._chance.random() < 0.8
        done = self._hub.node.channels.publish(
            "board", payload, tags=tags, delta=delta, skip_history=skip_history
        )
        self.kept.append(done.result().offset > 0)

    def _payload(self) -> Payload:
        chance = self._chance
        if chance.random() < 0.1:
            return chance.choice([Raw(b"1"), Raw(b'""'), chance.randbytes(chance.choice([1, 500]))])
        if chance.random() < 0.1:
            chance.shuffle(self._rows)
        chance.choice(self._rows)["value"] = chance.choice([0, 1, "zwei", [3], 10**9])
        if chance.random() < 0.1:
            return Packed(msgpack.packb(self._rows))
        return Raw(json.dumps(self._rows, ensure_ascii=False).encode())


class Reader:
    """A client that applies what it reads, and holds it against what was published."""

    def __init__(self, hub: Hub, published: Published, dialect: Dialect, *, wants: str, delta: bool) -> None:
        self.dialect = dialect
        self.delta = delta
        self.heard: list[int] = []
        self.since = 0
        """The first publication that it is to hear: what came before it had a position may be lost."""
        self.ended: list[int] = []
        self.tf, self.passes = FILTERS[wants]
        self.is_sleepy = False
        self._hub = hub
        self._published = published
        self._position: dict[str, Any] = {}
        self._base: bytes | None = None
        self.connect()

    def connect(self) -> None:
        self.socket = Socket(self._hub.node, self.dialect, unread_bytes_max=UNREAD_BYTES_MAX)
        self.socket.send(connect={})
        self.subscribe()

    def subscribe(self) -> None:
        request: dict[str, Any] = {"channel": "board", "recoverable": True}
        if self.delta:
            request["delta"] = "fossil"
        if self.tf:
            request["tf"] = self.tf
        if self._position:
            request |= {"recover": True, **self._position}
        else:
            self.since = len(self._published.payloads)
        self._is_subscribed = False
        self._asked = self.socket.send(subscribe=request)

    def unsubscribe(self) -> None:
        self.socket.send(unsubscribe={"channel": "board"})

    def read(self) -> None:
        """Read all that is there. Who was disconnected comes back."""
        for reply in self.socket.read():
            if "subscribe" in reply:
                if reply["id"] == self._asked:
                    self._subscribed(reply["subscribe"])
            elif "push" in reply:
                assert "pub" in reply["push"], reply
                if self._is_subscribed:  # as SDKs do
                    self._take(reply["push"]["pub"])
            else:
                assert "error" not in reply, reply
        if self.socket.closed:
            self.ended.append(self.socket.closed.code)
            self.connect()

    def check(self, *, all_that_is_kept: bool) -> None:
        """At the end: what was heard came once and in order, to the last one, and is all where it must be."""
        heard, published = self.heard, self._published
        assert heard[-1] == len(published.payloads) - 1
        assert len(set(heard)) == len(heard)
        kept = [number for number in heard if published.kept[number]]
        assert kept == sorted(kept)
        if all_that_is_kept:
            assert kept == [
                number
                for number in range(self.since, len(published.payloads))
                if published.kept[number] and self.passes(published.kinds[number])
            ]

    def _subscribed(self, result: Any) -> None:
        self._base = None
        self._is_subscribed = True
        assert result.get("delta", False) is self.delta
        if result.get("recoverable"):
            assert result.get("recovered", False) is bool(self._position), result
            self._position = {"offset": result.get("offset", 0), "epoch": result["epoch"]}
        for publication in result.get("publications", ()):
            self._take(publication)

    def _take(self, publication: Any) -> None:
        number = int(publication["tags"]["n"])
        assert self.passes(self._published.kinds[number])
        assert number >= self.since
        payload = self._published.payloads[number]
        if self.delta:
            data = publication["data"]
            sent = data.encode() if isinstance(data, str) else data
            if publication.get("delta"):
                assert self._base is not None
                sent = bytes(apply_delta(self._base, sent))
            self._base = sent
            assert sent == self._quoted(payload)
        else:
            assert "delta" not in publication
            assert publication["data"] == self.dialect.shows(payload)
        self.heard.append(number)
        if "offset" in publication:
            assert publication["offset"] > self._position["offset"]
            self._position["offset"] = publication["offset"]

    def _quoted(self, payload: Payload) -> bytes:
        if self.dialect is DIALECTS["json"] and isinstance(payload, bytes):
            return msgspec.json.encode(payload)
        return octets(payload)


@pytest.mark.parametrize("slow_reader", ["disconnect", "drop_oldest", "latest"])
@pytest.mark.parametrize("history_size", [0, 10_000])
async def test_every_client_has_what_was_published(slow_reader: str, history_size: int) -> None:
    ended: set[int] = set()
    computed = 0
    for _ in range(WORLDS):
        seed = random.randrange(2**32)
        try:
            async with hub_of(
                slow_reader=slow_reader, history_size=history_size, history_ttl_s=min(history_size, 60)
            ) as hub:
                readers = await live(hub, random.Random(seed))
                for reader in readers:
                    reader.check(all_that_is_kept=slow_reader == "disconnect")
                    ended.update(reader.ended)
                computed += hub.node.deltas.computed
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}, {slow_reader}, history {history_size}: {exc}") from exc
    assert computed
    assert ended <= {Disconnects.SLOW.code}


async def live(hub: Hub, chance: random.Random) -> list[Reader]:
    """A world from its beginning to its end. Returns its clients."""
    published = Published(hub, chance)
    readers: list[Reader] = []

    def step(reader: Reader) -> None:
        match chance.choices(["read", "sleep", "wake", "cut", "leave"], [10, 1, 1, 0.3, 0.3])[0]:
            case "read" if not reader.is_sleepy:
                reader.read()
            case "sleep":
                reader.is_sleepy = True
            case "wake":
                reader.is_sleepy = False
            case "cut":
                reader.socket.cut()
                reader.connect()
            case "leave" if not reader.socket.closed:
                reader.read()
                if not reader.socket.closed:
                    reader.unsubscribe()
                    reader.subscribe()

    for _ in range(STEPS):
        if len(readers) < 8 and chance.random() < 0.1:
            wants = chance.choice(list(FILTERS))
            readers.append(
                Reader(
                    hub,
                    published,
                    chance.choice(list(DIALECTS.values())),
                    wants=wants,
                    delta=chance.random() < 0.7,
                )
            )
        for _ in range(chance.choice([0, 1, 1, 2, 30])):
            published.publish()
        for reader in readers:
            step(reader)
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    await settle(readers)
    published.publish_last()
    await settle(readers)
    for reader in readers:
        reader.socket.cut()
    assert not hub.node.registry.channels
    return readers


async def settle(readers: list[Reader]) -> None:
    """Let everybody read all that there is, and all that follows it."""
    for _ in range(40):
        await asyncio.sleep(0)
        for reader in readers:
            reader.read()
