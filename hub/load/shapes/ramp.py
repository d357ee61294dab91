"""Users come evenly, for four fifths of `--run-time`, up to `--users`: `-f locustfile.py,shapes/ramp.py`."""

from __future__ import annotations

from hub.load import shapes
from hub.load.users.shape import TimedShape


class Ramp(TimedShape):
    """Ever more users."""

    def users(self, all_users: int, part: float) -> int:
        return shapes.ramp(all_users, part)
