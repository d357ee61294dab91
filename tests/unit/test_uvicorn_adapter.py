"""The canary of uvicorn's internals: after an upgrade, a failed case names what uvicorn changed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hub.protocol.heads import Refusal
from hub.server import _uvicorn
from hub.server._uvicorn import INTERNALS, RequestProtocol, UvicornServer

REQUEST = b"POST /path?query HTTP/1.1\r\nHost: hub\r\nContent-Length: 10\r\n\r\nhello"


class FakeTransport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


class Protocol(RequestProtocol):
    """Keeps what the adapter turned uvicorn's calls into."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.calls: list[str] = []

    def on_websocket(self, early: bytes) -> None:
        self.calls.append(f"websocket {early.decode()}")

    def on_refusal(self, refusal: Refusal) -> None:
        self.calls.append(refusal.status)


def configured() -> Config:
    """The configuration as the hub makes it."""
    config = _uvicorn.make_config(app, Protocol, trusted_proxies=[], backlog=1, keep_alive_s=1, grace_s=1)
    config.load()
    return config


def received(data: bytes, kind: type[HttpToolsProtocol] = Protocol) -> Any:
    """A protocol that got this, in a running event loop."""
    protocol = kind(configured(), ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(FakeTransport())
    protocol.data_received(data)
    return protocol


def instances() -> dict[type, Any]:
    """An instance of each class whose attributes the adapter uses."""
    config = configured()
    protocol = received(REQUEST, HttpToolsProtocol)
    return {
        uvicorn.Server: uvicorn.Server(config),
        Config: config,
        ServerState: protocol.server_state,
        HttpToolsProtocol: protocol,
        RequestResponseCycle: protocol.cycle,
        FlowControl: protocol.flow,
        LifespanOn: LifespanOn(config),
    }


def internals() -> Iterator[Any]:
    for kind, names in INTERNALS.items():
        for name in names:
            yield pytest.param(kind, name, id=f"{kind.__module__}.{kind.__qualname__}.{name}")


@pytest.mark.parametrize(("kind", "name"), list(internals()))
async def test_uvicorn_still_has(kind: type, name: str) -> None:
    assert hasattr(instances()[kind], name), f"this uvicorn ({uvicorn.__version__}) has no {kind}.{name}"


def test_every_attribute_of_uvicorn_that_the_adapter_uses_is_listed() -> None:
    for ours, theirs in ((RequestProtocol, HttpToolsProtocol), (UvicornServer, uvicorn.Server)):
        used = set(ours.__init__.__code__.co_names)
        for function in vars(ours).values():
            function = function.fget if isinstance(function, property) else function
            if inspect.isfunction(function):
                used |= set(function.__code__.co_names)
        inherited = set(vars(theirs)) | set(theirs.__init__.__code__.co_names)
        listed = {name for names in INTERNALS.values() for name in names}
        missing = (used & inherited) - listed - vars(_uvicorn).keys() - vars(object).keys()
        assert not missing, f"INTERNALS does not list {missing}"


@pytest.mark.parametrize(
    ("kind", "name", "parameters"),
    [
        (HttpToolsProtocol, "__init__", ["self", "config", "server_state", "app_state", "_loop"]),
        (HttpToolsProtocol, "on_header", ["self", "name", "value"]),
        (HttpToolsProtocol, "on_body", ["self", "body"]),
        (HttpToolsProtocol, "data_received", ["self", "data"]),
        (HttpToolsProtocol, "on_headers_complete", ["self"]),
        (HttpToolsProtocol, "on_message_complete", ["self"]),
        (RequestResponseCycle, "send", ["self", "message"]),
        (HttpToolsProtocol, "on_response_complete", ["self"]),
        (uvicorn.Server, "serve", ["self", "sockets"]),
        (uvicorn.Server, "startup", ["self", "sockets"]),
        (uvicorn.Server, "shutdown", ["self", "sockets"]),
        (uvicorn.Server, "handle_exit", ["self", "sig", "frame"]),
    ],
)
def test_uvicorn_still_takes(kind: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(kind, name)).parameters) == parameters


async def test_the_steps_of_a_request_come_as_they_did() -> None:
    protocol = received(REQUEST)
    assert protocol.is_answering
    assert protocol.exchange.scope is protocol.scope
    assert not protocol.is_streaming(protocol.exchange)
    closed: list[bool] = []
    protocol.redirect_close(lambda: closed.append(True))
    protocol.forbid_keep_alive()
    send = protocol.exchange.send
    await send({"type": "http.response.start", "status": 200, "headers": []})
    assert protocol.is_streaming(protocol.exchange)
    await send({"type": "http.response.body", "body": b"x"})
    assert closed == [True]
    assert not protocol.transport.is_closed
    assert not protocol.is_answering
    written = b"".join(cast(FakeTransport, protocol.transport).written)
    assert b"connection: close\r\n" in written
    protocol._unset_keepalive_if_required()
    protocol.release()
    assert protocol not in protocol.connections
    await asyncio.sleep(0)


async def test_what_is_no_request_comes_as_it_did() -> None:
    handshake = (
        b"GET /a%20b?c HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    upgrading = received(handshake + b"frames")
    assert upgrading.calls == ["websocket frames"]
    scope = upgrading.websocket_scope()
    assert (scope["path"], scope["query_string"], scope["http_version"]) == ("/a b", b"c", "1.1")
    assert received(b"no HTTP\r\n\r\n").calls == ["400 Bad Request"]
    assert received(b"GET / HTTP/1.1\r\n\r\n").calls == ["400 Bad Request"]
    assert received(b"GET / HTTP/1.2\r\n\r\n").calls == ["505 HTTP Version Not Supported"]
    assert received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").calls == ["505 HTTP Version Not Supported"]
    waiting = received(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n" * 3)
    assert waiting.waiting_requests == 2
    assert waiting.drop_last_request()
    assert waiting.waiting_requests == 1
    alone = received(REQUEST)
    assert not alone.drop_last_request()
    assert alone.exchange.disconnected


async def test_another_upgrade_is_ignored_and_the_body_read() -> None:
    protocol = received(
        REQUEST.replace(b"Host: hub\r\n", b"Host: hub\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n")
    )
    assert protocol.calls == []
    assert bytes(protocol.exchange.body) == b"hello"
    assert protocol.exchange.more_body


async def test_a_response_to_http_1_0_has_no_chunks() -> None:
    protocol = received(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))
    send = protocol.exchange.send
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for more in (True, False):
        await send({"type": "http.response.body", "body": b"part.", "more_body": more})
    written = b"".join(cast(FakeTransport, protocol.transport).written)
    head, _, body = written.partition(b"\r\n\r\n")
    assert body == b"part.part."
    assert b"transfer-encoding" not in head
    assert protocol.transport.is_closed
