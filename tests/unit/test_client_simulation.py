"""The client's machine against the hub's session, over links that break: seeded worlds in their own time.

Whatever happens, the app sees each publication of a channel once and in order, on both kinds of subscription.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.pilot import Pilot
from support.sessions import Peer, options

from hub.broker.base import Stream
from hub.client import values
from hub.core import effects as e
from hub.core.hooks import ConnectReply, SubscribeReply
from hub.protocol import messages as m

CHANNELS = ("mine", "given")
STEPS = 300


class Node(Peer):
    """A node's side of one connection, with the histories of the world."""

    def __init__(self, histories: dict[str, list[m.Publication]]) -> None:
        self.histories = histories
        history = options(history=True, force_recovery=True)
        super().__init__(
            {"default": history},
            hooks={
                "connect": ConnectReply(user="ann", channels={"given": SubscribeReply()}),
                "subscribe": SubscribeReply(),
            },
        )

    def _outcome(self, operation: e.Operation) -> Any:
        match operation:
            case e.OpenChannel(channel, _, since):
                return self._stream(channel, since)
            case e.OpenChannels(opens):
                return [self._stream(each.channel, each.since) for each in opens]
        return super()._outcome(operation)

    def _stream(self, channel: str, since: m.StreamPosition | None) -> Stream:
        history = self.histories[channel]
        return Stream(history[since.offset :] if since else [], m.StreamPosition(len(history), "epoch"))


@pytest.mark.parametrize("seed", range(60))
def test_each_publication_is_seen_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    histories: dict[str, list[m.Publication]] = {channel: [] for channel in CHANNELS}
    pilot = Pilot(timeout_s=5.0)
    pilot.machine.chance = chance.random
    pilot.register("mine", recoverable=True, since=m.StreamPosition(0, "epoch"))
    pilot.do(pilot.machine.connect(pilot.now))
    node, link, heard = Node(histories), 0, 0

    def meet() -> None:
        """Give a socket that is being opened a node behind it."""
        nonlocal node, link, heard
        if pilot.link and pilot.link != link:
            pilot.commands.clear()  # which went into a socket that is gone
            node, link, heard = Node(histories), pilot.link, 0
            pilot.open()

    def carry() -> None:
        """Take what each has sent to the other."""
        nonlocal heard
        while pilot.link == link and (pilot.commands or heard < len(node.sent)):
            while pilot.commands:
                node.receive(pilot.commands.popleft())
            replies, heard = node.sent[heard:], len(node.sent)
            if replies:
                pilot.hear(*replies)

    # What was published before the server first subscribed the client would be nobody's loss.
    meet()
    carry()
    for _ in range(STEPS):
        match chance.choices(["publish", "carry", "cut", "sleep"], [6, 6, 2, 3])[0]:
            case "publish":
                channel = chance.choice(CHANNELS)
                history = histories[channel]
                pub = m.Publication(m.payload(f"{channel} {len(history) + 1}"), offset=len(history) + 1)
                history.append(pub)
                if channel in node.joined:
                    node.sent.append(m.Reply(push=m.Push(channel=channel, pub=pub)))
            case "cut" if pilot.link:
                pilot.lose(chance.choice([1006, 3001, 3008]))
            case "carry" if pilot.link:
                carry()
            case _:
                pilot.pass_time(chance.uniform(0, 2))
        meet()
    if not pilot.link:
        pilot.wait()
        meet()
    carry()

    for channel in CHANNELS:
        seen = [event.pub.data for event in pilot.of(values.Published) if event.channel == channel]
        everything = [m.value(pub.data) for pub in histories[channel]]
        assert seen == everything
