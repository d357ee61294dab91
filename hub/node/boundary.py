"""The guarded entry into a node: what sockets, connections, timers, tasks and handlers raise ends here.

An exception that passes the boundary is one counted, rate-limited log line. It ends at most the connection or
task it belongs to: the guard returns, and its caller closes what failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from hub.telemetry import Metrics, RateLimitedLog, get_logger

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = get_logger("hub.node")


class Boundary:
    """Logs and counts what is raised at the places where the outside world calls into a node.

    Args:
        metrics: counts each failure by its place.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = RateLimitedLog(_log)

    def failed(self, place: str, error: BaseException, *, client: str = "", channel: str = "") -> None:
        """Record that something was raised.

        Args:
            place: where, in a few fixed words such as `socket` or `timer`: a label of the metric.
            error: what was raised.
            client: id of the client that it concerns, if any.
            channel: name of the channel that it concerns, if any.

        Raises:
            KeyboardInterrupt: where that is the error, since it is meant for the process.
        """
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._metrics.boundary_errors.labels(place).inc()
        self._log.error(
            "boundary.failed", kind=place, place=place, client=client, channel=channel, exc_info=error
        )

    def ignored(self, reason: str) -> None:
        """Record that a message was not readable and is ignored: log it now and then.

        Args:
            reason: what is wrong with the message.
        """
        self._metrics.boundary_errors.labels("message").inc()
        self._log.warning("message.ignored", reason=reason)

    def guard(self, place: str, callback: Callable[_P, object]) -> Callable[_P, None]:
        """A callback that never raises: a failure is recorded, and nothing else happens.

        Args:
            place: as for `failed`.
            callback: what to call.
        """

        @wraps(callback)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:
                self.failed(place, error)

        return guarded

    def soon(self, place: str, callback: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Call back in the next turn of the event loop, guarded."""
        asyncio.get_running_loop().call_soon(lambda: self.guard(place, callback)(*args, **kwargs))
