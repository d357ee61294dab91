"""Sends the publications of a recovery that did not fit its reply, as fast as each client reads them."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from hub.core.channel.deltas import Deltas
from hub.core.channel.stream import Opened
from hub.core.channel.subscription import Subscription
from hub.node.connection import Connection
from hub.node.followers import Followers
from hub.protocol import messages as m
from hub.telemetry import Metrics

PAGES_PER_TURN: Final = 8
"""Pages sent in one turn of the event loop to all clients together, which takes a millisecond or two."""


class Backfill:
    """Sends pages of history to clients, one at a time to each, while their sockets accept data.

    Only positions are kept here, so that a slow client costs no memory. If the history no longer reaches back
    to a client's position, or cannot be read, the client is told and subscribes again.

    Args:
        followers: find the pages.
        deltas: computes deltas for the clients that asked for them.
        metrics: counts what is sent.
        caught_up: called with a client and its subscription when the channel can be delivered live.
        lost: called with a client and a channel whose history does not reach back to the client's position.
    """

    def __init__(
        self,
        followers: Followers,
        deltas: Deltas,
        metrics: Metrics,
        caught_up: Callable[[Connection, Subscription], None],
        lost: Callable[[Connection, str], None],
    ) -> None:
        self._followers = followers
        self._deltas = deltas
        self._metrics = metrics
        self._caught_up = caught_up
        self._lost = lost
        self._behind: dict[Connection, OrderedDict[str, Subscription]] = {}
        self._due: OrderedDict[Connection, None] = OrderedDict()
        self._reading: set[Connection] = set()
        self._is_turning = False

    def begin(self, connection: Connection, subscription: Subscription) -> None:
        """Send the publications after the subscription's offset."""
        self._behind.setdefault(connection, OrderedDict())[subscription.channel] = subscription
        self.resume(connection)

    def end(self, connection: Connection, channel: str) -> None:
        """Send nothing more of a channel. It is no error if nothing was being sent."""
        channels = self._behind.get(connection)
        if channels is None or channel not in channels:
            return
        del channels[channel]
        if not channels:
            del self._behind[connection]
            self._due.pop(connection, None)

    def resume(self, connection: Connection) -> None:
        """Continue with a client whose socket may accept data again."""
        if connection in self._behind and connection not in self._reading and not connection.is_backlogged:
            self._due[connection] = None
            if not self._is_turning:
                self._is_turning = True
                asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        for _ in range(min(PAGES_PER_TURN, len(self._due))):
            connection, _ = self._due.popitem(last=False)
            try:
                self._go_on(connection)
            except Exception as error:
                connection.fail("backfill", error)
        self._is_turning = bool(self._due)
        if self._due:
            asyncio.get_running_loop().call_soon(self._turn)

    def _go_on(self, connection: Connection) -> None:
        channels = self._behind[connection]
        name, subscription = next(iter(channels.items()))
        channels.move_to_end(name)
        opened = self._followers.open(name, _position(subscription))
        if opened.done():
            self._send(connection, subscription, opened)
        else:
            self._reading.add(connection)
            opened.add_done_callback(lambda done: self._read(connection, subscription, done))

    def _read(self, connection: Connection, subscription: Subscription, opened: Future[Opened]) -> None:
        self._reading.discard(connection)
        channels = self._behind.get(connection)
        try:
            if channels and channels.get(subscription.channel) is subscription:
                self._send(connection, subscription, opened)
            else:
                self.resume(connection)  # the client left this channel; others may remain
        except Exception as error:
            connection.fail("backfill", error)

    def _send(self, connection: Connection, subscription: Subscription, opened: Future[Opened]) -> None:
        failed = opened.cancelled() or opened.exception()
        recovery = None if failed else opened.result().recovery
        if recovery is not None and recovery.recovered:
            self._send_page(connection, subscription, recovery.publications)
        else:
            self._lost(connection, subscription.channel)
        self.resume(connection)

    def _send_page(self, connection: Connection, subscription: Subscription, missed: m.Publications) -> None:
        name = subscription.channel
        subscription.offset += len(missed)
        if page := subscription.page(missed, self._deltas):
            connection.write(self._encoded(connection, name, page))
            self._metrics.sent["publication"] += len(page)
        if self._followers.is_current(name, _position(subscription)):
            self.end(connection, name)
            self._caught_up(connection, subscription)

    def _encoded(self, connection: Connection, name: str, page: m.Publications) -> bytes:
        """A page as ordinary publications. Clients with the same encoding share the bytes."""
        encoding = connection.encoding
        data = page.encoded.get(encoding)
        if data is None:
            pushes = (m.Reply(push=m.Push(channel=name, pub=publication)) for publication in page)
            data = page.encoded[encoding] = encoding.pack([encoding.codec.encode(push) for push in pushes])
        return data


def _position(subscription: Subscription) -> m.StreamPosition:
    return m.StreamPosition(subscription.offset, subscription.epoch)
