"""hub/node/key_set.py against a small HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.issuer import Issuer, jwks, token

from hub.core.tokens import ConnectionClaims, UnknownKey, Verifier
from hub.node import key_set as keys
from hub.node.key_set import FETCH_INTERVAL_S, KeySet


def logged(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """The lines of the key set's log."""
    return [record.msg for record in caplog.records if record.name == "hub.keys"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def key_set(issuer: Issuer, clock: Clock) -> AsyncIterator[KeySet]:
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key_set = KeySet(f"http://127.0.0.1:{port}/jwks.json", clock=clock)
    await key_set.start()
    yield key_set
    issuer.ready.set()
    await key_set.stop()
    server.close()
    await server.wait_closed()


async def test_a_key_is_fetched_for_the_token_that_names_it(key_set: KeySet) -> None:
    verifier = Verifier(jwks=key_set.keys)
    assert verifier.connection(token("one"), 0) == UnknownKey("one")
    await key_set.refresh()
    assert verifier.connection(token("one"), 0) == ConnectionClaims(user="ann")
    assert list(key_set.keys) == ["one"]


async def test_concurrent_callers_share_a_request(key_set: KeySet, issuer: Issuer) -> None:
    issuer.ready.clear()
    callers = [asyncio.create_task(key_set.refresh()) for _ in range(50)]
    await issuer.asked.wait()
    callers[0].cancel()
    issuer.ready.set()
    await asyncio.gather(*callers, return_exceptions=True)
    assert issuer.requests == 1
    assert "one" in key_set.keys


async def test_unknown_keys_cost_few_requests(key_set: KeySet, issuer: Issuer, clock: Clock) -> None:
    await key_set.refresh()
    issuer.body = jwks("two")
    clock.now += FETCH_INTERVAL_S - 1
    await key_set.refresh()
    assert issuer.requests == 1
    clock.now += 1
    await key_set.refresh()
    await key_set.refresh()
    assert issuer.requests == 2
    assert list(key_set.keys) == ["two"]


async def test_a_key_is_known_to_be_absent_after_a_fetch_that_began_later(
    key_set: KeySet, issuer: Issuer, clock: Clock
) -> None:
    await key_set.refresh()
    assert not await key_set.lacks("two"), "it may be newer than the fetch"
    issuer.body = jwks("one", "two")
    assert not await key_set.lacks("two"), "the issuer is not asked so soon"
    assert "two" not in key_set.keys
    clock.now += FETCH_INTERVAL_S
    assert not await key_set.lacks("two")
    assert "two" in key_set.keys
    clock.now += FETCH_INTERVAL_S
    assert await key_set.lacks("three")
    assert await key_set.lacks("three"), "this fetch was for this key"
    assert issuer.requests == 3


async def test_ids_that_nobody_knows_start_no_storm_and_hide_no_new_key(
    key_set: KeySet, issuer: Issuer, clock: Clock
) -> None:
    await key_set.refresh()
    for second in range(2 * FETCH_INTERVAL_S):
        clock.now += 1
        if second == FETCH_INTERVAL_S:
            issuer.body = jwks("one", "two")
        for number in range(keys.ASKED_MAX):
            await key_set.lacks(f"made-up-{second}-{number}")
        assert not await key_set.lacks("two"), "nobody is turned away for a new key"
    assert "two" in key_set.keys
    assert issuer.requests == 3
    assert len(key_set._asked) <= keys.ASKED_MAX
    assert len(key_set._absent) <= keys.ASKED_MAX


async def test_many_tokens_of_a_withdrawn_key_are_all_refused(
    key_set: KeySet, issuer: Issuer, clock: Clock
) -> None:
    await key_set.refresh()
    issuer.ready.clear()
    issuer.asked.clear()
    clock.now += FETCH_INTERVAL_S
    callers = [asyncio.create_task(key_set.lacks("withdrawn")) for _ in range(50)]
    await issuer.asked.wait()
    late = asyncio.create_task(key_set.lacks("another"))
    await asyncio.sleep(0)
    issuer.ready.set()
    assert await asyncio.gather(*callers) == [True] * 50
    assert await late is False, "the request was sent before anybody asked for this key"
    assert issuer.requests == 2


async def test_an_issuer_that_does_not_answer_keeps_nobody_waiting(
    key_set: KeySet, issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await key_set.refresh()
    monkeypatch.setattr(keys, "LOOK_UP_S", 0.05)
    issuer.ready.clear()
    issuer.body = jwks("one", "two")
    clock.now += FETCH_INTERVAL_S
    async with asyncio.timeout(keys.FETCH_TIMEOUT_S / 2):
        assert not await key_set.lacks("two")
    issuer.ready.set()
    await key_set.refresh()
    assert "two" in key_set.keys, "the request went on"


async def test_no_key_is_known_to_be_absent_while_the_issuer_is_down(
    key_set: KeySet, issuer: Issuer, clock: Clock
) -> None:
    await key_set.refresh()
    clock.now += FETCH_INTERVAL_S
    assert await key_set.lacks("two")
    issuer.status = "503 Service Unavailable"
    clock.now += FETCH_INTERVAL_S
    assert not await key_set.lacks("two")
    assert not await key_set.lacks("two")
    assert "one" in key_set.keys, "the keys that are known stay"
    issuer.status, issuer.body = "200 OK", jwks("two")
    clock.now += FETCH_INTERVAL_S
    assert not await key_set.lacks("two")
    assert "two" in key_set.keys


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("500 Internal Server Error", jwks("two")),
        ("302 Found", b""),
        ("200 OK", b"no JSON"),
        ("200 OK", b"\xff"),
        ("200 OK", b"[]"),
        ("200 OK", b'{"keys": 1}'),
        ("200 OK", b"[" * 100_000),
        ("200 OK", b"{" + b" " * keys.KEY_SET_BYTES_MAX + b"}"),
    ],
)
async def test_a_failure_keeps_the_keys(
    key_set: KeySet,
    issuer: Issuer,
    clock: Clock,
    status: str,
    body: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await key_set.refresh()
    issuer.status, issuer.body = status, body
    clock.now += FETCH_INTERVAL_S
    await key_set.refresh()
    assert [line["event"] for line in logged(caplog)] == ["keys.fetch_failed"]
    assert issuer.requests == 2
    assert list(key_set.keys) == ["one"]


DEEP = b"[" * 5_000 + b"]" * 5_000
ODD_MEMBERS = {
    "an algorithm that PyJWT lacks": b'{"kty":"RSA","alg":"none","kid":"odd"}',
    "a string": b'"text"',
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "deep": DEEP,
    "deep inside": b'{"kty":"RSA","kid":"odd","n":%b,"e":{"a":"]}[{"}}' % DEEP,
    "numbers for texts": b'{"kty":1,"kid":2,"use":3,"alg":4}',
    "a huge number": b'{"kty":"RSA","kid":"odd","n":1e999,"e":"AQAB"}',
}


@pytest.mark.parametrize("member", ODD_MEMBERS.values(), ids=ODD_MEMBERS.keys())
async def test_an_odd_member_is_ignored(key_set: KeySet, issuer: Issuer, member: bytes) -> None:
    for body in (
        jwks("one").replace(b'"keys": [', b'"more": %b, "keys": [' % member),
        jwks("one").replace(b'"keys": [', b'"keys": [%b,' % member),
    ):
        assert member in body
        assert list(keys._keys_in(body)) == ["one"]
    issuer.body = body
    await key_set.refresh()
    assert list(key_set.keys) == ["one"]
    assert not key_set._refresher.done()


async def test_a_fetch_that_raises_anything_keeps_the_keys(
    key_set: KeySet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await key_set.refresh()

    async def body() -> bytes:
        raise RuntimeError("anything")

    monkeypatch.setattr(key_set, "_body", body)
    clock.now += FETCH_INTERVAL_S
    await key_set.refresh()
    assert list(key_set.keys) == ["one"]
    assert not key_set._refresher.done()


async def test_the_query_of_the_url_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    key_set = KeySet("http://127.0.0.1:1/jwks.json?key=secret")
    await key_set.start()
    await key_set.refresh()
    await key_set.stop()
    assert "keys.fetch_failed" in caplog.text
    assert "secret" not in caplog.text


async def test_a_server_that_does_not_answer(
    key_set: KeySet,
    issuer: Issuer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await key_set.refresh()
    monkeypatch.setattr(keys, "FETCH_TIMEOUT_S", 0.05)
    issuer.ready.clear()
    clock.now += FETCH_INTERVAL_S
    await key_set.refresh()
    assert [line["reason"] for line in logged(caplog)] == ["TimeoutError"]
    assert list(key_set.keys) == ["one"]


async def test_a_url_without_a_server(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    key_set = KeySet("http://127.0.0.1:1/jwks.json", clock=clock)
    await key_set.start()
    await key_set.refresh()
    await key_set.stop()
    assert [line["event"] for line in logged(caplog)] == ["keys.fetch_failed"]
    assert not key_set.keys


async def test_the_set_is_fetched_again_by_itself(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REFRESH_INTERVAL_S", 0)
    monkeypatch.setattr(keys, "FETCH_INTERVAL_S", 0)
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    key_set = KeySet(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    await key_set.start()
    await key_set.refresh()
    issuer.asked.clear()
    await issuer.asked.wait()
    await key_set.stop()
    server.close()
    await server.wait_closed()
    assert issuer.requests >= 2


async def test_stopping_cancels_the_request_in_progress(key_set: KeySet, issuer: Issuer) -> None:
    issuer.ready.clear()
    await issuer.asked.wait()
    await key_set.stop()
    assert not key_set.keys
