"""Scenarios: what users of a hub do. Each is a class of users; a run takes one, or several by weight."""

from __future__ import annotations

import math
import random

import gevent
from locust import constant, constant_throughput, task

from hub.client import values
from hub.load.users import clock
from hub.load.users.kit import HubUser

NAMESPACE = "load"
"""The channels of every scenario: a hub that is tested has this namespace, with history."""

BOARD = f"{NAMESPACE}:board"


class ChatUser(HubUser):
    """Chat rooms: a few are crowded, most are small. On entry the history is read; people type, and talk."""

    def ready(self) -> None:
        rooms = self.environment.parsed_options.rooms
        # Zipf's law: the room of rank n is entered with a probability that goes with 1/n.
        weights = [1 / rank for rank in range(1, rooms + 1)]
        self.room = f"{NAMESPACE}:room-{random.choices(range(rooms), weights)[0]}"
        self.subscribe(self.room)
        self.history(self.room, 20)

    def wait_time(self) -> float:
        """Mostly silent: a message in `--talk-every` seconds, drawn as independent events come."""
        return random.expovariate(1 / self.environment.parsed_options.talk_every)

    @task(3)
    def talk(self) -> None:
        self.publish(self.room, text="x" * self.environment.parsed_options.payload_bytes)

    @task(1)
    def type(self) -> None:
        self.publish(self.room, typing=True)


class BoardPublisher(HubUser):
    """The one who keeps a scoreboard: publishes `--updates` times a second."""

    fixed_count = 1

    def wait_time(self) -> float:
        return float(self._pace(self))

    def ready(self) -> None:
        self._pace = constant_throughput(self.environment.parsed_options.updates)

    @task
    def update(self) -> None:
        self.publish(BOARD, score=[random.randrange(100), random.randrange(100)],
                     text="x" * self.environment.parsed_options.payload_bytes)  # fmt: skip


class LiveUser(HubUser):
    """Live updates: follows the scoreboard, and does nothing else."""

    wait_time = constant(3600)

    def ready(self) -> None:
        self.subscribe(BOARD)

    @task
    def look(self) -> None:
        pass


class MobileUser(LiveUser):
    """A phone: now and then it sleeps or changes networks, and comes back with what it missed."""

    def wait_time(self) -> float:
        return random.expovariate(1 / self.environment.parsed_options.drop_every)

    @task
    def look(self) -> None:
        self.drop()


class StormUser(LiveUser):
    """A storm: all lose their connection at the same moment, every `--drop-every` seconds by the clock."""

    def wait_time(self) -> float:
        period_s = self.environment.parsed_options.drop_every
        return float(math.floor(clock.now() / period_s + 1) * period_s - clock.now())

    @task
    def look(self) -> None:
        self.drop()


class SlowUser(LiveUser):
    """A reader who is too slow: rests after each message, and takes what the hub does with such."""

    ordered = False

    def on_read(self) -> None:
        gevent.sleep(self.environment.parsed_options.rest)


class IdleUser(HubUser):
    """Holds a connection and a subscription of its own, and hears nothing but pings."""

    wait_time = constant(3600)

    def ready(self) -> None:
        self.subscribe(f"{NAMESPACE}:idle-{self.number}")

    def on_publication(self, channel: str, publication: values.Publication) -> None:
        raise AssertionError(f"nobody publishes to {channel}")

    @task
    def hold(self) -> None:
        pass
