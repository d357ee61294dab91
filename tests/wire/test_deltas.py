"""Deltas through what SDKs make of them: their decoders on any texts, and the SDK from PyPI as a whole."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from centrifuge import Client, DeltaType, Filter  # type: ignore[import-untyped]
from support import sdk
from support.limits import WAIT_S

from hub.protocol import delta

PIECES = ('{"name": "Zoë", "score": 17}', "⚽️ goal ", "é" * 17, "0123456789abcdef", "x", '\n\\"', "ab" * 40)


def texts(chance: random.Random) -> tuple[str, str]:
    """A text, and another that has much of it."""
    pieces = chance.choices(PIECES, k=chance.randrange(12))
    before = "".join(pieces)
    for _ in range(chance.randrange(3)):
        pieces.insert(chance.randrange(len(pieces) + 1), chance.choice(["", "!", "€", str(chance.random())]))
    if chance.random() < 0.3:
        chance.shuffle(pieces)
    return before, "".join(pieces)


async def test_the_sdk_from_npm_reads_every_delta(js_clients: Path) -> None:
    chance = random.Random(seed := random.randrange(2**32))
    pairs = [texts(chance) for _ in range(2000)]
    told = [
        {"source": source, "delta": delta.create(source.encode(), target.encode()).decode(), "target": target}
        for source, target in pairs
    ]
    process = await asyncio.create_subprocess_exec(
        "node", str(js_clients / "decode.mjs"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WAIT_S):
        output, _ = await process.communicate(json.dumps(told).encode())
    assert (process.returncode, json.loads(output)) == (0, {"json": [], "protobuf": []}), f"seed {seed}"


def board(count: int) -> list[Any]:
    rows = [{"player": f"Spieler {number} ⚽", "score": number} for number in range(40)]
    sent = []
    for number in range(count):
        rows[number % len(rows)] = {"player": f"Nr. {number}", "score": -number}
        sent.append([*rows])
    return sent


@pytest.mark.parametrize("use_protobuf", [False, True], ids=["json", "protobuf"])
async def test_the_sdk_from_pypi_has_what_was_published(*, use_protobuf: bool) -> None:
    def values(events: sdk.Events) -> list[Any]:
        return [json.loads(data) if use_protobuf else data for data in events.data]

    async with sdk.live() as (hub, server):
        clients = [
            Client(
                server.websocket_url,
                token=sdk.token(user),
                use_protobuf=use_protobuf,
                proxy=None,
                timeout=WAIT_S,
            )
            for user in ("ann", "bob")
        ]
        for client in clients:
            await client.connect()
        _, changes = await sdk.subscribe(clients[0], "board:a", delta=DeltaType.FOSSIL)
        tags_filter = Filter.eq("kind", "goal")
        _, goals = await sdk.subscribe(clients[1], "board:a", tags_filter=tags_filter)
        sent = board(12)
        for number, data in enumerate(sent):
            await hub.publish("board:a", data, tags={"kind": "foul" if number % 3 else "goal"})
        await changes.count("publication", 12)
        await goals.count("publication", 4)
        assert values(changes) == sent
        assert values(goals) == sent[::3]
        assert hub.node.deltas.computed == 11
        for client in clients:
            await client.disconnect()
            await asyncio.gather(*client._background_tasks, return_exceptions=True)
