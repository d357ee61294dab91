"""Users come evenly, for four fifths of `--run-time`, up to `--users`: `-f locustfile.py,shapes/ramp.py`."""

from __future__ import annotations

from loadtests import shapes
from loadtests.swarm.shape import TimedShape


class Ramp(TimedShape):
    """Ever more users."""

    def users(self, all_users: int, part: float) -> int:
        return shapes.ramp(all_users, part)
