"""The two processes of clients: those that follow very many channels, and one that only measures answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from loadtests.faults.clients import Client
from loadtests.probes import Asker
from loadtests.remote import next_question

NAMESPACE = "wide"
CONNECT_STEP = 20
"""Clients that connect at once: together they subscribe to thousands of channels."""
PUBLICATION = re.compile(rb'\{"push":\{"channel":"wide:(\d+)","pub":\{"data":\d+,"offset":(\d+)')


@dataclass
class Book:
    """What the clients have, by the number of the channel.

    Args:
        offsets: of the last publication; -1 for a channel that is not subscribed to.
        lost: publications that never came, by the jumps of the offsets.
        repeated: publications that came again.
        told: subscriptions that the hub ended with 2500, or did not recover.
        refused: subscribe commands that were answered with an error.
    """

    offsets: array[int]
    lost: int = 0
    repeated: int = 0
    told: int = 0
    refused: int = 0

    def take(self, channel: int, offset: int) -> None:
        """Note a publication."""
        last = self.offsets[channel]
        if offset <= last:
            self.repeated += 1
            return
        self.lost += offset - last - 1
        self.offsets[channel] = offset


class Member(Client):
    """Follows a range of channels.

    Args:
        port: of the node.
        channels: numbers of its channels.
        book: notes what comes.
    """

    keeps_token = False

    def __init__(self, port: int, channels: range, book: Book) -> None:
        self._channels = channels
        self._book = book
        self._ended_subscriptions: list[int] = []
        super().__init__([port])

    def on_connected(self) -> None:
        self._subscribe(self._channels)

    def on_lost(self) -> None:
        for channel in self._channels:
            self._book.offsets[channel] = min(self._book.offsets[channel], -1)

    def _subscribe(self, channels: Sequence[int]) -> None:
        # The id of a command tells its channel.
        first, lines = self._channels[0] - 2, []
        for channel in channels:
            request = {"channel": f"{NAMESPACE}:{channel}", "recoverable": True}
            lines.append(json.dumps({"id": channel - first, "subscribe": request}))
        self._send("\n".join(lines).encode())

    def _on_message(self, message: bytes) -> None:
        for line in message.split(b"\n"):
            if publication := PUBLICATION.match(line):
                self._book.take(int(publication[1]), int(publication[2]))
            elif line:
                super()._on_message(line)
        if self._ended_subscriptions:
            ended, self._ended_subscriptions = self._ended_subscriptions, []
            self._subscribe(ended)

    def on_reply(self, reply: dict[str, Any]) -> None:
        book, channel = self._book, self._channels[0] + reply.get("id", 0) - 2
        push = reply.get("push", {})
        if "subscribe" in reply:
            book.offsets[channel] = reply["subscribe"].get("offset", 0)
        elif "error" in reply:
            book.refused += 1
            self._loop.call_later(0.5, self._subscribe, [channel])
        elif "unsubscribe" in push:
            number = int(push["channel"].partition(":")[2])
            book.told += 1
            book.offsets[number] = -1
            self._ended_subscriptions.append(number)


def follow(pipe: Connection, port: int, channels: int, clients: int) -> None:
    """Run the clients, and answer what they have."""
    uvloop.run(_follow(pipe, port, channels, clients))


async def _follow(pipe: Connection, port: int, channels: int, clients: int) -> None:
    book = Book(array("q", [-1]) * channels)
    members: list[Member] = []
    for number in range(clients):
        part = range(channels * number // clients, channels * (number + 1) // clients)
        members.append(Member(port, part, book))
        if number % CONNECT_STEP == CONNECT_STEP - 1 or number == clients - 1:
            while book.offsets[part[-1]] < 0:  # noqa: ASYNC110 - the book tells nobody
                await asyncio.sleep(0.005)
    while min(book.offsets) < 0:  # noqa: ASYNC110 - the book tells nobody
        await asyncio.sleep(0.05)
    pipe.send("ready")
    while (question := await next_question(pipe)) is not None:
        if question[0] == "lacking":
            targets = array("q", question[1])
            pipe.send(sum(map(int.__lt__, book.offsets, targets)))
        else:
            counts = {name: getattr(book, name) for name in ("lost", "repeated", "told", "refused")}
            pipe.send({**counts, "dropped": sum(member.dropped for member in members)})
    for member in members:
        member.end()


class Prober(Asker):
    """Asks for an answer all the time, and notes the answers that never came."""

    @property
    def waiting_s(self) -> float:
        """How long the oldest question has waited."""
        return time.monotonic() - min(self._asked.values(), default=time.monotonic())


def probe(pipe: Connection, port: int) -> None:
    """Run one client that only asks, and answer how long its answers took."""
    uvloop.run(_probe(pipe, port))


async def _probe(pipe: Connection, port: int) -> None:
    prober = Prober([port])
    while not prober.times_s:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.05)
    pipe.send("ready")
    while (await next_question(pipe)) is not None:
        times, prober.times_s = prober.times_s, []
        pipe.send([*times, prober.waiting_s])
    prober.end()
