"""What others write to the hub's Redis: messages between nodes, publications, entries of logs and streams."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

from loadtests.fuzz.corpus import POISONED
from loadtests.fuzz.mutate import mutate
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import LiveTarget
from loadtests.fuzz.targets.bus_messages import draw_message
from loadtests.fuzz.targets.envelopes import Envelopes, draw_body, pack

BUS, LOG, PUBLICATION, STREAM = range(4)
STREAMS = 8


class RedisTraffic(LiveTarget):
    name = "redis"
    lanes = 2

    def __init__(self) -> None:
        self._envelopes = Envelopes()

    def draw(self, chance: random.Random) -> bytes:
        """Return a byte that tells the place, one that tells which of them, and a message."""
        place = chance.choice((BUS, LOG, PUBLICATION, PUBLICATION, STREAM))
        if place in (BUS, LOG):
            data = draw_message(chance)
        elif place == PUBLICATION:
            data = self._envelopes.draw(chance)
        else:
            data = pack(draw_body(chance)) or b""
            data = mutate(data, chance) if chance.random() < 0.3 else data
        return bytes((place, chance.randrange(256))) + data

    async def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        place, which, message = data[0], data[1], data[2:]
        if place == BUS:
            await stage.call("PUBLISH", "hub.control" if which % 2 else f"hub.control.{stage.node}", message)
        elif place == LOG:
            field = ("d", "m", "x")[which % 3]
            await stage.call(
                "XADD", "{hub.control}.log" if which % 2 else "hub{hub.control}.log", "*", field, message
            )
        elif place == PUBLICATION:
            await stage.call("PUBLISH", f"hub{{{POISONED}}}", message)
        else:
            async for kind in _stream(stage, f"fuzz:stream.{which % STREAMS}", message):
                yield kind


async def _stream(stage: Stage, channel: str, body: bytes) -> AsyncIterator[str]:
    """Put an entry behind one of the hub's, and read both."""
    await stage.call("DEL", f"hub{{{channel}}}.m", f"hub{{{channel}}}.s")
    await _ask(stage, "publish", {"channel": channel, "data": 1})
    await stage.call("XADD", f"hub{{{channel}}}.s", "*", "d", body)
    reply = await _ask(stage, "history", {"channel": channel, "limit": -1})
    if ("result" in reply) == ("error" in reply):
        yield "a history with a foreign entry is not answered"


async def _ask(stage: Stage, method: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = await stage.api(method, json.dumps(request).encode())
    reply: dict[str, Any] = json.loads(answer.body)
    return reply
