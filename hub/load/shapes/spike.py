"""A tenth of `--users`, and all at once amid `--run-time`: `-f locustfile.py,shapes/spike.py`."""

from __future__ import annotations

from hub.load import shapes
from hub.load.users.shape import TimedShape


class Spike(TimedShape):
    """A crowd that comes at once, and leaves."""

    def users(self, all_users: int, part: float) -> int:
        return shapes.spike(all_users, part)
