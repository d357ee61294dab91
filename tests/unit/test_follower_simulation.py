"""Many seeded worlds: nodes follow one stream over a link that drops, delays, repeats and reorders.

The clock is simulated and every choice comes from the seed, so a failure replays by the seed that it names.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count

import pytest
from msgspec import Raw

from hub.core.channel import replay_buffer as window
from hub.core.channel.follower import Broken, Deliver, FollowerEffect, Read, StreamFollower
from hub.protocol.messages import Publication, StreamPosition

WORLDS = 4_000
HISTORY = 8


class World:
    """Time, chance, and what is to happen."""

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
    """One stream as the broker keeps it. The link to each node is as bad as `faults` says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epochs = count(1)
        self.epoch = f"e{next(self.epochs)}"
        self.offset = 0
        self.log: list[Publication] = []
        self.nodes: list[Node] = []
        self.faults = 0.3
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
            found = [publication for publication in self.log if whole or publication.offset > since]
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
            self.world.later(delay, lambda: node.carry_out(node.feed.arrived(publication, epoch)))


class Node:
    """A node's part of the stream: the feed, and the clients that follow it there."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.world = redis.world
        self.feed = StreamFollower(HISTORY)
        self.clients: list[Client] = []
        self.waiting: list[Client] = []
        self.behind: list[Client] = []
        self.is_loading = False
        redis.nodes.append(self)

    def carry_out(self, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(publication):
                    assert self.feed.position is not None
                    for client in self.clients:
                        client.receive(publication, self.feed.position.epoch)
                case Read(since):
                    self._read(since)
                case Broken():
                    told, self.clients = self.clients, []
                    for client in told:
                        client.was_told += 1
                        self.world.later(self.world.random.random(), client.come)
        self.settle()

    def _read(self, since: StreamPosition) -> None:
        if self.world.random.random() < self.redis.faults / 2:
            self.world.later(0.5, lambda: self.carry_out(self.feed.read_failed()))
        else:
            self.redis.read(
                since.offset, False, lambda found, top: self.carry_out(self.feed.read(found, top))
            )

    def settle(self) -> None:
        waiting, self.waiting = self.waiting, []
        for client in waiting:
            if self.feed.is_waiting or self.feed.position is None or not client.join():
                self.waiting.append(client)
        if self.waiting and not self.is_loading and not self.feed.is_waiting:
            self.is_loading = True
            self.feed.loading()
            self.redis.read(0, True, self._loaded)

    def _loaded(self, found: list[Publication], top: StreamPosition) -> None:
        self.is_loading = False
        self.carry_out(self.feed.loaded(found, top))


class Client:
    """A subscriber that comes and goes, and checks what it gets."""

    def __init__(self, world: World, nodes: list[Node]) -> None:
        self.world = world
        self.nodes = nodes
        self.node: Node | None = None
        self.position: StreamPosition | None = None
        self.was_told = 0

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
        """Its socket has room for the next page, unless it left."""
        assert self.node is not None
        if self in self.node.behind:
            self.node.behind.remove(self)
            self.node.waiting.append(self)
            self.node.settle()

    def join(self) -> bool:
        assert self.node is not None
        at = self.node.feed.position
        assert at is not None
        if self.position is None:
            self.position = at
        else:
            recovery = self.node.feed.recover(self.position)
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
    """A world that has run its course: faults until 10 s, and 10 s more in which the link is good."""
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
            world.later(chance() * 10, lambda node=node: node.carry_out(node.feed.doubt()))  # type: ignore[misc]

    def mend() -> None:
        redis.faults = 0.0

    world.later(11, mend)
    for node in nodes:
        world.later(14, lambda node=node: node.carry_out(node.feed.doubt()))  # type: ignore[misc]
    world.later(16, redis.publish)
    world.run()
    return world, redis, clients


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who come back get two publications at a time."""
    monkeypatch.setattr(window, "PAGE_BYTES_MAX", 2 * window.size_of(Publication(Raw(b"10"))))


@pytest.mark.parametrize("hundred", range(0, WORLDS, 100))
def test_every_subscriber_ends_at_the_top(hundred: int) -> None:
    for seed in range(hundred, hundred + 100):
        _, redis, clients = live(seed)
        for client in clients:
            assert client.position == redis.top, f"seed {seed}"
            assert client.node is not None
            assert client in client.node.clients, f"seed {seed}"
            assert not client.node.feed.is_waiting, f"seed {seed}"


def test_the_worlds_are_hostile_enough() -> None:
    worlds = [live(seed) for seed in range(200)]
    assert sum(client.was_told for _, _, clients in worlds for client in clients) > 100
    assert sum(client.was_told == 0 for _, _, clients in worlds for client in clients) > 100


def test_a_feed_that_forgets_to_repair_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(feed: StreamFollower, publication: Publication, epoch: str) -> list[FollowerEffect]:
        feed.position = StreamPosition(publication.offset, epoch)
        return [Deliver(publication)]

    monkeypatch.setattr(StreamFollower, "arrived", careless)
    with pytest.raises(AssertionError, match="in order"):
        live(0)
