"""Mistakes of backends that call the server API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from support import sdk
from support.limits import WAIT_S
from support.ports import free_port
from support.server import Running, running

from hub import Hub, Publisher, RequestError

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = {"X-API-Key": sdk.API_KEY}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Running]:
    """A hub for all tests of this file."""
    async with sdk.live() as (_, server):
        yield server


async def call(server: Running, path: str = "publish", *, method: str = "POST", **options: Any) -> Any:
    """Call the server API. Returns the message of its error."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        options = {"headers": KEY, **options}
        answer = await client.request(method, f"{server.url}/api/{path}", **options)
    return answer.json()["error"]["message"]


async def publish(publisher: Publisher) -> str:
    """Why a publisher's call fails."""
    with pytest.raises(RequestError) as raised, publisher:
        await asyncio.to_thread(publisher.publish, "plain:1", 1)
    return str(raised.value)


async def test_missing_key(server: Running, says: Any) -> None:
    says(await call(server, headers={}, json={"channel": "plain:1", "data": 1}))


async def test_bearer_key(server: Running, says: Any) -> None:
    headers = {"Authorization": f"Bearer {sdk.API_KEY}"}
    says(await call(server, headers=headers, json={"channel": "plain:1", "data": 1}))


async def test_no_key_configured(says: Any, log: Any) -> None:
    async with sdk.live(sdk.settings(api={})) as (_, server):
        assert "X-API-Key" in await call(server, json={"channel": "plain:1", "data": 1})
    says(log)


async def test_get(server: Running, says: Any) -> None:
    says(await call(server, method="GET"))


async def test_misspelt_method(server: Running, says: Any) -> None:
    says(await call(server, "publsh", json={}))


async def test_form(server: Running, says: Any) -> None:
    says(await call(server, data={"channel": "plain:1", "data": "1"}))


async def test_list(server: Running, says: Any) -> None:
    says(await call(server, json=[{"channel": "plain:1", "data": 1}]))


async def test_misspelt_member(server: Running, says: Any) -> None:
    says(await call(server, json={"chanel": "plain:1", "data": 1}))


async def test_data_forgotten(server: Running, says: Any) -> None:
    says(await call(server, json={"channel": "plain:1"}))


async def test_wrong_base64(server: Running, says: Any) -> None:
    says(await call(server, json={"channel": "plain:1", "b64data": "caf\u00e9"}))


async def test_unknown_namespace(server: Running, says: Any) -> None:
    says(await call(server, json={"channel": "oders:1", "data": 1}))


async def test_wrong_key_of_a_publisher(server: Running, says: Any) -> None:
    says(await publish(Publisher(server.url, "wrong")))


async def test_wrong_port_of_a_publisher(says: Any) -> None:
    says(await publish(Publisher(f"http://127.0.0.1:{free_port()}", sdk.API_KEY, timeout_s=1)))


async def test_path_of_the_install_forgotten(says: Any) -> None:
    app = FastAPI()
    Hub(sdk.settings()).install(app, "/live")
    async with running(app, sdk.settings()) as shop:
        says(await publish(Publisher(shop.url, sdk.API_KEY)))
