"""Light clients beside a load, in a process that has little else to do: what they see is the hub's doing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from loadtests.faults.clients import Client, Subscriber, subscribed

ASK_PERIOD_S = 0.02
START_TIMEOUT_S = 20.0


class Probe(Subscriber):
    """A subscriber that notes how long each publication took."""

    def __init__(self, port: int, channel: str) -> None:
        super().__init__([port], channel)
        self.times_s: list[float] = []

    def _take(self, publication: dict[str, Any]) -> None:
        super()._take(publication)
        self.times_s.append(time.monotonic() - publication["data"]["at"])


@asynccontextmanager
async def probing(port: int, channels: Sequence[str]) -> AsyncIterator[list[Probe]]:
    """Probes on one node, one in each channel."""
    probes = [Probe(port, channel) for channel in channels]
    try:
        await subscribed(probes, START_TIMEOUT_S)
        for probe in probes:
            probe.times_s.clear()
        yield probes
    finally:
        for probe in probes:
            probe.end()


def p99(probes: Sequence[Probe]) -> float:
    """The 99th percentile of what probes saw, in seconds."""
    return quantile([each for probe in probes for each in probe.times_s], 0.99)


def quantile(values: Sequence[float], part: float) -> float:
    """The value that such a part of all is not over; 0 where there is none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


class Asker(Client):
    """Sends a ping command again and again, and notes how long each answer takes."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(ports)
        self.times_s: list[float] = []
        self._asked: dict[int, float] = {}
        self._asking: asyncio.Task[None] | None = None

    def on_connected(self) -> None:
        self._asking = asyncio.ensure_future(self._ask())

    def end(self) -> None:
        super().end()
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        while True:
            self._asked[self.command("ping", {})] = time.monotonic()
            await asyncio.sleep(ASK_PERIOD_S)

    def on_reply(self, reply: dict[str, object]) -> None:
        asked_at = self._asked.pop(int(str(reply.get("id", 0))), None)
        if asked_at is not None:
            self.times_s.append(time.monotonic() - asked_at)
