"""Helpers for fault tests: serve a hub over a broker of the test's choice, read metrics, wait, time pings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from support import sdk
from support.limits import WAIT_S
from support.peer import Peer, command, connected
from support.server import Running, running

from hub import Hub
from hub.broker.base import Broker
from hub.settings import Settings


async def until(condition: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
    """Poll a condition until it holds.

    Args:
        condition: returns a true value when the wait is over.
        what: the expected state, for the message of a failure.
        seconds: the limit.

    Raises:
        AssertionError: the condition does not hold within the limit.
    """
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the tested objects have no event to wait for
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


def count(hub: Hub, name: str, **labels: str) -> float:
    """The sum of the samples of a metric, as `/metrics` shows them.

    Args:
        hub: the hub to read.
        name: name of the sample, such as `hub_boundary_errors_total`.
        labels: only samples with these labels are counted.
    """
    text = hub.metrics.render()[0].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextlib.asynccontextmanager
async def serving(
    configured: Settings | None = None, broker: Broker | None = None, /, **handlers: Callable[[Any], Any]
) -> AsyncIterator[tuple[Hub, Running]]:
    """Serve a hub in this event loop, under the hub's own server.

    Args:
        configured: settings of the hub; those of `sdk.settings` by default.
        broker: the broker of the hub; by default the broker that the settings name.
        handlers: handlers of the app, by event: `rpc=…` is `on_rpc`.
    """
    hub = Hub(configured or sdk.settings(), broker=broker)
    for event, handler in handlers.items():
        getattr(hub, f"on_{event}")(handler)
    async with serving_hub(hub) as server:
        yield hub, server


@contextlib.asynccontextmanager
async def serving_hub(hub: Hub) -> AsyncIterator[Running]:
    """Serve a hub that the test made. A hub may be served again, in another event loop, too."""
    app = Starlette(routes=hub.routes(), lifespan=hub.lifespan)
    app.state.hub = hub
    async with running(app, hub.settings, drain=hub.drain) as server:
        yield server


def shorten(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> None:
    """Replace a constant of the node, such as a period, in every module that holds it.

    Raises:
        AssertionError: no module of the node holds the constant.
    """
    modules = [
        module
        for path, module in sys.modules.items()
        if path.startswith("hub.node.") and isinstance(getattr(module, name, None), int | float)
    ]
    assert modules, f"no module of hub.node holds {name}"
    for module in modules:
        monkeypatch.setattr(module, name, seconds)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Pinger:
    """A client that pings all the time and keeps how far a clock runs from each answer to the next.

    Args:
        peer: the client's connection.
        clock: returns a number that grows with the work of the hub, and not while only other programs run.
    """

    def __init__(self, peer: Peer, clock: Callable[[], float]) -> None:
        self.waits: list[float] = []
        """How far the clock ran before each answer, since the answer before."""
        self._peer = peer
        self._clock = clock
        self._began = self._last = 0.0

    def restart(self) -> None:
        """Forget the answers so far."""
        self.waits.clear()
        self._began = self._last = self._clock()

    @property
    def longest_share(self) -> float:
        """The part of the clock's run since `restart` in which the client got no answer, at the most."""
        now = self._clock()
        return max([*self.waits, now - self._last]) / (now - self._began)

    async def run(self) -> None:
        """Ping until the task is cancelled."""
        self._last = self._clock()
        number = 1_000
        while True:
            number += 1
            [reply] = await self._peer.ask(command(number, "ping"))
            assert reply["id"] == number, reply
            now = self._clock()
            self.waits.append(now - self._last)
            self._last = now
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def pinging(port: int, clock: Callable[[], float] = time.thread_time) -> AsyncIterator[Pinger]:
    """A client of its own user that pings for as long as the block lasts.

    Args:
        port: of the hub.
        clock: of the pinger. By default, the CPU time of this thread, in which the hub runs too.

    Raises:
        AssertionError: a ping is still unanswered at the end of the block, and stays so.
    """
    async with connected(port, sdk.token("pinger")) as peer:
        pinger = Pinger(peer, clock)
        task = asyncio.create_task(pinger.run())
        try:
            await until(lambda: pinger.waits or task.done(), "the first ping is answered")
            pinger.restart()
            yield pinger
            # A ping that waited through the whole block counts, too.
            answered = len(pinger.waits)
            await until(lambda: len(pinger.waits) > answered or task.done(), "a ping is answered")
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
