"""Clients whose tokens are signed with keys that a URL publishes, while the URL does not answer and later."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from support import sdk
from support.issuer import Issuer, jwks, publishing, token
from support.limits import WAIT_S
from support.peer import Peer, command, connected, unconnected

from hub.node import key_set as keys
from hub.protocol.codes import Errors
from hub.protocol.frames import Opcode

CHANNEL = "private:a"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FETCH_INTERVAL_S", 0.2)


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[tuple[Issuer, int]]:
    """An issuer that publishes the key `one`, and the port of a hub that knows the key."""
    async with publishing() as (issuer, url):
        configured = sdk.settings({"token": {"jwks_url": url}, "subscription_token": {"jwks_url": url}})
        async with sdk.live(configured) as (_, server):
            yield issuer, server.port


async def outcome(peer: Peer, line: str) -> tuple[int, bool]:
    """The code of an error, and whether it is temporary; 0 without an error."""
    number = json.loads(line)["id"]
    peer.send(line)
    while (reply := await peer.reply()).get("id") != number:
        assert "unsubscribe" not in reply.get("push", {}), reply
    error = reply.get("error", {})
    return error.get("code", 0), error.get("temporary", False)


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await done():  # noqa: ASYNC110 - the issuer is asked again after a while
            await asyncio.sleep(0.05)


async def _is(found: Awaitable[Any], expected: Any) -> bool:
    return bool(await found == expected)


async def connects(port: int, made: str) -> tuple[int, bool]:
    """The code of the error or close that a connect ends with, 0 without; and whether to try again."""
    async with unconnected(port) as peer:
        peer.send(json.dumps({"id": 1, "connect": {"token": made}}))
        received = await peer.socket.read_frame()
        assert received is not None
        opcode, payload = received
        if opcode == Opcode.CLOSE:
            return int.from_bytes(payload[:2]), False
        error = json.loads(payload.split(b"\n")[0]).get("error", {})
        return error.get("code", 0), error.get("temporary", False)


TEMPORARY = (Errors.INTERNAL.code, True)


async def test_while_keys_cannot_be_fetched_every_token_of_an_unknown_key_may_be_tried_again() -> None:
    async with served() as (issuer, port):
        await until(lambda: _is(connects(port, token("one")), (0, False)))
        issuer.status, issuer.body = "503 Service Unavailable", jwks("one", "two")
        fresh, of_channel = token("two"), token("two", channel=CHANNEL)
        async with connected(port, token("one")) as peer:
            subscribe = command(2, "subscribe", channel=CHANNEL, token=token("one", channel=CHANNEL))
            assert await outcome(peer, subscribe) == (0, False)
            calls = [
                command(3, "refresh", token=fresh),
                command(4, "sub_refresh", channel=CHANNEL, token=of_channel),
                command(5, "subscribe", channel="private:b", token=token("two", channel="private:b")),
            ]
            for _ in range(2):
                assert await connects(port, fresh) == TEMPORARY
                for call in calls:
                    assert await outcome(peer, call) == TEMPORARY
            assert await connects(port, token("one")) == (0, False), "a key that is known stays"
            issuer.status = "200 OK"
            await until(lambda: _is(connects(port, fresh), (0, False)))
            for call in calls:
                assert await outcome(peer, call) == (0, False)


async def test_keys_that_could_not_be_fetched_at_the_start() -> None:
    async with publishing() as (issuer, url):
        issuer.status = "503 Service Unavailable"
        configured = sdk.settings({"token": {"jwks_url": url}})
        async with sdk.live(configured) as (_, server):
            assert await connects(server.port, token("one")) == TEMPORARY
            issuer.status = "200 OK"
            await until(lambda: _is(connects(server.port, token("one")), (0, False)))


async def test_made_up_keys_do_not_keep_a_new_key_out() -> None:
    async with served() as (issuer, port):
        await until(lambda: _is(connects(port, token("one")), (0, False)))
        issuer.body = jwks("one", "two")
        begun, requests = asyncio.get_running_loop().time(), issuer.requests
        made_up = iter(range(1_000_000))

        async def new_key_is_let_in() -> bool:
            await connects(port, token(f"made-up-{next(made_up)}", "one"))
            found = await connects(port, token("two"))
            assert found in ((0, False), TEMPORARY)
            return found == (0, False)

        await until(new_key_is_let_in)
        passed_s = asyncio.get_running_loop().time() - begun
        assert issuer.requests - requests <= passed_s / keys.FETCH_INTERVAL_S + 2


async def test_a_key_that_the_issuer_does_not_publish_ends_in_3500() -> None:
    async with served() as (_, port):
        await until(lambda: _is(connects(port, token("made-up", "one")), (3500, False)))
        for bad in (token("one", "two"), token("one", nbf=4_000_000_000), "none"):
            assert await connects(port, bad) == (3500, False)
