"""Clients beside the fuzzer: one must notice nothing, and some read what foreign writers publish."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import websockets
from support.dialects import DIALECTS, Dialect, speaking

from loadtests.fuzz.corpus import POISONED
from loadtests.fuzz.stage import HONEST, PING_INTERVAL_S, Stage

PUBLISH_PERIOD_S = 0.05
PING_LATE_S = 10.0
"""How late a ping may be: an SDK waits so long, and then takes the connection for dead."""

SETTLE_S = 30.0


@dataclass
class Honest:
    """A client that publishes numbers, and gets them back.

    Args:
        stage: the hub's.
    """

    stage: Stage
    published: int = 0
    acknowledged: int = 0
    received: list[int] = field(default_factory=list)
    pinged_at: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    async def run(self, until: asyncio.Event) -> None:
        """Publish until the event, then wait for what is under way."""
        channel = f"{HONEST}:1"
        async with websockets.connect(self.stage.hub.websocket_url, ping_interval=None) as websocket:
            token = self.stage.token("honest")
            await websocket.send(json.dumps({"id": 1, "connect": {"token": token}}))
            await websocket.send(
                json.dumps({"id": 2, "subscribe": {"channel": channel, "recoverable": True}})
            )
            self.pinged_at.append(time.monotonic())
            reader = asyncio.create_task(self._read(websocket))
            try:
                while not until.is_set() and not reader.done():
                    self.published += 1
                    data = {"n": self.published, "at": time.monotonic()}
                    publish = {"channel": channel, "data": data}
                    await websocket.send(json.dumps({"id": self.published + 2, "publish": publish}))
                    await asyncio.sleep(PUBLISH_PERIOD_S)
                async with asyncio.timeout(SETTLE_S):
                    while len(self.received) < self.published and not reader.done():  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            except websockets.ConnectionClosed:
                pass  # the reader says why
            except TimeoutError:
                self.wrong.append("publications of the honest client did not come back")
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        self.pinged_at.append(time.monotonic())

    async def _read(self, websocket: websockets.ClientConnection) -> None:
        try:
            async for message in websocket:
                assert isinstance(message, str)
                for line in message.split("\n"):
                    await self._take(websocket, json.loads(line))
        except websockets.ConnectionClosed as exc:
            self.wrong.append(f"the honest client was cut off: {exc}")

    async def _take(self, websocket: websockets.ClientConnection, reply: Any) -> None:
        if not reply:
            self.pinged_at.append(time.monotonic())
            await websocket.send("{}")
        elif "pub" in reply.get("push", {}):
            data = reply["push"]["pub"]["data"]
            self.received.append(data["n"])
            self.slowest_s = max(self.slowest_s, time.monotonic() - data["at"])
        elif "error" in reply:
            self.wrong.append(f"an error for the honest client: {reply['error']}")
        elif "publish" in reply:
            self.acknowledged += 1

    def faults(self) -> list[str]:
        """What the client noticed of the fuzzer."""
        found = list(self.wrong)
        if self.received != list(range(1, self.published + 1)):
            found.append(
                f"{self.published} published by the honest client, {len(self.received)} received in order"
            )
        gaps = [after - before for before, after in zip(self.pinged_at, self.pinged_at[1:], strict=False)]
        if max(gaps, default=0.0) > PING_INTERVAL_S + PING_LATE_S:
            found.append(f"the honest client got no ping for {max(gaps):.1f} s")
        return found


class Bystander:
    """A subscriber of the channel that is fuzzed, in one encoding. It comes back when it is cut off.

    Args:
        stage: the hub's.
        dialect: how it reads.
    """

    def __init__(self, stage: Stage, dialect: Dialect) -> None:
        self._stage = stage
        self._dialect = dialect
        self.unreadable: dict[str, str] = {}
        self.received = 0

    async def run(self) -> None:
        """Read for ever. What it cannot read is in `unreadable`, by the kind of exception."""
        while True:
            with contextlib.suppress(websockets.WebSocketException, OSError, EOFError, TimeoutError):
                token = self._stage.token(f"bystander-{self._dialect.subprotocol}")
                url = self._stage.hub.websocket_url
                async with speaking(self._dialect, url, token=token, ping_interval=None) as speaker:
                    await speaker.ask("subscribe", channel=POISONED, join_leave=True)
                    while True:
                        try:
                            await speaker.push()
                            self.received += 1
                        except (ValueError, KeyError, AssertionError) as exc:
                            self.unreadable[type(exc).__name__] = str(exc)[:200]
            await asyncio.sleep(0.1)


def bystanders(stage: Stage) -> list[Bystander]:
    """Return one for each encoding."""
    return [Bystander(stage, dialect) for dialect in DIALECTS.values()]
