"""The way out: one publication to all who are in its channel. Nothing here waits for a subscriber."""

from __future__ import annotations

import asyncio
import time
from typing import Final, TypeAlias

from hub.core.channel.deltas import Deltas, whole
from hub.core.channel.filter import Filter
from hub.core.channel.registry import Chain, Channel, Group
from hub.node.connection import Batch, Connection
from hub.protocol import messages as m
from hub.protocol.encoding import Codec
from hub.telemetry import Metrics

Subscribers: TypeAlias = Channel[Connection]

_LOOK_S: Final = 0.001
"""While a turn of the event loop is shorter than this, there is one more before publications leave."""

_LOOK_MEMBERS: Final = 64
"""Where nobody has so many to write to, joining publications saves less than it takes to wait for them."""


class ChainBatch(Batch):
    """Publications that leave together for those who take deltas: each may be one of the publication before.

    Args:
        group: whose they are.
        encoded: as those get them who were sent the one before.
        publications: what they are of.
    """

    __slots__ = ("_group", "_publications", "_whole")

    def __init__(
        self, group: Group[Connection], encoded: list[bytes], publications: list[m.Publication]
    ) -> None:
        super().__init__(group.channel, group.encoding, encoded)
        self._group = group
        self._publications = publications
        self._whole: ChainBatch | None = None

    @property
    def whole(self) -> ChainBatch:
        """The same for those who were not sent the one before."""
        if self._whole is None:
            first = _encode(self._group, whole(self._publications[0]))
            self._whole = ChainBatch(self._group, [first, *self.encoded[1:]], self._publications)
        return self._whole

    @property
    def each(self) -> list[bytes]:
        """All of them whole: whichever is given up, none of the others is a delta of it."""
        if self._each is None:
            encoded = (_encode(self._group, whole(publication)) for publication in self._publications)
            self._each = [self.encoding.pack([one]) for one in encoded]
        return self._each


class Fanout:
    """Encodes once for each encoding in use, joins what comes at once, and writes it to all.

    Args:
        metrics: counts what goes out.
        deltas: made for those who take them.
    """

    def __init__(self, metrics: Metrics, deltas: Deltas) -> None:
        self._metrics = metrics
        self._deltas = deltas
        self._dirty: list[Group[Connection]] = []
        self._began = 0.0

    def start(self) -> None:
        """Begin: there is a running loop."""
        self._loop = asyncio.get_running_loop()

    def publish(self, channel: Subscribers, publication: m.Publication) -> None:
        """Send a publication to the channel, after one more look at what else has come."""
        reply = m.Reply(push=m.Push(channel=channel.name, pub=publication))
        for held in channel.opening.values():
            held.append(publication)
        if channel.behind and not publication.offset:
            # In no history, so it is not among what they will be sent.
            for member, subscription in channel.behind.items():
                if single := subscription.single(publication):
                    member.send(m.Reply(push=m.Push(channel=channel.name, pub=single)))
        if not channel.is_uniform:
            self._publish_selected(channel, publication, reply)
            return
        for group in channel.groups.values():
            self._add(group, group.encoding.codec.encode(reply))

    def _publish_selected(self, channel: Subscribers, publication: m.Publication, reply: m.Reply) -> None:
        """The same where some have a filter, or take deltas."""
        passed: dict[Filter, bool] = {}
        encoded: dict[Codec, bytes] = {}
        for group in channel.groups.values():
            if wanted := group.filter:
                if wanted not in passed:
                    passed[wanted] = wanted.passes(publication)
                if not passed[wanted]:
                    continue
            codec = group.encoding.codec
            if group.chain:
                data = _encode(group, self._continue(group, group.chain, publication))
            elif codec in encoded:
                data = encoded[codec]
            else:
                data = encoded[codec] = codec.encode(reply)
            self._add(group, data)

    def _continue(
        self, group: Group[Connection], chain: Chain[Connection], publication: m.Publication
    ) -> m.Publication:
        """Add a publication to a chain. Returns it as those get it who have the one before."""
        if not chain.pending and len(chain.lacking) == len(group.members):
            chain.base = None  # nobody has it
        sent = self._deltas.after(chain.base, publication)
        chain.base = publication
        chain.pending.append(publication)
        return sent

    def _add(self, group: Group[Connection], encoded: bytes) -> None:
        if not group.pending:
            if not self._dirty:
                self._began = time.monotonic()
                self._loop.call_soon(self._look_again)
            self._dirty.append(group)
            group.pending_since = self._loop.time()
        group.pending.append(encoded)

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
        encoded, group.pending = group.pending, []
        metrics = self._metrics
        if group.chain:
            metrics.bytes_out += _write_chain(group, group.chain, encoded)
        else:
            batch = Batch(group.channel, group.encoding, encoded)
            data = batch.data
            for member in group.members:
                write = member.ready
                if write is not None:
                    write(data)
                else:
                    member.deliver(batch)
            metrics.bytes_out += len(data) * len(group.members)
        metrics.sent["publication"] += len(encoded) * len(group.members)
        metrics.publish_to_send_seconds.observe(self._loop.time() - group.pending_since)

    def caught_up(self) -> None:
        """Nothing comes at once any more: write what waits, unless so many get it that waiting is worth it.

        Where it is not called, what waits is written in the next turn of the event loop.
        """
        if not self._has_large():
            self._flush_all()

    def _look_again(self) -> None:
        # At the sockets, for a few microseconds, before there is a write to each member: of publications that
        # were sent at once only the first may have been read so far. A turn that was long has seen them.
        if self._has_large() and time.monotonic() - self._began < _LOOK_S:
            self._loop.call_soon(self._flush_all)
        else:
            self._flush_all()

    def _has_large(self) -> bool:
        return any(len(group.members) >= _LOOK_MEMBERS for group in self._dirty)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for group in dirty:
            self.flush(group)


def _write_chain(group: Group[Connection], chain: Chain[Connection], encoded: list[bytes]) -> int:
    """Write what waits for a group that takes deltas. Returns how many bytes that was."""
    batch = ChainBatch(group, encoded, chain.pending)
    chain.pending = []
    lacking = chain.lacking
    size = 0
    for member in group.members:
        own = batch.whole if member in lacking else batch
        size += len(own.data)
        write = member.ready
        if write is not None:
            write(own.data)
        else:
            member.deliver(own)
    chain.lacking = set()
    if group.channel.slow_reader != "disconnect":
        # What waits for these may be given up, so that they have to begin anew.
        chain.lacking.update(member for member in group.members if member.is_backlogged)
    return size


def _encode(group: Group[Connection], publication: m.Publication) -> bytes:
    push = m.Push(channel=group.channel.name, pub=publication)
    return group.encoding.codec.encode(m.Reply(push=push))
