"""The data that waits for one client whose socket is full."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hub.core.outbox import Outbox
from hub.node.batch import Batch
from hub.node.metrics import count_dropped
from hub.node.outboxes import Outboxes
from hub.settings import ChannelOptions, ClientSettings
from hub.telemetry import Metrics


class Backlog:
    """The outbox of one connection, counted with the other outboxes of the node.

    Args:
        client: limits of the outbox.
        channels: options by namespace, for the metric of dropped publications.
        metrics: counts dropped publications.
        outboxes: of the node.
        give_up: ends the connection and drops the backlog, when the node needs the memory.
    """

    __slots__ = ("_channels", "_metrics", "_outbox", "_outboxes")

    def __init__(
        self,
        client: ClientSettings,
        channels: Mapping[str, ChannelOptions],
        metrics: Metrics,
        outboxes: Outboxes,
        give_up: Callable[[], None],
    ) -> None:
        self._channels = channels
        self._metrics = metrics
        self._outboxes = outboxes
        self._outbox = Outbox(client.outbox_bytes_max, client.outbox_messages_max)
        outboxes.behind[self._outbox] = give_up

    def __len__(self) -> int:
        return len(self._outbox)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._outbox.size

    def push(self, data: bytes) -> bool:
        """Add data at the end. Returns False if it does not fit, even after dropping publications."""
        before = self._outbox.size
        fits = self._outbox.push(data)
        self._account(before)
        return fits

    def add(self, batch: Batch) -> bool:
        """Add publications as their channel's `slow_reader` says. Returns as `push` does."""
        outbox, channel = self._outbox, batch.channel
        before = outbox.size
        fits = True
        match channel.slow_reader:
            case "disconnect":
                fits = outbox.push(batch.data)
            case "drop_oldest":
                for data in batch.each:
                    outbox.offer(channel.name, data)
            case "latest":
                outbox.dropped[channel.name] += len(batch.encoded) - 1
                fits = outbox.replace(channel.name, batch.each[-1])
        self._account(before)
        return fits

    def pop(self) -> bytes:
        """Remove and return the oldest data. The backlog must not be empty."""
        data = self._outbox.pop()
        self._outboxes.grew(-len(data))
        return data

    def drop(self) -> None:
        """Drop all data. The backlog is not used any more."""
        del self._outboxes.behind[self._outbox]
        self._outboxes.grew(-self._outbox.size)

    def _account(self, before: int) -> None:
        """Count what was added and what was dropped, after the outbox had `before` bytes."""
        dropped = self._outbox.dropped
        if dropped:
            count_dropped(self._metrics, self._channels, dropped)
            dropped.clear()
        self._outboxes.grew(self._outbox.size - before)
