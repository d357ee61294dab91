"""Sending a node's clients to other nodes, spread over a window, so that they do not arrive as a herd."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from hub.node.node import Node
from hub.protocol.codes import Disconnects
from hub.telemetry import get_logger

BATCH_PERIOD_S: Final = 0.1
"""How often a batch of clients is asked to leave."""

_log = get_logger("hub.drain")


async def drain(node: Node, window_s: float) -> None:
    """End every connection with 3001, in batches of equal size in an order of chance.

    Args:
        node: whose connections end.
        window_s: seconds until the last one; 0 for all at once.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    connections = list(node.connections)
    random.shuffle(connections)
    total = len(connections)
    _log.info("drain.started", clients=total, window_s=window_s)
    while connections:
        elapsed_s = loop.time() - began
        due = total if elapsed_s >= window_s else 1 + int((total - 1) * elapsed_s / window_s)
        while connections and total - len(connections) < due:
            connections.pop().close(Disconnects.SHUTDOWN)
        if connections:
            await asyncio.sleep(BATCH_PERIOD_S)
    _log.info("drain.finished", clients=total, duration_s=round(loop.time() - began, 1))
