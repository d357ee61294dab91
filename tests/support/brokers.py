"""Brokers that the contract suite runs on, one entry of `HARNESSES` each, and a listener for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hub.broker.base import Broker
from hub.broker.memory import MemoryBroker
from hub.protocol.messages import ClientInfo, Publication


class Listener:
    """Keeps what a broker delivers, in the order in which it came."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        self.heard.append(("publication", channel, publication, epoch))

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.heard.append(("join", channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.heard.append(("leave", channel, info))

    def publications(self, channel: str) -> list[Publication]:
        return [item[2] for item in self.heard if item[:2] == ("publication", channel)]


class Harness(Protocol):
    """One kind of broker under test. What is published is delivered once `settle` returns."""

    def broker(self) -> Broker:
        """A broker, not yet started."""

    async def advance(self, seconds: float) -> None:
        """Let time pass."""

    async def settle(self) -> None:
        """Wait until every broker has delivered what was published before."""


class MemoryHarness:
    def __init__(self) -> None:
        self.now = 1_000.0

    def broker(self) -> Broker:
        return MemoryBroker(clock=lambda: self.now, wall_clock=lambda: self.now)

    async def advance(self, seconds: float) -> None:
        self.now += seconds

    async def settle(self) -> None:
        pass


HARNESSES: dict[str, Callable[[], Harness]] = {"memory": MemoryHarness}
