"""The master's clock on each of its workers, since `receive` compares the times of two of them.

A worker asks the master for its time now and then, and takes the answer that came quickest: it is wrong by
half of its way at the most. An offset within that is none that could be known, and counts as none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

MESSAGE: Final = "hub clock"
ROUNDS: Final = 12
FIRST_PERIOD_S: Final = 0.1
PERIOD_S: Final = 5.0
"""Between two questions, once there were `ROUNDS` of them."""

wall: Callable[[], float] = time.time
"""This machine's own."""


class Offset:
    """How far the master's clock is ahead of this machine's."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.begun = Event()
        """Set once there was a round, or where none is needed."""
        self._rounds: deque[tuple[float, float]] = deque(maxlen=ROUNDS)

    @property
    def known(self) -> bool:
        """Whether there were rounds enough."""
        return len(self._rounds) == ROUNDS

    def add(self, asked: float, theirs: float, answered: float) -> None:
        """A round is over. Its moments are in Unix seconds, the master's by its clock."""
        self._rounds.append((answered - asked, theirs - (asked + answered) / 2))
        took_s, ahead_s = min(self._rounds)
        self.seconds = ahead_s if abs(ahead_s) > took_s / 2 else 0.0
        self.begun.set()


OFFSET: Final = Offset()


def now() -> float:
    """The master's time, in Unix seconds."""
    return wall() + OFFSET.seconds


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """The master answers, workers ask."""
    runner = environment.runner

    def answer(msg: Any, **_: Any) -> None:
        assert isinstance(runner, MasterRunner)
        runner.send_message(MESSAGE, {**msg.data, "time": wall()}, msg.node_id)

    def hear(msg: Any, **_: Any) -> None:
        OFFSET.add(msg.data["asked"], msg.data["time"], wall())

    def ask() -> None:
        while True:
            assert isinstance(runner, WorkerRunner)
            runner.send_message(MESSAGE, {"asked": wall()})
            gevent.sleep(PERIOD_S if OFFSET.known else FIRST_PERIOD_S)

    if isinstance(runner, MasterRunner):
        runner.register_message(MESSAGE, answer)
    elif isinstance(runner, WorkerRunner):
        runner.register_message(MESSAGE, hear)
        gevent.spawn(ask)
    if not isinstance(runner, WorkerRunner):
        OFFSET.begun.set()
