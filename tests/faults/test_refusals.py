"""Peers that are refused over and over: each is counted by its reason, and few lines are logged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest
from support import sdk
from support.peer import command, unconnected
from support.rawws import HandshakeError, RawWebSocket
from support.server import Running

from hub import Hub

TIMES = 30


async def wrong_key(server: Running) -> None:
    async with httpx.AsyncClient() as client:
        for number in range(TIMES):
            headers = {"X-API-Key": f"wrong {number}"}
            answer = await client.post(f"{server.url}/api/publish", headers=headers, json={})
            assert answer.status_code == 401


async def wrong_origin(server: Running) -> None:
    for number in range(TIMES):
        with pytest.raises(HandshakeError):
            await RawWebSocket.connect(server.port, headers={"Origin": f"https://{number}.example"})


async def wrong_origin_of_a_post(server: Running) -> None:
    async with httpx.AsyncClient() as client:
        for number in range(TIMES):
            headers = {"Origin": f"https://{number}.example"}
            assert (await client.post(f"{server.url}/emulation", headers=headers)).status_code == 403


async def token_in_url(server: Running) -> None:
    for _ in range(TIMES):
        with pytest.raises(HandshakeError):
            await RawWebSocket.connect(server.port, "/connection/websocket?token=x")


async def wrong_token(server: Running) -> None:
    for number in range(TIMES):
        async with unconnected(server.port) as peer:
            peer.send(command(1, "connect", token=sdk.token(f"user {number}", secret="x" * 40)))
            assert (await peer.closed())[0] == 3500


@pytest.mark.parametrize(
    ("come", "reason", "event"),
    [
        (wrong_key, "api_key", "api.refused"),
        (wrong_origin, "origin", "origin.refused"),
        (wrong_origin_of_a_post, "origin", "origin.refused"),
        (token_in_url, "token_in_url", "client.token_in_url"),
        (wrong_token, "token", "client.token_refused"),
    ],
)
async def test_each_refusal_is_counted_and_few_are_logged(
    come: Callable[[Running], Awaitable[None]], reason: str, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with sdk.live() as (hub, server):
        await come(server)
        assert refusals(hub, reason) == TIMES
    assert 1 <= caplog.text.count(event) <= 2


async def test_broken_frames_are_logged_once_for_each_code(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with sdk.live() as (_, server):
        for _ in range(TIMES):
            async with await RawWebSocket.connect(server.port) as client:
                client.send(b"\x81\x01x")
                assert (await client.closed())[0] == 1002
    assert 1 <= caplog.text.count("client.fault") <= 2


def refusals(hub: Hub, reason: str) -> float:
    """How many peers were refused for a reason."""
    text = hub.metrics.render()[0].decode()
    name = f'hub_refusals_total{{reason="{reason}"}} '
    return next((float(line[len(name) :]) for line in text.splitlines() if line.startswith(name)), 0.0)
