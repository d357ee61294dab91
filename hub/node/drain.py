"""Sending a node's clients to other nodes, spread over a window, so that they do not arrive as a herd."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Final

from hub.node.connection import Connection
from hub.node.connections import Connections
from hub.node.environment import Clock
from hub.node.state import DRAINING, NodeState
from hub.protocol.codes import Disconnects
from hub.telemetry import get_logger

BATCH_PERIOD_S: Final = 0.1
"""How often a batch of clients is asked to leave."""

STEP_MAX: Final = 20
"""Clients that leave in one turn of the event loop: those who stay must not wait for a large batch."""

_log = get_logger("hub.drain")


class Drain:
    """The end of a node's connections, which comes once, however often it is asked for.

    Args:
        connections: that end.
        state: of the node.
        clock: of the node.
    """

    def __init__(self, connections: Connections, state: NodeState, clock: Clock) -> None:
        self._connections = connections
        self._state = state
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._ends_at = math.inf

    def begin(self, window_s: float) -> asyncio.Task[None]:
        """Take nobody in any more, and ask everybody to reconnect elsewhere, in an order of chance.

        A drain that goes on already is joined, and hurried where this one would end sooner.

        Args:
            window_s: seconds until the last one is asked; 0 for all at once.
        """
        self._ends_at = min(self._ends_at, self._clock.now() + window_s)
        if self._task is None:
            self._state.enter(DRAINING)
            self._task = asyncio.create_task(self._run(window_s))
        return self._task

    async def stop(self) -> None:
        """Cancel a drain that goes on, so that the node can start and drain again."""
        task, self._task = self._task, None
        self._ends_at = math.inf
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, window_s: float) -> None:
        now = self._clock.now
        began = now()
        leaving = list(self._connections)
        random.shuffle(leaving)
        _log.info("drain.started", clients=len(leaving), window_s=window_s)
        times = sorted((began + random.uniform(0, window_s) for _ in leaving), reverse=True)  # noqa: S311 - jitter
        behind: list[Connection] = []
        total = len(leaving)
        while leaving or behind:
            is_over = now() >= self._ends_at
            due, behind = behind, []
            while leaving and (is_over or times[len(leaving) - 1] <= now()):
                due.append(leaving.pop())
            for count, connection in enumerate(due, 1):
                if connection.waiting_bytes and not is_over:
                    behind.append(connection)  # it reads what waits for it first, while there is time
                else:
                    farewell(connection, now())
                if count % STEP_MAX == 0:
                    await asyncio.sleep(0)
            if leaving or behind:
                await self._clock.sleep(min(BATCH_PERIOD_S, max(0.0, self._ends_at - now())))
        _log.info("drain.finished", clients=total, duration_s=round(now() - began, 1))


def farewell(connection: Connection, now: float) -> None:
    """Ask one client to reconnect elsewhere, with a fresh token."""
    try:
        connection.run(connection.session.renew(now))
        connection.close(Disconnects.SHUTDOWN)
    except Exception as error:
        connection.fail("drain", error)
