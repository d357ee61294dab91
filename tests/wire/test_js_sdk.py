"""The SDK from npm in Node, over WebSocket: the scenarios of `tests/js/sdk` against one hub."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import sdk

from hub import Errors, MessageEvent, RPCEvent, RPCReply

TIMEOUT_S = 60.0


@pytest.mark.parametrize("name", ["commands", "deltas", "recovery", "tokens"])
async def test_scenarios(js_clients: Path, name: str, encoding: str) -> None:
    messages: list[Any] = []

    def message(event: MessageEvent) -> None:
        messages.append(event.data)

    def rpc(event: RPCEvent) -> Any:
        match event.method:
            case "add":
                return RPCReply(data=sum(event.data))
            case "heard":
                return RPCReply(data=messages)
        return Errors.METHOD_NOT_FOUND

    configured = sdk.settings({"channels_max": 1000, "message_bytes_max": 512 * 1000})
    async with sdk.live(configured, rpc=rpc, message=message) as (hub, server):
        outcomes = await _run(js_clients / "sdk" / f"{name}.mjs", server.port, encoding)
        failed = [f"{outcome['name']}: {outcome['error']}" for outcome in outcomes if "error" in outcome]
        assert not failed, "\n".join(failed)
        async with asyncio.timeout(5):
            while hub.node.connections:  # noqa: ASYNC110 - the clients are gone, and their sockets soon are
                await asyncio.sleep(0.01)
        assert not hub.node.registry.channels


async def _run(script: Path, port: int, encoding: str) -> list[dict[str, str]]:
    told = {
        "port": port,
        "encoding": encoding,
        "secret": sdk.SECRET,
        "subscriptionSecret": sdk.SUBSCRIPTION_SECRET,
        "apiKey": sdk.API_KEY,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(script),
        env={**os.environ, "HUB_TEST": json.dumps(told)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        raise AssertionError(f"{script.name} did not end; so far:\n{output.decode()}") from None
    assert process.returncode == 0, errors.decode()
    outcomes: list[dict[str, str]] = [json.loads(line) for line in output.splitlines()]
    assert outcomes, "no scenario ran"
    return outcomes
