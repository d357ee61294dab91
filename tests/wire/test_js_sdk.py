"""The SDK from npm in Node: the scenarios of `tests/js/sdk`, over each transport and what it carries.

Over a WebSocket and JSON it is one hub; else two nodes, behind a balancer that deals requests by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support import sdk
from support.balancer import Balancer
from support.limits import WAIT_S
from support.redis import RedisServer

from hub import Errors, Hub, MessageEvent, RPCEvent, RPCReply

SCRIPT_S = 4 * WAIT_S
"""The limit of all scenarios of a script."""


@contextlib.asynccontextmanager
async def _one_hub(handlers: dict[str, Callable[[Any], Any]]) -> AsyncIterator[tuple[list[Hub], int]]:
    async with sdk.live(_settings(), **handlers) as (hub, server):
        yield [hub], server.port


@contextlib.asynccontextmanager
async def _two_nodes(handlers: dict[str, Callable[[Any], Any]]) -> AsyncIterator[tuple[list[Hub], int]]:
    with RedisServer() as redis:
        configured = _settings(redis={"url": redis.url})
        async with (
            sdk.live(configured, **handlers) as (one, at),
            sdk.live(configured, **handlers) as (two, of),
            Balancer([at.port, of.port]) as balancer,
        ):
            yield [one, two], balancer.port
            assert min(balancer.requests.values()) > 0


def _settings(**sections: Any) -> Any:
    client = {"channels_max": 1000, "message_bytes_max": 512 * 1000, "reconnect": {"keys": [sdk.SECRET]}}
    return sdk.settings(client, **sections)


@pytest.mark.parametrize(
    ("transport", "encoding", "hubs"),
    [
        ("websocket", "json", _one_hub),
        ("websocket", "protobuf", _two_nodes),
        ("http_stream", "json", _two_nodes),
        ("http_stream", "protobuf", _two_nodes),
        ("sse", "json", _two_nodes),
    ],
)
@pytest.mark.parametrize("name", ["commands", "deltas", "recovery", "tokens"])
async def test_scenarios(js_clients: Path, name: str, transport: str, encoding: str, hubs: Any) -> None:
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

    async with hubs({"rpc": rpc, "message": message}) as (nodes, port):
        told = {"port": port, "encoding": encoding, "transport": transport}
        outcomes = await _run(js_clients / "sdk" / f"{name}.mjs", told)
        failed = [f"{outcome['name']}: {outcome['error']}" for outcome in outcomes if "error" in outcome]
        assert not failed, "\n".join(failed)
        async with asyncio.timeout(WAIT_S):
            while any(hub.node.connections for hub in nodes):  # noqa: ASYNC110 - the sockets are gone soon
                await asyncio.sleep(0.01)
        assert not any(hub.node.registry.channels for hub in nodes)


async def _run(script: Path, told: dict[str, Any]) -> list[dict[str, str]]:
    secrets = {"secret": sdk.SECRET, "subscriptionSecret": sdk.SUBSCRIPTION_SECRET, "apiKey": sdk.API_KEY}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(script),
        env={**os.environ, "HUB_TEST": json.dumps({**told, **secrets})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SCRIPT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
        raise AssertionError(f"{script.name} did not end; so far:\n{output.decode()}") from None
    assert process.returncode == 0, errors.decode()
    outcomes: list[dict[str, str]] = [json.loads(line) for line in output.splitlines()]
    assert outcomes, "no scenario ran"
    return outcomes
