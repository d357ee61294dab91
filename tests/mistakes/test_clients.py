"""Mistakes of browsers and other clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from support import sdk
from support.limits import WAIT_S
from support.peer import command, connected, unconnected
from support.ports import free_port
from support.rawws import HandshakeError, RawWebSocket
from support.server import Running, running

from hub import Hub
from hub.client import (
    Client,
    ClientDisconnectedError,
    DuplicateSubscriptionError,
    MessageTooLargeError,
    OperationTimeoutError,
    SubscriptionUnsubscribedError,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Running]:
    """A hub for all tests of this file."""
    async with sdk.live() as (_, server):
        yield server


async def login(server: Running, token: str) -> None:
    """Connect with a token that the hub refuses."""
    async with unconnected(server.port) as peer:
        peer.send(command(1, "connect", token=token))
        assert (await peer.closed())[0] == 3500


async def ask(server: Running, name: str, /, **fields: Any) -> Any:
    """The reply to a command of the user ann, who sees it refused."""
    async with connected(server.port, sdk.token("ann")) as peer:
        [reply] = await peer.ask(command(2, name, **fields))
        return reply


async def not_ready(client: Client, kind: type[Exception]) -> str:
    """Why a client does not get ready."""
    async with client:
        with pytest.raises(kind) as raised:
            await client.ready()
    return str(raised.value)


async def close_of(server: Running, text: str) -> int:
    """The code that the hub closes a connection with whose first message is this text."""
    async with unconnected(server.port) as peer:
        peer.send(text)
        return (await peer.closed())[0]


async def refusal(port: int, path: str, **headers: str) -> str:
    """What the answer to a refused handshake says."""
    with pytest.raises(HandshakeError) as answer:
        await RawWebSocket.connect(port, path, headers)
    return answer.value.body.decode()


async def test_forgotten_token(server: Running, log: Any, says: Any) -> None:
    async with unconnected(server.port) as peer:
        assert await peer.error(command(1, "connect")) == 101
    says(log)


async def test_forgotten_token_in_python(server: Running, says: Any) -> None:
    says(await not_ready(Client(server.url), ClientDisconnectedError))


async def test_expired_token(server: Running, says: Any) -> None:
    token = sdk.token("ann", ttl_s=-60)
    says(await not_ready(Client(server.url, token=token), ClientDisconnectedError))


async def test_wrong_secret(server: Running, log: Any, says: Any) -> None:
    await login(server, sdk.token("ann", secret="another-secret-of-the-same-length!"))
    says(log)


async def test_wrong_algorithm(server: Running, log: Any, says: Any) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    await login(server, jwt.encode({"sub": "ann"}, key, "RS256"))
    says(log)


async def test_bearer_in_the_token(server: Running, log: Any, says: Any) -> None:
    await login(server, f"Bearer {sdk.token('ann')}")
    says(log)


async def test_numeric_subject(server: Running, log: Any, says: Any) -> None:
    await login(server, jwt.PyJWS().encode(b'{"sub":7}', sdk.SECRET, "HS256"))
    says(log)


async def test_subscription_token_to_connect(server: Running, log: Any, says: Any) -> None:
    await login(server, sdk.token("ann", channel="private:1"))
    says(log)


async def test_token_for_another_channel(server: Running, log: Any, says: Any) -> None:
    token = sdk.subscription_token("ann", "private:1")
    assert (await ask(server, "subscribe", channel="private:2", token=token))["error"]["code"] == 103
    says(log)


async def test_token_in_the_url(server: Running, log: Any, says: Any) -> None:
    says(await refusal(server.port, f"/connection/websocket?token={sdk.token('ann')}"))
    assert "send the token in the connect command" in str(log)


async def test_wrong_path(server: Running, says: Any) -> None:
    says(await refusal(server.port, "/ws"))


async def test_path_of_the_install_forgotten(says: Any) -> None:
    app = FastAPI()
    Hub(sdk.settings()).install(app, "/live")
    async with running(app, sdk.settings()) as shop:
        says(await refusal(shop.port, "/connection/websocket"))


async def test_wrong_port(says: Any) -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", timeout_s=1)
    says(await not_ready(client, OperationTimeoutError))


async def test_tls_to_a_plain_port(server: Running, says: Any) -> None:
    client = Client(f"https://127.0.0.1:{server.port}", timeout_s=1)
    says(await not_ready(client, OperationTimeoutError))


async def test_url_without_scheme(says: Any) -> None:
    with pytest.raises(ValueError, match="localhost") as raised:
        Client("localhost:8000")
    says(raised.value)


async def test_plain_get(server: Running, says: Any) -> None:
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        says((await client.get(f"{server.url}/connection/websocket")).text)


async def test_wrong_origin(server: Running, log: Any, says: Any) -> None:
    assert "this origin" in await refusal(server.port, "/connection/websocket", Origin="https://shop.example")
    says(log)


async def test_connect_forgotten(server: Running, says: Any) -> None:
    with pytest.raises(ClientDisconnectedError) as raised:
        await Client(server.url).publish("plain:1", 1)
    says(raised.value)


async def test_subscribe_forgotten(server: Running, says: Any) -> None:
    async with Client(server.url, token=sdk.token("ann")) as client:
        with pytest.raises(SubscriptionUnsubscribedError) as raised:
            await client.new_subscription("plain:1").publish(1)
    says(raised.value)


async def test_subscribe_without_permission(server: Running, log: Any, says: Any) -> None:
    assert (await ask(server, "subscribe", channel="private:1"))["error"]["code"] == 103
    says(log)


async def test_unknown_namespace(server: Running, log: Any, says: Any) -> None:
    assert (await ask(server, "subscribe", channel="oders:1"))["error"]["code"] == 102
    says(log)


async def test_space_in_a_channel(server: Running, says: Any) -> None:
    says((await ask(server, "subscribe", channel="my room"))["error"]["message"])


async def test_publish_without_permission(server: Running, log: Any, says: Any) -> None:
    assert (await ask(server, "publish", channel="news:1", data=1))["error"]["code"] == 103
    says(log)


async def test_history_not_kept(server: Running, log: Any, says: Any) -> None:
    assert (await ask(server, "history", channel="plain:1"))["error"]["code"] == 108
    says(log)


async def test_presence_not_kept(server: Running, log: Any, says: Any) -> None:
    assert (await ask(server, "presence", channel="plain:1"))["error"]["code"] == 108
    says(log)


async def test_recovery_without_history(server: Running, log: Any, says: Any) -> None:
    assert "subscribe" in await ask(server, "subscribe", channel="plain:1", recoverable=True)
    says(log)


async def test_rpc_without_a_handler(server: Running, log: Any, says: Any) -> None:
    assert (await ask(server, "rpc", method="pay"))["error"]["code"] == 108
    says(log)


async def test_subscribed_twice(server: Running, says: Any) -> None:
    client = Client(server.url)
    client.new_subscription("plain:1")
    with pytest.raises(DuplicateSubscriptionError) as raised:
        client.new_subscription("plain:1")
    says(raised.value)


async def test_too_large(server: Running, says: Any) -> None:
    async with Client(server.url, token=sdk.token("ann")) as client:
        await client.ready()
        with pytest.raises(MessageTooLargeError) as raised:
            await client.publish("plain:1", "x" * 70_000)
    says(raised.value)


async def test_not_the_protocol(server: Running, log: Any, says: Any) -> None:
    assert await close_of(server, "hello") == 3501
    says(log)


async def test_first_protocol_version(server: Running, log: Any, says: Any) -> None:
    assert await close_of(server, '{"id":1,"method":0,"params":{}}') == 3501
    says(log)


async def test_connect_not_first(server: Running, log: Any, says: Any) -> None:
    assert await close_of(server, command(1, "subscribe", channel="plain:1")) == 3501
    says(log)
