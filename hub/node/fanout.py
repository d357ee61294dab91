"""The way out: one publication to everybody who is in its channel. Nothing here waits for a subscriber."""

from __future__ import annotations

import asyncio
import time
from typing import Final, TypeAlias

from hub.core.channel.deltas import Deltas
from hub.core.channel.filter import Filter
from hub.core.channel.registry import Channel, DeltaChain, Group
from hub.node.batch import Batch, ChainBatch, encode_publication
from hub.node.boundary import Boundary
from hub.node.connection import Connection
from hub.protocol import messages as m
from hub.protocol.encoding import Codec
from hub.telemetry import Metrics

Subscribers: TypeAlias = Channel[Connection]

_LOOK_S: Final = 0.001
"""While a turn of the event loop is shorter than this, there is one more before publications leave."""

_LOOK_MEMBERS: Final = 64
"""In a smaller group, joining publications saves less than waiting for them costs."""


class Fanout:
    """Encodes a publication once for each encoding in use, joins what comes together, and writes it to all.

    A subscriber whose socket raises is ended; the others get what they should. A publication that cannot be
    written in one encoding reaches the subscribers of the other encodings.

    Args:
        metrics: counts what goes out.
        deltas: made for subscribers that take them.
        boundary: records what a subscriber's socket raises.
    """

    def __init__(self, metrics: Metrics, deltas: Deltas, boundary: Boundary) -> None:
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._deltas = deltas
        self._boundary = boundary
        self._dirty: list[Group[Connection]] = []
        self._began = 0.0

    def publish(self, channel: Subscribers, publication: m.Publication) -> None:
        """Send a publication to the channel, after one more look at what else has come."""
        reply = m.Reply(push=m.Push(channel=channel.name, pub=publication))
        for pending in channel.opening.values():
            pending.append(publication)
        if channel.behind and not publication.offset:
            # It is in no history, so it is not among what backlogged subscribers will be sent.
            for member, subscription in list(channel.behind.items()):
                try:
                    if single := subscription.single(publication):
                        member.send(m.Reply(push=m.Push(channel=channel.name, pub=single)))
                except Exception as error:
                    member.fail("fanout", error)
        if not channel.is_uniform:
            self._publish_selected(channel, publication, reply)
            return
        for group in channel.groups.values():
            try:
                encoded = group.encoding.codec.encode(reply)
            except Exception as error:
                self._boundary.failed("fanout", error, channel=channel.name)
            else:
                self._add(group, encoded)

    def _publish_selected(self, channel: Subscribers, publication: m.Publication, reply: m.Reply) -> None:
        """The same where some subscribers have a filter, or take deltas."""
        passed: dict[Filter, bool] = {}
        encoded: dict[Codec, bytes] = {}
        for group in channel.groups.values():
            if wanted := group.filter:
                if wanted not in passed:
                    passed[wanted] = wanted.passes(publication)
                if not passed[wanted]:
                    continue
            codec = group.encoding.codec
            try:
                if group.chain:
                    data = encode_publication(group, self._continue(group, group.chain, publication))
                elif codec in encoded:
                    data = encoded[codec]
                else:
                    data = encoded[codec] = codec.encode(reply)
            except Exception as error:
                self._boundary.failed("fanout", error, channel=channel.name)
            else:
                self._add(group, data)

    def _continue(
        self, group: Group[Connection], chain: DeltaChain[Connection], publication: m.Publication
    ) -> m.Publication:
        """Add a publication to a chain. Returns it as a subscriber gets it that has the one before."""
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
                self._loop.call_soon(self._look_once_more)
            self._dirty.append(group)
            group.pending_since = self._loop.time()
        group.pending.append(encoded)

    def announce(self, channel: Subscribers, push: m.Push) -> None:
        """Send a join or a leave to the subscribers of the channel that hear them."""
        sent = 0
        reply = m.Reply(push=push)
        for group in list(channel.groups.values()):
            listeners = [member for member, subscription in group.members.items() if subscription.hears_joins]
            if listeners:
                self.flush(group)
                data = group.encoding.pack([group.encoding.codec.encode(reply)])
                for member in listeners:
                    try:
                        member.write(data)
                    except Exception as error:
                        member.fail("fanout", error)
                sent += len(listeners)
        for member, subscription in list(channel.behind.items()):
            if subscription.hears_joins:
                try:
                    member.send(reply)
                except Exception as error:
                    member.fail("fanout", error)
                sent += 1
        self._metrics.sent["join" if push.join else "leave"] += sent

    def flush(self, group: Group[Connection]) -> None:
        """Write what waits for a group, before its members or what they hear changes."""
        if not group.pending:
            return
        encoded, group.pending = group.pending, []
        metrics = self._metrics
        failed: list[tuple[Connection, Exception]] = []
        if group.chain:
            metrics.bytes_out += _write_chain(group, group.chain, encoded, failed)
        else:
            batch = Batch(group.channel, group.encoding, encoded)
            data = batch.data
            for member in group.members:
                try:
                    write = member.ready
                    if write is not None:
                        write(data)
                    else:
                        member.deliver(batch)
                except Exception as error:
                    failed.append((member, error))
            metrics.bytes_out += len(data) * len(group.members)
        metrics.sent["publication"] += len(encoded) * len(group.members)
        metrics.publish_to_send_seconds.observe(self._loop.time() - group.pending_since)
        for member, failure in failed:
            member.fail("fanout", failure)

    def caught_up(self) -> None:
        """Nothing more comes together: write what waits, unless so many get it that waiting is worth it.

        Where this is not called, what waits is written in the next turn of the event loop.
        """
        if self._dirty and not self._has_large():
            self._flush_all()

    def _look_once_more(self) -> None:
        if not self._dirty:
            return  # everything was written when what came together had come
        # At the sockets, for a few microseconds, before there is a write to each member: of publications that
        # were sent at once only the first may have been read so far. A turn that was long has seen them.
        if self._has_large() and time.monotonic() - self._began < _LOOK_S:
            self._loop.call_soon(self._flush_all)
        else:
            self._flush_all()

    def _has_large(self) -> bool:
        for group in self._dirty:  # noqa: SIM110 - a generator costs two calls more
            if len(group.members) >= _LOOK_MEMBERS:
                return True
        return False

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for group in dirty:
            try:
                self.flush(group)
            except Exception as error:
                self._boundary.failed("fanout", error, channel=group.channel.name)


def _write_chain(
    group: Group[Connection],
    chain: DeltaChain[Connection],
    encoded: list[bytes],
    failed: list[tuple[Connection, Exception]],
) -> int:
    """Write what waits for a group that takes deltas. Returns how many bytes that was."""
    batch = ChainBatch(group, encoded, chain.pending)
    chain.pending = []
    lacking = chain.lacking
    size = 0
    for member in group.members:
        own = batch.whole if member in lacking else batch
        size += len(own.data)
        try:
            write = member.ready
            if write is not None:
                write(own.data)
            else:
                member.deliver(own)
        except Exception as error:
            failed.append((member, error))
    chain.lacking = set()
    if group.channel.slow_reader != "disconnect":
        # These may miss some of what waits for them, and then begin with a whole publication.
        chain.lacking.update(member for member in group.members if member.is_backlogged)
    return size
