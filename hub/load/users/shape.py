"""A load whose users come and go by a plan: the base of its shapes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from locust import LoadTestShape

RUN_TIME_S: Final = 60
"""Of a run that was not told how long it takes."""


class TimedShape(LoadTestShape):
    """A shape over `--run-time` with up to `--users`, which come at `--spawn-rate` at the most."""

    abstract = True
    use_common_options = True

    @abstractmethod
    def users(self, all_users: int, part: float) -> int:
        """How many there are when so much of the run is over, from 0 to 1."""

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        part = self.get_run_time() / (options.run_time or RUN_TIME_S)
        if part >= 1:
            return None
        all_users = options.num_users or 1
        return self.users(all_users, part), options.spawn_rate or all_users
