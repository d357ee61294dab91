"""Seeded simulations: nodes follow one stream over a connection that drops, delays, repeats and reorders.

Reads of the history fail, some of them for ever, return garbage, or leave entries out. The clock is simulated
and every choice comes from the seed, so that a failure is reproduced by the seed that it names.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from msgspec import Raw

from hub.core.channel import replay_buffer
from hub.core.channel.follower import Broken, Deliver, FollowerEffect, Read, StreamFollower
from hub.protocol.messages import Publication, StreamPosition

WORLDS = 4_000
HISTORY = 8


class World:
    """The clock, the random numbers, and the events to come."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    def later(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + delay, next(self._order), event))

    def run(self) -> None:
        while self._agenda:
            self.now, _, event = heapq.heappop(self._agenda)
            event()


class Redis:
    """One stream at the broker. `faults` is the share of messages and reads that go wrong.

    While `reads_fail` is set, each read of publications fails, and reads of the position alone succeed.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.epochs = count(1)
        self.epoch = f"e{next(self.epochs)}"
        self.offset = 0
        self.log: list[Publication] = []
        self.nodes: list[Node] = []
        self.faults = 0.3
        self.reads_fail = False
        self.unreadable: set[tuple[str, int]] = set()
        self.published: dict[str, int] = {}

    @property
    def top(self) -> StreamPosition:
        return StreamPosition(self.offset, self.epoch)

    def publish(self) -> None:
        self.offset += 1
        publication = Publication(Raw(b"%d" % self.offset), offset=self.offset)
        self.log = [*self.log, publication][-HISTORY:]
        self.published[self.epoch] = self.offset
        for node in self.nodes:
            self._send(node, publication, self.epoch)

    def lose_all(self) -> None:
        self.epoch, self.offset, self.log = f"e{next(self.epochs)}", 0, []

    def read(
        self, since: int, whole: bool, answer: Callable[[list[Publication], StreamPosition], None]
    ) -> None:
        def now() -> None:
            found = [
                publication
                for publication in self.log
                if (whole or publication.offset > since)
                and (self.epoch, publication.offset) not in self.unreadable
            ]
            top = self.top
            self.world.later(self.world.random.random() * 0.2, lambda: answer(found, top))

        self.world.later(self.world.random.random() * 0.2, now)

    def _send(self, node: Node, publication: Publication, epoch: str) -> None:
        chance = self.world.random.random
        copies = 1
        if chance() < self.faults:
            copies = self.world.random.choice([0, 2])
        for _ in range(copies):
            delay = chance() * (0.5 if chance() < self.faults else 0.01)
            self.world.later(delay, lambda: node.carry_out(node.follower.arrived(publication, epoch)))


class Node:
    """One node: the follower of the stream, and its clients."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.world = redis.world
        self.follower = StreamFollower(HISTORY)
        self.clients: list[Client] = []
        self.waiting: list[Client] = []
        self.behind: list[Client] = []
        self.is_loading = False
        redis.nodes.append(self)

    def carry_out(self, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(publication):
                    assert self.follower.position is not None
                    for client in self.clients:
                        client.receive(publication, self.follower.position.epoch)
                case Read(since):
                    self._read(since)
                case Broken():
                    told, self.clients = self.clients, []
                    for client in told:
                        client.was_told += 1
                        self.world.later(self.world.random.random(), client.come)
        self.settle()

    def _read(self, since: StreamPosition) -> None:
        chance = self.world.random.random()
        if self.redis.reads_fail or chance < self.redis.faults / 2:
            self.world.later(0.5, lambda: self.carry_out(self.follower.read_failed()))
        elif chance < self.redis.faults:
            self.world.later(0.1, self._read_garbage)
        else:
            self.redis.read(
                since.offset, False, lambda found, top: self.carry_out(self.follower.read(found, top))
            )

    def _read_garbage(self) -> None:
        garbage: Any = self.world.random.choice([[None], None, 7])
        with pytest.raises((AttributeError, TypeError)):
            self.follower.read(garbage, self.redis.top)
        self.carry_out(self.follower.read_failed())

    def settle(self) -> None:
        waiting, self.waiting = self.waiting, []
        for client in waiting:
            if self.follower.is_waiting or self.follower.position is None or not client.join():
                self.waiting.append(client)
        if self.waiting and not self.is_loading and not self.follower.is_waiting:
            self.is_loading = True
            self.follower.loading()
            if self.redis.reads_fail or self.world.random.random() < self.redis.faults / 2:
                self.world.later(0.5, self._load_failed)
            else:
                self.redis.read(0, True, self._loaded)

    def _loaded(self, found: list[Publication], top: StreamPosition) -> None:
        self.is_loading = False
        self.carry_out(self.follower.loaded(found, top))

    def _load_failed(self) -> None:
        """Those who wait are answered with an error, and try again later."""
        self.is_loading = False
        waiting, self.waiting = self.waiting, []
        for client in waiting:
            client.was_refused += 1
            self.world.later(1 + self.world.random.random(), client.come)
        self.carry_out(self.follower.load_failed())


class Client:
    """A subscriber that comes and goes, and checks what it gets."""

    def __init__(self, world: World, nodes: list[Node]) -> None:
        self.world = world
        self.nodes = nodes
        self.node: Node | None = None
        self.position: StreamPosition | None = None
        self.was_told = 0
        self.was_refused = 0

    def come(self) -> None:
        self.node = self.world.random.choice(self.nodes)
        self.node.waiting.append(self)
        self.node.settle()

    def go(self) -> None:
        assert self.node is not None
        for place in (self.node.clients, self.node.waiting, self.node.behind):
            if self in place:
                place.remove(self)
                self.world.later(self.world.random.random(), self.come)

    def _go_on(self) -> None:
        """Ask for the next page, unless the client left."""
        assert self.node is not None
        if self in self.node.behind:
            self.node.behind.remove(self)
            self.node.waiting.append(self)
            self.node.settle()

    def join(self) -> bool:
        assert self.node is not None
        at = self.node.follower.position
        assert at is not None
        if self.position is None:
            self.position = at
        else:
            recovery = self.node.follower.recover(self.position)
            if recovery is None:
                return False
            if recovery.recovered:
                for publication in recovery.publications:
                    self.receive(publication, at.epoch)
                if self.position != at:
                    self.node.behind.append(self)
                    self.world.later(self.world.random.random() * 0.1, self._go_on)
                    return True
            else:
                self.was_told += 1
                self.position = at
        self.node.clients.append(self)
        return True

    def receive(self, publication: Publication, epoch: str) -> None:
        assert self.position is not None
        expected = StreamPosition(self.position.offset + 1, self.position.epoch)
        assert StreamPosition(publication.offset, epoch) == expected, "in order, once, and nothing left out"
        assert publication.data == Raw(b"%d" % publication.offset)
        self.position = expected


def live(seed: int) -> tuple[World, Redis, list[Client]]:
    """Run a world: faults until 11 s, then the connection and the reads are sound."""
    world = World(seed)
    redis = Redis(world)
    nodes = [Node(redis) for _ in range(2)]
    clients = [Client(world, nodes) for _ in range(4)]
    chance = world.random.random
    for client in clients:
        world.later(chance(), client.come)
        for _ in range(world.random.randrange(3)):
            world.later(1 + chance() * 9, client.go)
    for _ in range(world.random.randrange(5, 60)):
        world.later(chance() * 10, redis.publish)
    if chance() < 0.3:
        world.later(chance() * 10, redis.lose_all)
    for node in nodes:
        for _ in range(world.random.randrange(4)):
            world.later(chance() * 10, lambda node=node: node.carry_out(node.follower.doubt()))  # type: ignore[misc]

    if chance() < 0.3:
        start = chance() * 8
        world.later(start, lambda: setattr(redis, "reads_fail", True))
        world.later(start + chance() * 6, lambda: setattr(redis, "reads_fail", False))
    if chance() < 0.3:
        # Entries that cannot be read. They have gone from the history by the end.
        redis.unreadable = {(redis.epoch, world.random.randrange(1, 20)) for _ in range(3)}
        world.later(11, redis.unreadable.clear)

    def mend() -> None:
        redis.faults, redis.reads_fail = 0.0, False

    world.later(11, mend)
    for node in nodes:
        world.later(14, lambda node=node: node.carry_out(node.follower.doubt()))  # type: ignore[misc]
    world.later(16, redis.publish)
    world.run()
    return world, redis, clients


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recoveries get two publications at a time."""
    monkeypatch.setattr(replay_buffer, "PAGE_BYTES_MAX", 2 * replay_buffer.size_of(Publication(Raw(b"10"))))


@pytest.mark.parametrize("hundred", range(0, WORLDS, 100))
def test_every_subscriber_ends_at_the_top(hundred: int) -> None:
    for seed in range(hundred, hundred + 100):
        _, redis, clients = live(seed)
        for client in clients:
            assert client.position == redis.top, f"seed {seed}"
            assert client.node is not None
            assert client in client.node.clients, f"seed {seed}"
            assert not client.node.follower.is_waiting, f"seed {seed}"


def test_the_worlds_are_hostile_enough() -> None:
    worlds = [live(seed) for seed in range(200)]
    assert sum(client.was_told for _, _, clients in worlds for client in clients) > 100
    assert sum(client.was_told == 0 for _, _, clients in worlds for client in clients) > 100
    assert sum(client.was_refused for _, _, clients in worlds for client in clients) > 100


def test_a_follower_that_forgets_to_repair_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(follower: StreamFollower, publication: Publication, epoch: str) -> list[FollowerEffect]:
        follower.position = StreamPosition(publication.offset, epoch)
        return [Deliver(publication)]

    monkeypatch.setattr(StreamFollower, "arrived", careless)
    with pytest.raises(AssertionError, match="in order"):
        live(0)


def test_a_follower_that_gives_up_silently_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    give_up = StreamFollower._give_up

    def silent(follower: StreamFollower, at: StreamPosition) -> list[FollowerEffect]:
        return [effect for effect in give_up(follower, at) if effect != Broken()]

    monkeypatch.setattr(StreamFollower, "_give_up", silent)
    with pytest.raises(AssertionError, match="in order"):
        list(map(live, range(200)))
