"""What passes through the proxies of docs/proxies: addresses, streams, commands, refusals, an app's pages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import posixpath
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support import sdk
from support.certificate import Certificate
from support.limits import WAIT_S
from support.proxied import PAGE, served
from support.recorder import MARK, Recorder
from support.reverse_proxy import APPS, HUBS, ReverseProxy
from websockets.exceptions import InvalidStatus

MESSAGES = 20

every = pytest.mark.parametrize("name", [*HUBS, *APPS])


# Addresses


@every
async def test_a_node_is_told_the_address_of_the_client_and_nothing_that_the_client_claims(
    name: str, certificate: Certificate
) -> None:
    async with Recorder() as node, ReverseProxy(name, certificate, [node.port, node.port]) as proxy:
        paths = ["/connection/http_stream", "/emulation", "/readyz"]
        for path in [proxy.prefix + path for path in paths] + ["/page"] * (name in APPS):
            forged = [
                (MARK, "1"),
                ("X-Forwarded-For", "10.1.1.1"),
                ("x-forwarded-for", "10.2.2.2, 10.3.3.3"),
                ("X-Forwarded-Proto", "http"),
            ]
            assert (await proxy.ask(path, forged, source="127.0.0.2"))[0] == 200
            request = node.requests.pop()
            assert request.values("x-forwarded-for") == ["127.0.0.2"]
            assert request.values("x-forwarded-proto") == ["https"]
            assert request.values("host") == [f"127.0.0.1:{proxy.port}"]


@every
async def test_a_forged_address_does_not_raise_the_limit_of_an_address(
    name: str, certificate: Certificate
) -> None:
    async with (
        served(name, certificate, connections_per_address_max=1) as behind,
        await behind.websocket("127.0.0.2"),
    ):
        with pytest.raises(InvalidStatus, match="503") as refused:
            await behind.websocket("127.0.0.2", **{"X-Forwarded-For": "10.1.1.1"})
        assert refused.value.response.headers["Retry-After"]
        async with await behind.websocket("127.0.0.3", **{"X-Forwarded-For": "127.0.0.2"}):
            pass


@every
async def test_refusals_of_one_client_close_the_way_of_no_other(name: str, certificate: Certificate) -> None:
    async with (
        served(name, certificate, connections_per_address_max=1) as behind,
        await behind.websocket("127.0.0.2"),
    ):
        for _ in range(10):
            with pytest.raises(InvalidStatus, match="503"):
                await behind.websocket("127.0.0.2")
        async with await behind.websocket("127.0.0.3"), behind.http() as http:
            assert (await http.get("/readyz")).status_code == 200


# Streams and commands


def stream_of(
    http: httpx.AsyncClient, kind: str, command: Any
) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
    """A stream of a kind, as in its path, that a connect command opens."""
    if kind.endswith("sse"):
        return http.stream("GET", f"/connection/{kind}", params={"cf_connect": json.dumps(command)})
    return http.stream("POST", f"/connection/{kind}", content=json.dumps(command))


async def messages(response: httpx.Response) -> AsyncIterator[str]:
    """The messages of a stream."""
    assert response.status_code == 200
    async for line in response.aiter_lines():
        if line:
            yield line.removeprefix("data: ")


@every
@pytest.mark.parametrize("kind", ["http_stream", "sse", "uni_http_stream", "uni_sse"])
async def test_each_message_of_a_stream_arrives_before_the_next_is_sent(
    name: str, kind: str, certificate: Certificate
) -> None:
    request: Any = {"token": sdk.token("ann", channels=["own:news"])}
    command = request if kind.startswith("uni_") else {"id": 1, "connect": request}
    async with (
        served(name, certificate) as behind,
        behind.http() as http,
        stream_of(http, kind, command) as response,
        asyncio.timeout(WAIT_S),
    ):
        lines = messages(response)
        assert "connect" in await anext(lines)
        for number in range(MESSAGES):
            await behind.hub.publish("own:news", {"number": number})
            while f'{{"number":{number}}}' not in await anext(lines):
                pass


@every
@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_a_client_that_leaves_a_stream_leaves_the_hub(
    name: str, kind: str, certificate: Certificate
) -> None:
    async with served(name, certificate) as behind:
        async with behind.http() as http, stream_of(http, kind, {"id": 1, "connect": {}}) as response:
            assert "connect" in await anext(messages(response))
            assert len(behind.hub.node.connections) == 1
        async with asyncio.timeout(WAIT_S):
            while len(behind.hub.node.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the hub tells nobody


@every
async def test_a_command_of_64_kib_reaches_the_client_of_a_stream(
    name: str, certificate: Certificate
) -> None:
    received: list[Any] = []
    data = "x" * 64_000
    async with (
        served(name, certificate, rpc=lambda event: received.append(event.data)) as behind,
        behind.http() as http,
        stream_of(http, "http_stream", {"id": 1, "connect": {}}) as response,
        asyncio.timeout(WAIT_S),
    ):
        lines = messages(response)
        connect = json.loads(await anext(lines))["connect"]
        command = json.dumps({"id": 2, "rpc": {"method": "m", "data": data}})
        body = {"session": connect["session"], "node": connect["node"], "data": command}
        assert (await http.post("/emulation", json=body)).status_code == 204
        while '"id":2' not in await anext(lines):
            pass
    assert received == [data]


@every
@pytest.mark.parametrize("status", [503, 0], ids=["refused", "broken"])
async def test_a_command_is_not_sent_twice(name: str, status: int, certificate: Certificate) -> None:
    async with (
        Recorder(status) as one,
        Recorder(status) as two,
        ReverseProxy(name, certificate, [one.port, two.port]) as proxy,
    ):
        path = f"{proxy.prefix}/emulation"
        answered, _ = await proxy.ask(path, [(MARK, "1")], method="POST", body=b"{}")
        assert answered in (502, 503)
        assert len(one.requests + two.requests) == 1


@pytest.mark.parametrize("name", [name for name in (*HUBS, *APPS) if "Caddy" not in name])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_one_node_refuses_goes_to_the_other(
    name: str, method: str, certificate: Certificate
) -> None:
    async with (
        Recorder(503) as one,
        Recorder(200) as two,
        ReverseProxy(name, certificate, [one.port, two.port]) as proxy,
    ):
        path = f"{proxy.prefix}/connection/http_stream"
        for _ in range(10):
            assert (await proxy.ask(path, [(MARK, "1")], method=method, body=b"{}"))[0] == 200
        assert one.requests
        assert len(two.requests) == 10


# What docs/browser.md promises


@every
async def test_hub_js_and_all_that_it_imports_are_served(name: str, certificate: Certificate) -> None:
    async with served(name, certificate) as behind, behind.http() as http:
        to_load, loaded = ["/static/hub.js"], set()
        while to_load:
            path = to_load.pop()
            loaded.add(path)
            response = await http.get(path)
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/javascript")
            assert response.headers["access-control-allow-origin"] == "*"
            imported = re.findall(r'from "(\./[^"]+)"', response.text)
            paths = {posixpath.normpath(posixpath.join("/static", each)) for each in imported}
            to_load += paths - loaded
        assert len(loaded) > 1


@every
async def test_readyz_says_when_to_come_back_while_no_node_takes_clients(
    name: str, certificate: Certificate
) -> None:
    async with served(name, certificate) as behind, behind.http() as http:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "healthy"})
        await behind.hub.drain(0.0)
        async with asyncio.timeout(WAIT_S):
            for has_noticed in (False, True):
                if has_noticed:
                    await behind.noticed()
                away = await http.get("/readyz")
                assert away.status_code == 503
                assert 1 <= int(away.headers["retry-after"]) <= 5
                assert away.headers["access-control-allow-origin"] == "*"
                assert "Retry-After" in away.headers["access-control-expose-headers"]
        with pytest.raises(InvalidStatus, match="503") as refused:
            await behind.websocket()
        assert refused.value.response.headers["Retry-After"]


# The app around a hub


@pytest.mark.parametrize("name", APPS)
async def test_an_app_serves_its_pages_while_its_hub_drains(name: str, certificate: Certificate) -> None:
    async with served(name, certificate) as behind, behind.http() as http:
        await behind.hub.drain(0.0)
        await behind.noticed()
        page = await http.get(f"{behind.proxy.url}/page")
        assert (page.status_code, page.text) == (200, PAGE)
