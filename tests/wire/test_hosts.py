"""The hosts that an insecure hub serves, so that no other site can reach it under a name of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import sdk
from support.rawstream import RawStream
from support.rawws import HandshakeError, RawWebSocket
from support.server import Running, running

from hub.app import create_app
from hub.config import load
from hub.endpoints.handshake import is_served

CONNECT = json.dumps({"id": 1, "connect": {}}).encode()
REQUESTS = [
    ("POST", "/connection/http_stream", CONNECT),
    ("POST", "/connection/uni_http_stream", b"{}"),
    ("GET", "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D", b""),
    ("GET", "/connection/uni_sse", b""),
    ("POST", "/emulation", b"{}"),
    ("POST", "/api/info", b"{}"),
]
KEY = {"X-API-Key": "dev"}
EVERY = "0.0.0.0"  # noqa: S104 - nothing is bound


def settings(**client: Any) -> Any:
    return load(env={}, overrides={"dev": True, "server": {"lag_max_s": 0}, "client": client})


async def status(server: Running, request: tuple[str, str, bytes], headers: dict[str, str]) -> int:
    method, path, body = request
    async with await RawStream.send(server.port, method, path, {**KEY, **headers}, body) as answer:
        return answer.status


async def websocket_status(server: Running, path: str, headers: dict[str, str]) -> int:
    try:
        async with await RawWebSocket.connect(server.port, path, headers=headers):
            return 101
    except HandshakeError as error:
        return error.status


async def test_a_page_that_gives_its_own_name_the_hubs_address_is_refused() -> None:
    async with running(settings()) as server:
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}
        for headers in (evil, {"Host": "evil.example"}, {"Host": f"evil.example:{server.port}"}):
            for path in ("/connection/websocket", "/connection/uni_websocket"):
                assert await websocket_status(server, path, headers) == 403
            for request in REQUESTS:
                assert await status(server, request, headers) == 403, request
        text = server.app.state.hub.metrics.render()[0].decode()
        assert 'hub_refusals_total{reason="host"} 24.0' in text


async def test_local_hosts_are_served() -> None:
    async with running(settings()) as server:
        for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", f"[::1]:{server.port}"):
            assert await websocket_status(server, "/connection/websocket", {"Host": host}) == 101
            assert await status(server, REQUESTS[0], {"Host": host}) == 200
            assert await status(server, REQUESTS[-1], {"Host": host}) == 200


async def test_hosts_of_allowed_origins_are_served() -> None:
    async with running(settings(allowed_origins=["http://hub.test:8000", "*"])) as server:
        for host, answer in (("hub.test", 101), ("evil.example", 403)):
            assert await websocket_status(server, "/connection/websocket", {"Host": host}) == answer


async def test_a_hub_that_asks_for_tokens_serves_any_host() -> None:
    async with sdk.live(sdk.settings()) as (_, server):
        headers = {"Host": "hub.example", "Origin": "http://hub.example"}
        assert await websocket_status(server, "/connection/websocket", headers) == 101
        assert await status(server, REQUESTS[-1], {**headers, "X-API-Key": sdk.API_KEY}) == 200


async def test_a_hub_that_is_insecure_without_development_mode_serves_only_local_hosts() -> None:
    app = create_app(load(env={}, overrides={"client": {"insecure": True}, "server": {"lag_max_s": 0}}))
    async with running(app) as server:
        for host, answer in (("localhost", 101), ("evil.example", 403)):
            headers = {"Host": host, "Origin": f"http://{host}"}
            assert await websocket_status(server, "/connection/websocket", headers) == answer


@pytest.mark.parametrize(
    ("host", "bound", "is_good"),
    [
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:8000", "127.0.0.1", True),
        ("app.localhost:8000", "127.0.0.1", True),
        ("localhost.", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9:80", "127.0.0.1", True),
        ("[::1]:8000", "127.0.0.1", True),
        ("192.168.1.5:8000", "127.0.0.1", False),
        ("192.168.1.5:8000", "192.168.1.5", True),
        ("192.168.1.5:8000", EVERY, True),
        ("[2001:db8::1]:8000", "::", True),
        ("hub.test:8000", "hub.test", True),
        ("hub.test:8000", EVERY, False),
        ("evil.example", EVERY, False),
        ("localhost.evil.example", EVERY, False),
        ("127.0.0.1.evil.example", EVERY, False),
        ("evillocalhost", EVERY, False),
        ("localhost@evil.example", EVERY, False),
        ("evil.example@localhost", EVERY, False),
        ("localhost/", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("[", "127.0.0.1", False),
    ],
)
def test_hosts(host: str, bound: str, is_good: bool) -> None:
    assert is_served(host, (bound, "172.17.0.2"), ()) == is_good


def test_the_address_that_a_request_came_to_is_served() -> None:
    assert is_served("172.17.0.2:8000", ("127.0.0.1", "172.17.0.2"), ())
    assert is_served("testserver", ("127.0.0.1", "testserver"), ())
