"""The way out: one publication to all who are in its channel. Nothing here waits for a subscriber."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from hub.core.registry import Channel, Group
from hub.node.connection import Batch, Connection
from hub.protocol import messages as m
from hub.telemetry import Metrics

Subscribers: TypeAlias = Channel[Connection]


class Fanout:
    """Encodes once for each encoding in use, joins what meets in one turn of the loop, and writes it to all.

    Args:
        metrics: counts what goes out.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._dirty: list[Group[Connection]] = []

    def start(self) -> None:
        """Begin: there is a running loop."""
        self._loop = asyncio.get_running_loop()

    def publish(self, channel: Subscribers, publication: m.Publication) -> None:
        """Send a publication to the channel at the end of this turn of the loop."""
        reply = m.Reply(push=m.Push(channel=channel.name, pub=publication))
        for held in channel.opening.values():
            held.append(publication)
        if channel.behind and not publication.offset:
            # In no history, so it is not among what they will be sent.
            for member in channel.behind:
                member.send(reply)
        for group in channel.groups.values():
            if not group.pending:
                if not self._dirty:
                    self._loop.call_soon(self._flush_all)
                self._dirty.append(group)
                group.pending_since = self._loop.time()
            group.pending.append(group.encoding.codec.encode(reply))

    def tell(self, channel: Subscribers, push: m.Push) -> None:
        """Send a join or a leave to those in the channel who hear them."""
        sent = 0
        for group in channel.groups.values():
            listeners = [member for member, subscription in group.members.items() if subscription.hears_joins]
            if listeners:
                self.flush(group)
                data = group.encoding.pack([group.encoding.codec.encode(m.Reply(push=push))])
                for member in listeners:
                    member.write(data)
                sent += len(listeners)
        for behind, subscription in channel.behind.items():
            if subscription.hears_joins:
                behind.send(m.Reply(push=push))
                sent += 1
        self._metrics.sent["join" if push.join else "leave"] += sent

    def flush(self, group: Group[Connection]) -> None:
        """Write what waits for a group, before its members or what they hear changes."""
        if not group.pending:
            return
        batch = Batch(group.channel, group.encoding, group.pending)
        group.pending = []
        data = batch.data
        for member in group.members:
            write = member.ready
            if write is not None:
                write(data)
            else:
                member.deliver(batch)
        metrics = self._metrics
        metrics.sent["publication"] += len(batch.encoded) * len(group.members)
        metrics.bytes_out += len(data) * len(group.members)
        metrics.publish_to_send_seconds.observe(self._loop.time() - group.pending_since)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for group in dirty:
            self.flush(group)
