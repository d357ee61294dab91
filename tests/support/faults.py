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
    """A client that pings all the time and keeps how long each answer takes.

    Times are CPU time of the thread, in which the hub runs too. They leave out the time of other programs.

    Args:
        peer: the client's connection.
    """

    def __init__(self, peer: Peer) -> None:
        self.answers_s: list[float] = []
        """CPU seconds until each answer, in the order of the pings."""
        self._peer = peer
        self._began_s = 0.0

    def restart(self) -> None:
        """Forget the answers so far."""
        self.answers_s.clear()
        self._began_s = time.thread_time()

    @property
    def longest_share(self) -> float:
        """The share of the thread's CPU time since `restart` that passed before the slowest answer."""
        return max(self.answers_s) / (time.thread_time() - self._began_s)

    async def run(self) -> None:
        """Ping until the task is cancelled."""
        number = 1_000
        while True:
            number += 1
            sent_at = time.thread_time()
            [reply] = await self._peer.ask(command(number, "ping"))
            assert reply["id"] == number, reply
            self.answers_s.append(time.thread_time() - sent_at)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def pinging(port: int) -> AsyncIterator[Pinger]:
    """A client of its own user that pings for as long as the block lasts.

    Raises:
        AssertionError: a ping is still unanswered at the end of the block, and stays so.
    """
    async with connected(port, sdk.token("pinger")) as peer:
        pinger = Pinger(peer)
        task = asyncio.create_task(pinger.run())
        try:
            await until(lambda: pinger.answers_s or task.done(), "the first ping is answered")
            pinger.restart()
            yield pinger
            # A ping that waited through the whole block counts, too.
            answered = len(pinger.answers_s)
            await until(lambda: len(pinger.answers_s) > answered or task.done(), "a ping is answered")
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
