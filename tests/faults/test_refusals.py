"""Peers that are refused over and over: each is counted by its reason, and few lines are logged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected, unconnected
from support.rawws import HandshakeError, RawWebSocket
from support.server import Running

from hub import ConnectReply, Errors, Hub

TIMES = 30


async def wrong_key(server: Running) -> None:
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        for number in range(TIMES):
            headers = {"X-API-Key": f"wrong {number}"}
            answer = await client.post(f"{server.url}/api/publish", headers=headers, json={})
            assert answer.status_code == 401


async def wrong_origin(server: Running) -> None:
    for number in range(TIMES):
        with pytest.raises(HandshakeError):
            await RawWebSocket.connect(server.port, headers={"Origin": f"https://{number}.example"})


async def wrong_origin_of_a_post(server: Running) -> None:
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
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


async def test_in_development_each_refusal_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    configured = sdk.settings({"insecure": True}, channels={"orders": {}})
    handlers = {
        "connect": lambda event: ConnectReply(user="ann"),
        "subscribe": lambda event: Errors.PERMISSION_DENIED if event.channel == "orders:2" else None,
    }
    async with sdk.live(configured, **handlers) as (hub, server), connected(server.port) as peer:
        asked: dict[int, tuple[str, dict[str, Any], int, str]] = {
            2: (
                "subscribe",
                {"channel": "orders:2"},
                103,
                "ann may not subscribe to orders:2: on_subscribe said 103",
            ),
            3: ("subscribe", {"channel": "oders:2"}, 102, "no [channels.oders] is configured"),
            4: (
                "subscribe",
                {"channel": "oders:3"},
                102,
                "no [channels.oders] is configured for the channel oders:3",
            ),
            5: ("history", {"channel": "orders:1"}, 108, "the history of orders:1 is switched off"),
            6: ("rpc", {"method": "pay", "data": 1}, 108, "the app has no on_rpc handler"),
            7: ("subscribe", {"channel": 5}, 107, "`$.subscribe.channel`"),
        }
        for number, (method, fields, code, text) in asked.items():
            [reply] = await peer.ask(command(number, method, **fields))
            error = reply["error"]
            assert error["code"] == code
            assert text in caplog.text, f"the log says why {method} is refused"
            assert text in error["message"] or code == 103, "the app's words stay as they are"
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    [refused] = [line for line in lines if line.get("channel") == "orders:2"]
    assert (refused["event"], refused["user"], refused["code"]) == ("client.refused", "ann", 103)
    assert refusals(hub, "unknown_channel") == 2


async def test_in_production_a_client_learns_no_setting(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with sdk.live() as (hub, server), connected(server.port, sdk.token("ann")) as peer:
        for number in range(2, 2 + TIMES):
            [reply] = await peer.ask(command(number, "subscribe", channel="oders:2"))
            assert reply["error"] == {"code": 102, "message": "unknown channel"}
        for number in range(100, 100 + TIMES):
            [reply] = await peer.ask(command(number, "subscribe", channel="private:2"))
            assert reply["error"] == {"code": 103, "message": "permission denied"}
        assert refusals(hub, "unknown_channel") == TIMES
        assert refusals(hub, "not_allowed") == TIMES
    assert 1 <= caplog.text.count("no [channels.oders] is configured") <= 2
    assert 1 <= caplog.text.count("ann may not subscribe to private:2: [channels.private] does not set") <= 2


async def test_a_refused_call_of_the_api_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async with sdk.live() as (hub, server), httpx.AsyncClient(timeout=WAIT_S) as client:
        headers = {"X-API-Key": sdk.API_KEY}
        body = {"channel": "oders:2", "data": 1}
        for _ in range(TIMES):
            answer = await client.post(f"{server.url}/api/publish", headers=headers, json=body)
            assert answer.json()["error"]["code"] == 102
        assert refusals(hub, "unknown_channel") == TIMES
    assert 1 <= caplog.text.count("no [channels.oders] is configured") <= 2


async def test_a_refused_origin_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async with sdk.live() as (_, server):
        with pytest.raises(HandshakeError):
            await RawWebSocket.connect(server.port, headers={"Origin": "https://shop.example"})
    assert "https://shop.example" in caplog.text
    assert "client.allowed_origins" in caplog.text
