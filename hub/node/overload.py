"""How loaded a node is: measured now and then, told to `hub.core.overload`, and acted upon."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hub.core.overload import Load, Measures, Step
from hub.node.outboxes import Outboxes
from hub.settings import Settings
from hub.telemetry import Metrics, get_logger

PERIOD_S: Final = 0.1
"""How often the lag of the event loop is measured."""

BYTES_PERIOD_S: Final = 1.0
"""How often bytes are measured, and readers shed."""

_CGROUP_SHARE: Final = 0.9
"""What of a container's memory the nodes in it may have."""

_UNLIMITED_BYTES: Final = 1 << 60
"""A limit from here on is cgroups' way to say that there is none."""

_PAGE_BYTES: Final = mmap.PAGESIZE
_STATM: Final = Path("/proc/self/statm")
_CGROUP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")

_log = get_logger("hub.load")


class OverloadMonitor:
    """Watches the load of a node, and sheds slow readers where it comes to that.

    Args:
        settings: the bounds.
        outboxes: of the node.
        metrics: that show what is measured.
        changed: called when the step is another.
    """

    def __init__(
        self,
        settings: Settings,
        outboxes: Outboxes,
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        bounds = Measures(
            settings.server.lag_max_s, settings.client.outboxes_bytes_max, memory_bytes_max(settings)
        )
        self._load = Load(bounds, 0.0)
        self._outboxes = outboxes
        self._metrics = metrics
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._memory_bytes = 0

    @property
    def step(self) -> Step:
        """What the node gives up for now."""
        return self._load.step

    def start(self) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        self._due = self._sized_at = self._loop.time()
        self._look()

    def stop(self) -> None:
        """End."""
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        lag_s = now - self._due
        sized = now - self._sized_at >= BYTES_PERIOD_S
        if sized:
            self._sized_at = now
            self._memory_bytes = memory_bytes()
        before = self.step
        step = self._load.look(Measures(lag_s, self._outboxes.size, self._memory_bytes), now)
        self._show()
        if step is not before:
            self._tell(before)
            self._changed()
        if sized and step is Step.SHEDDING:
            self._shed()
        self._due = now + PERIOD_S
        self._timer = self._loop.call_at(self._due, self._look)

    def _show(self) -> None:
        self._metrics.loop_lag_seconds.set(self._load.lag_s)
        self._metrics.load_step.set(self.step)
        self._metrics.memory_bytes.set(self._memory_bytes)

    def _tell(self, before: Step) -> None:
        lag_s, outbox, memory = round(self._load.lag_s, 3), self._outboxes.size, self._memory_bytes
        step = self.step.name.lower()
        if self.step > before:
            _log.warning("load.step", step=step, lag_s=lag_s, outbox_bytes=outbox, memory_bytes=memory)
        else:
            _log.info("load.step", step=step, lag_s=lag_s, outbox_bytes=outbox, memory_bytes=memory)

    def _shed(self) -> None:
        """Disconnect those who read slowest, until half of what waits is gone."""
        before = self._outboxes.size
        if shed := self._outboxes.shed(before // 2):
            _log.warning("load.shed", clients=shed, outbox_bytes=before - self._outboxes.size)


def memory_bytes() -> int:
    """The resident memory of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def memory_bytes_max(settings: Settings) -> int:
    """Where a node's memory is too much; 0 where nothing says so."""
    if settings.server.memory_bytes_max:
        return settings.server.memory_bytes_max
    limit = min(_cgroup_limits(), default=_UNLIMITED_BYTES)
    return 0 if limit >= _UNLIMITED_BYTES else int(limit * _CGROUP_SHARE / settings.server.workers)


def _cgroup_limits() -> Iterator[int]:
    """The limits on memory of the control groups that this process is in, of either version."""
    try:
        groups = [line.split(":", 2) for line in _CGROUP.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        for folder in (path.lstrip("/"), ""):
            if not controllers:
                file = _CGROUPS / folder / "memory.max"
            elif "memory" in controllers.split(","):
                file = _CGROUPS / "memory" / folder / "memory.limit_in_bytes"
            else:
                continue
            try:
                yield int(file.read_text())
            except (OSError, ValueError):  # it is not there, or holds `max`
                continue
