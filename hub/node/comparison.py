"""Compares the positions of many channels with the broker's, in slices between which the event loop turns."""

from __future__ import annotations

import asyncio
import random
from asyncio import Task
from collections.abc import Callable
from typing import Final, TypeAlias

from hub.broker.base import Broker
from hub.errors import BrokerError
from hub.node.boundary import Boundary
from hub.node.environment import Clock
from hub.node.repairs import READ_TIMEOUT_S, failure_of
from hub.protocol.messages import StreamPosition

SLICE: Final = 500
"""Channels that are compared with one call of the broker."""

SLICES_MAX: Final = 2
"""Slices in progress at once."""

COMPARE_PERIOD_S: Final = 25.0
"""Seconds, on average, in which every channel is compared once."""

RETRY_S: Final = 0.5
"""Seconds, on average, until a slice that failed is compared again. Each further failure doubles the time."""

RETRY_MAX_S: Final = 8.0

Positions: TypeAlias = dict[str, StreamPosition]


class Comparison:
    """Compares channels with the broker: all of them after a gap, and in turn all the time.

    Args:
        broker: knows the positions.
        boundary: records what fails.
        names: lists the channels.
        choose: chooses from a slice of names the channels to compare.
        compared: called with chosen channels, their positions at the broker, and whether it is after a gap.
        ended: called when the comparison after a gap has ended.
        clock: of the node.
    """

    def __init__(
        self,
        broker: Broker,
        boundary: Boundary,
        names: Callable[[], list[str]],
        choose: Callable[[list[str]], list[str]],
        compared: Callable[[list[str], Positions, bool], None],
        ended: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._boundary = boundary
        self._names = names
        self._choose = choose
        self._compared = compared
        self._ended = ended
        self._clock = clock
        self._task: Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the comparison after a gap is in progress."""
        return self._task is not None

    def begin(self) -> None:
        """Compare all channels after a gap. This replaces the comparison after an earlier gap."""
        self.stop()
        self._task = asyncio.create_task(self._compare_all())
        self._task.add_done_callback(self._finish)

    def stop(self) -> None:
        """End the comparison after a gap."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def compare_forever(self) -> None:
        """Compare all channels in turn, spread over `COMPARE_PERIOD_S`, and renew their time to live."""
        while True:
            names = self._names()
            starts = range(0, len(names), SLICE) or (0,)
            for start in starts:
                await self._clock.sleep(COMPARE_PERIOD_S * random.uniform(0.75, 1.25) / len(starts))  # noqa: S311
                await self._compare(self._choose(names[start : start + SLICE]), is_after_gap=False)

    async def _compare_all(self) -> None:
        names = self._names()
        starts = iter(range(0, len(names), SLICE))

        async def compare_slices() -> None:
            for start in starts:
                await self._compare_slice(names[start : start + SLICE])
                await asyncio.sleep(0)

        await asyncio.gather(*(compare_slices() for _ in range(SLICES_MAX)))

    async def _compare_slice(self, names: list[str]) -> None:
        delay_s = RETRY_S
        while not await self._compare(self._choose(names), is_after_gap=True):
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))  # noqa: S311
            delay_s = min(2 * delay_s, RETRY_MAX_S)

    async def _compare(self, names: list[str], *, is_after_gap: bool) -> bool:
        """Compare some channels. Returns whether their positions could be read."""
        if not names:
            return True
        try:
            read = self._broker.positions(names, renew=not is_after_gap)
            await asyncio.wait([read], timeout=READ_TIMEOUT_S)
            if not read.done():
                read.add_done_callback(failure_of)  # retrieves the exception of a late read
                return False
            self._compared(names, read.result(), is_after_gap)
        except BrokerError:
            return False
        except Exception as error:
            self._boundary.failed("compare", error)
            return False
        return True

    def _finish(self, task: Task[None]) -> None:
        if self._task is task:
            self._task = None
            self._ended()
