"""WebSockets of an app that is not the hub's, under the hub's server: what the ASGI specification says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.edge import lifespan
from support.limits import WAIT_S
from support.rawws import HandshakeError, RawWebSocket, frame, handshake
from support.server import running
from websockets.frames import Opcode

from hub.node.transport import EXTENSION

Endpoint = Callable[[Any, Any, Any], Awaitable[Any]]


class App:
    """An ASGI app of one WebSocket endpoint. What it returned or raised is in `ended`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        try:
            self.ended.set_result(await self._endpoint(scope, receive, send))
        except Exception as exc:
            self.ended.set_exception(exc)
            raise

    async def result(self) -> Any:
        """What the endpoint returned."""
        async with asyncio.timeout(WAIT_S):
            return await self.ended


async def accept(receive: Any, send: Any, **fields: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **fields})


async def test_messages_go_both_ways_and_the_end_is_told() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        assert callable(scope["extensions"][EXTENSION])
        assert (scope["path"], scope["query_string"]) == ("/a b", b"c=d")
        assert scope["subprotocols"] == ["chat", "other"]
        assert (b"x-sent", b"1") in scope["headers"]
        await accept(receive, send, subprotocol="chat", headers=[(b"x-answered", b"2")])
        while (event := await receive())["type"] == "websocket.receive":
            if "text" in event:
                await send({"type": "websocket.send", "text": event["text"].upper()})
            else:
                await send({"type": "websocket.send", "bytes": event["bytes"][::-1]})
        return event

    app = App(endpoint)
    headers = {"Sec-WebSocket-Protocol": "chat, other", "X-Sent": "1"}
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/a%20b?c=d", headers) as client:
        assert "Sec-WebSocket-Protocol: chat\r\n" in client.head
        assert "x-answered: 2\r\n" in client.head
        client.send(frame(Opcode.TEXT, b"one"), frame(Opcode.BINARY, b"two"), frame(Opcode.TEXT, b"three"))
        assert [await client.read_frame() for _ in range(3)] == [
            (Opcode.TEXT, b"ONE"),
            (Opcode.BINARY, b"owt"),
            (Opcode.TEXT, b"THREE"),
        ]
        client.send(frame(Opcode.CLOSE, (4001).to_bytes(2, "big") + b"bye"))
        assert await client.closed() == (4001, "bye")
        assert await app.result() == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


@pytest.mark.parametrize(("closing", "code"), [(frame(Opcode.CLOSE, b""), 1005), (b"", 1006)])
async def test_an_end_without_a_code_is_told(closing: bytes, code: int) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        return await receive()

    app = App(endpoint)
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(closing)
        client.writer.write_eof()
        assert (await app.result())["code"] == code


async def test_the_apps_own_close_is_sent_and_nothing_goes_behind_it() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 4002, "reason": "enough"})
        with pytest.raises(RuntimeError, match=r"websocket\.send"):
            await send({"type": "websocket.send", "text": "more"})

    app = App(endpoint)
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        assert await client.closed() == (4002, "enough")
        await app.result()


async def test_a_reason_that_fits_no_frame_is_an_error_of_the_app() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, got 124"):
            await send({"type": "websocket.close", "code": 4002, "reason": "é" * 62})
        await send({"type": "websocket.close", "code": 4002, "reason": "é" * 61})

    app = App(endpoint)
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        assert await client.closed() == (4002, "é" * 61)
        await app.result()


async def test_a_send_to_a_peer_that_is_gone_raises() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        await receive()
        with pytest.raises(OSError):  # noqa: PT011 - as the ASGI specification has it
            await send({"type": "websocket.send", "text": "more"})

    app = App(endpoint)
    async with running(app) as hub:
        client = await RawWebSocket.connect(hub.port, "/")
        client.writer.transport.abort()
        await app.result()


async def test_an_app_that_returns_or_fails_closes() -> None:
    async def returns(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)

    async def fails(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        raise ValueError("a fault of the app")

    for endpoint, code in ((returns, 1000), (fails, 1011)):
        app = App(endpoint)
        async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
            assert (await client.closed())[0] == code
            await asyncio.wait([app.ended])
            app.ended.exception()


async def test_a_socket_that_was_claimed_and_never_attached_is_closed() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        scope["extensions"][EXTENSION]()
        await accept(receive, send)

    async with running(App(endpoint)) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        assert (await client.closed())[0] == 1006
        assert not hub.server.server_state.connections


async def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        raise ValueError("a fault of the app")

    app = App(endpoint)
    async with running(app) as hub:
        with caplog.at_level(logging.ERROR), pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(hub.port, "/")
    assert refused.value.status == 500
    assert "a fault of the app" in caplog.text
    assert app.ended.exception()


async def test_a_handshake_is_refused_as_the_app_says() -> None:
    async def closes(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.close"})

    async def answers(scope: Any, receive: Any, send: Any) -> Any:
        headers = [(b"content-type", b"application/json"), (b"x-why", b"late")]
        await send({"type": "websocket.http.response.start", "status": 429, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b'{"ok":', "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"false}"})

    async def is_silent(scope: Any, receive: Any, send: Any) -> Any:
        return None

    for endpoint, status, body in (
        (closes, 403, b"the app refused the connection\n"),
        (answers, 429, b'{"ok":false}'),
        (is_silent, 500, b"the app did not answer\n"),
    ):
        async with running(App(endpoint)) as hub:
            with pytest.raises(HandshakeError) as refused:
                await RawWebSocket.connect(hub.port, "/")
            assert (refused.value.status, refused.value.body) == (status, body)
            if endpoint is answers:
                assert refused.value.head.lower().count("content-type: ") == 1
                assert "x-why: late\r\n" in refused.value.head
                assert "Content-Length: 12\r\n" in refused.value.head


async def test_what_has_no_place_is_an_error_of_the_app() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        for misplaced in ("websocket.send", "websocket.http.response.body", "http.response.start"):
            with pytest.raises(RuntimeError, match=misplaced):
                await send({"type": misplaced, "text": "early"})
        await accept(receive, send)
        with pytest.raises(RuntimeError, match=r"websocket\.accept"):
            await send({"type": "websocket.accept"})

    app = App(endpoint)
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/"):
        await app.result()


async def test_a_peer_that_goes_before_the_answer_is_told() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        arrived.set()
        gone = await receive()
        with pytest.raises(OSError):  # noqa: PT011
            await send({"type": "websocket.accept"})
        return gone

    arrived = asyncio.Event()
    app = App(endpoint)
    async with running(app) as hub:
        _, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(handshake(hub.port, "/", {}))
        await arrived.wait()
        writer.transport.abort()
        assert (await app.result())["code"] == 1006


async def test_an_app_waits_for_a_peer_that_does_not_read_and_a_peer_for_an_app() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        sent = 0
        while not paused.is_set():
            sending = asyncio.create_task(send({"type": "websocket.send", "bytes": bytes(10_000)}))
            done, _ = await asyncio.wait([sending], timeout=0.2)
            sent += 1
            if not done:
                paused.set()
                await sending
        return sent

    paused = asyncio.Event()
    app = App(endpoint)
    async with running(app) as hub:
        client = await RawWebSocket.connect(hub.port, "/", receive_buffer_bytes=4096)
        async with client:
            async with asyncio.timeout(WAIT_S):
                await paused.wait()
            client.send(frame(Opcode.PING, b"there?"))
            frames = []
            while (received := await client.read_frame()) is not None:
                frames.append(received)
        sent = await app.result()
        assert [len(payload) for opcode, payload in frames if opcode == Opcode.BINARY] == [10_000] * sent
        assert frames[-1] == (Opcode.CLOSE, (1000).to_bytes(2, "big"))


async def test_the_end_of_the_server_is_told() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> Any:
        await accept(receive, send)
        return await receive()

    app = App(endpoint)
    async with running(app) as hub:
        client = await RawWebSocket.connect(hub.port, "/")
    assert (await client.closed())[0] == 1012
    assert (await app.result())["type"] == "websocket.disconnect"
    client.writer.transport.abort()
