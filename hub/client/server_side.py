"""The subscriptions that the server made for a client: their positions, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hub.client import values
from hub.client.codec import ClientCodec
from hub.client.subscription import recovered_from
from hub.protocol import messages as m


class ServerSide:
    """The server-side subscriptions of a client. They outlast its links, and their events are its own.

    Args:
        codec: of the client's encoding.
        emit: tells the app of an event.
    """

    def __init__(self, codec: ClientCodec, emit: Callable[[values.Event], None]) -> None:
        self._codec = codec
        self._emit = emit
        self._positions: dict[str, m.StreamPosition | None] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._positions

    def requests(self) -> dict[str, m.SubscribeRequest]:
        """What the connect says of them: where to recover each from."""
        return {
            channel: m.SubscribeRequest(recover=True, epoch=position.epoch, offset=position.offset)
            for channel, position in self._positions.items()
            if position is not None
        }

    def connected(self, results: Mapping[str, m.SubscribeResult]) -> None:
        """The connect was answered: these are those that there are now."""
        for channel in [channel for channel in self._positions if channel not in results]:
            self._left(channel, 0, "")
        for channel, result in results.items():
            self.joined(channel, result)

    def joined(self, channel: str, result: m.SubscribeResult | m.SubscribePush) -> None:
        """The server subscribed the client."""
        self._positions[channel] = recovered_from(self._positions.get(channel), result)
        self._emit(values.subscribed(self._codec, channel, result))
        if isinstance(result, m.SubscribeResult):
            for pub in result.publications:
                self._publication(channel, pub)

    def push(self, push: m.Push) -> None:
        """The server pushed something of one of these channels."""
        channel, codec = push.channel, self._codec
        if push.pub is not None:
            self._publication(channel, push.pub)
        elif push.join is not None:
            self._emit(values.Joined(channel, values.client_info(codec, push.join.info)))
        elif push.leave is not None:
            self._emit(values.Left(channel, values.client_info(codec, push.leave.info)))
        elif push.unsubscribe is not None:
            self._left(channel, push.unsubscribe.code, push.unsubscribe.reason)

    def suspend(self, code: int, reason: str) -> None:
        """The connection that they were on is gone."""
        for channel in self._positions:
            self._emit(values.Subscribing(channel, code, reason))

    def invalidate(self) -> None:
        """The hub no longer holds to what it said: forget the positions."""
        self._positions = dict.fromkeys(self._positions)

    def _publication(self, channel: str, pub: m.Publication) -> None:
        position = self._positions[channel]
        if position is not None and pub.offset:
            if pub.offset <= position.offset:
                return
            self._positions[channel] = m.StreamPosition(pub.offset, position.epoch)
        self._emit(values.Published(channel, values.publication(self._codec, pub)))

    def _left(self, channel: str, code: int, reason: str) -> None:
        del self._positions[channel]
        self._emit(values.Unsubscribed(channel, code, reason))
