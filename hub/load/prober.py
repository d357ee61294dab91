"""The latency probe itself: a process with a light client on each node, and nothing else to do.

Its clients publish to a channel of their own, in turn, and all measure how long that takes to each of them.
What they see is the hub under its load; what a user of the load sees has in it the time for which its own
process was busy with others. Publisher and reader have the same clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any, Final

import jwt

from hub.client import Client, ClientState, Disconnected, Published, RequestError, Unsubscribed
from hub.load.histogram import bucket

CHANNEL: Final = "load:probe"
PERIOD_S: Final = 0.05
"""Between two publications."""

REPORT_S: Final = 0.5


class Prober:
    """The clients, and what they measured since they last told.

    Args:
        urls: of the nodes.
        token_key: HMAC secret of a hub that asks for tokens, empty for none.
    """

    def __init__(self, urls: list[str], token_key: str) -> None:
        async def token() -> str:
            return jwt.encode({"sub": "probe"}, token_key, "HS256")

        self._clients = [Client(url, name="probe", get_token=token if token_key else None) for url in urls]
        self._times: Counter[float] = Counter()
        self._failed: Counter[str] = Counter()
        self._mark = f"{os.getpid()}-{time.time_ns()}"
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Measure, and write a line each half second, for ever."""
        for client in self._clients:
            # Without recovery: what is missed while it is away does not count as slow.
            subscription = client.new_subscription(CHANNEL)
            subscription.on_publication(self._received)
            subscription.on_unsubscribed(self._ended)
            client.on_disconnected(self._ended)
            await client.connect()
            await subscription.subscribe()
        told_at = time.monotonic()
        turn = 0
        while True:
            await asyncio.sleep(PERIOD_S)
            turn += 1
            client = self._clients[turn % len(self._clients)]
            if client.state is ClientState.CONNECTED:
                call = asyncio.create_task(self._publish(client))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            if time.monotonic() - told_at >= REPORT_S:
                told_at = time.monotonic()
                self._tell()

    async def _publish(self, client: Client) -> None:
        try:
            await client.publish(CHANNEL, {"by": self._mark, "at": time.monotonic()})
        except RequestError as error:
            self._failed[str(error)] += 1

    def _ended(self, event: Disconnected | Unsubscribed) -> None:
        if event.code:
            self._failed[str(RequestError(event.code, event.reason))] += 1

    def _received(self, event: Published) -> None:
        data: Any = event.pub.data
        if isinstance(data, dict) and data.get("by") == self._mark:
            self._times[bucket((time.monotonic() - data["at"]) * 1000)] += 1

    def _tell(self) -> None:
        line = {"at": time.time(), "times": list(self._times.items()), "failed": self._failed}
        print(json.dumps(line), flush=True)
        self._times.clear()
        self._failed.clear()


if __name__ == "__main__":
    asyncio.run(Prober(sys.argv[1].split(","), os.environ.get("PROBE_TOKEN_KEY", "")).run())
