"""Commands whose handlers fail: each gets an answer, and the client can go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from support.rawws import HandshakeError, RawWebSocket

from loadtests.chaos.app import MOODS
from loadtests.chaos.clients import Asking, login
from loadtests.chaos.stage import Stage

ANSWER_S = 20.0
"""How long a command may take: longer than any outage beside it."""


async def failing_handlers(stage: Stage) -> str:
    """Subscribe, publish, call and unsubscribe, with a handler that fails at each."""
    client = stage.chance.choice(list(stage.asking))
    mood = stage.chance.choice(MOODS)
    odd, even = f"odd:{mood}.{next(stage.numbers)}", f"odd:calm.{next(stage.numbers)}"
    commands: list[tuple[str, dict[str, Any]]] = [
        ("rpc", {"method": mood, "data": {}}),
        ("subscribe", {"channel": odd}),
        ("publish", {"channel": odd, "data": 1}),
        ("subscribe", {"channel": even}),
        ("publish", {"channel": odd, "data": 2}),
        ("publish", {"channel": even, "data": 3}),
        ("unsubscribe", {"channel": odd}),
        ("unsubscribe", {"channel": even}),
    ]
    for name, request in commands:
        reply = await _ask(stage, client, name, request, mood)
        if not reply:
            break
    client.command("send", {"data": {"mood": mood}})
    return f"handlers in the mood {mood!r}"


async def _ask(stage: Stage, client: Asking, name: str, request: dict[str, Any], mood: str) -> object:
    try:
        reply = await client.ask(name, request, ANSWER_S)
    except TimeoutError:
        stage.fail(f"a client of failing handlers could not come back within {ANSWER_S:g} s")
        return None
    if reply is None:
        stage.fail(f"no answer to {name} {request} in the mood {mood!r} within {ANSWER_S:g} s")
        client.drop_link()
    return reply


async def failing_connects(stage: Stage) -> str:
    """Connect with a handler that fails: an answer comes, or the connection is closed."""
    mood = stage.chance.choice(MOODS)
    port = stage.chance.choice(stage.cluster.ports)
    # Without the mood the client comes in, and the handler of its disconnect fails.
    data = stage.chance.choice([{"mood": mood}, {}])
    command = {"token": login(f"odd:{mood}.{next(stage.numbers)}"), "data": data}

    async def connect() -> None:
        with contextlib.suppress(ConnectionError, HandshakeError, asyncio.IncompleteReadError):
            async with await RawWebSocket.connect(port) as socket:
                socket.send_text(json.dumps({"id": 1, "connect": command}))
                await asyncio.wait_for(socket.read_text(), ANSWER_S)

    try:
        await asyncio.gather(*(connect() for _ in range(3)))
    except TimeoutError:
        stage.fail(f"no answer to connect in the mood {mood!r}")
    return f"connects whose handler is in the mood {mood!r}, and disconnects"
