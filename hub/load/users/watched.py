"""A codec that keeps the books: what the hub really sent, before a client drops what it has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from hub.client.codec import ClientCodec
from hub.load.users.ledger import Ledgers
from hub.protocol import messages as m


class WatchedCodec:
    """Any codec of the client, with a ledger for each channel that goes through it.

    Args:
        codec: the one that does the work.
        ledgers: those of its user.
        fault: is told what is wrong.
    """

    def __init__(self, codec: ClientCodec, ledgers: Ledgers, fault: Callable[[str], None]) -> None:
        self._codec = codec
        self._ledgers = ledgers
        self._fault = fault
        self._asked: dict[int, str] = {}
        self.subprotocol = codec.subprotocol
        self.binary = codec.binary
        self.join: Callable[[Sequence[bytes]], bytes] = codec.join
        self.payload: Callable[[Any], Raw] = codec.payload
        self.value: Callable[[m.Payload], Any] = codec.value

    def encode(self, command: m.Command) -> bytes:
        if command.connect is not None:
            self._asked.clear()
        elif command.subscribe is not None:
            self._asked[command.id] = command.subscribe.channel
        return self._codec.encode(command)

    def decode(self, message: bytes) -> list[m.Reply]:
        replies = self._codec.decode(message)
        for reply in replies:
            if (push := reply.push) is not None:
                if push.pub is not None:
                    self._take(push.channel, push.pub)
            elif reply.id in self._asked:
                channel = self._asked.pop(reply.id)
                if reply.subscribe is not None:
                    self._begin(channel, reply.subscribe)
        return replies

    def _begin(self, channel: str, result: m.SubscribeResult) -> None:
        if not (result.recoverable or result.positioned):
            return
        ledger = self._ledgers.of(channel)
        self._report(
            ledger.begin(
                result.epoch,
                result.offset,
                was_recovering=result.was_recovering,
                recovered=result.recovered,
            )
        )
        for pub in result.publications:
            self._take(channel, pub)

    def _take(self, channel: str, pub: m.Publication) -> None:
        self._report(self._ledgers.of(channel).take(pub.offset))

    def _report(self, fault: str) -> None:
        if fault:
            self._fault(fault)
