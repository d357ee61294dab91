"""Hostile peers at the WebSocket edge. Each test drives a real server over a raw socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import socket
import time
import tracemalloc
import urllib.request
import weakref
import zlib
from typing import Any

import psutil
import pytest
from support.edge import AttachingApp
from support.limits import WAIT_S
from support.rawws import HandshakeError, RawWebSocket, frame, handshake
from support.server import Process, running
from websockets.frames import Opcode

from hub.config import load
from hub.errors import StartupError
from hub.protocol import frames
from hub.protocol.codes import Disconnects
from hub.server.http import HubHTTPProtocol
from hub.server.listener import bind, listen
from hub.server.server import HubServer
from hub.server.upgrade import HandshakeProtocol
from hub.settings import Settings

CONNECT = '{"id":1,"connect":{}}'
CANARY = "canary-3f9b2c71d0"


def settings(**sections: Any) -> Settings:
    # A busy machine is no overload.
    return load(overrides={**sections, "server": {"lag_max_s": 0, **sections.get("server", {})}}, env={})


# Origins and tokens


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "https://sub.app.example",
        "https://app.example:444",
        "http://app.example",
        "https://APP.example",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example",
    ],
)
async def test_an_origin_that_is_not_allowed_is_refused_before_accept(origin: str) -> None:
    allowed = settings(client={"allowed_origins": ["https://app.example"], "insecure": True})
    async with running(allowed) as hub:
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(hub.port, headers={"Origin": origin})
    assert refused.value.status == 403


@pytest.mark.parametrize("origin", ["https://app.example", "http://127.0.0.1:{port}", None])
async def test_the_same_host_the_allowlist_and_no_browser_pass(origin: str | None) -> None:
    allowed = settings(client={"allowed_origins": ["https://app.example"], "insecure": True})
    async with running(allowed) as hub:
        headers = {"Origin": origin.format(port=hub.port)} if origin else {}
        async with await RawWebSocket.connect(hub.port, headers=headers) as client:
            client.send_text(CONNECT)
            assert "connect" in json.loads(await client.read_text())


async def test_a_cookie_alone_never_authenticates() -> None:
    async with (
        running(settings()) as hub,
        await RawWebSocket.connect(hub.port, headers={"Cookie": "session=someone"}) as client,
    ):
        client.send_text(CONNECT)
        received = await client.read_frame()
        assert received is not None
        assert b'"client"' not in received[1]


async def test_a_token_in_the_url_is_refused_and_none_is_ever_logged() -> None:
    async with Process("--dev") as hub:
        for name in ("token", "cf_token", "access_token"):
            with pytest.raises(HandshakeError) as refused:
                await RawWebSocket.connect(hub.port, f"/connection/websocket?{name}={CANARY}")
            assert refused.value.status == 400
        async with await RawWebSocket.connect(hub.port, f"/connection/websocket?x={CANARY}") as client:
            client.send_text(json.dumps({"id": 1, "connect": {"token": f"eyJ.{CANARY}.x"}}))
            assert (await client.closed())[0] == 3500
        metrics = await asyncio.to_thread(_get, f"{hub.url}/metrics")
        await hub.stop()
        assert CANARY not in hub.log
    assert CANARY not in metrics


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


async def test_the_server_logs_no_query_and_no_frame_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    app = AttachingApp()
    async with running(app) as hub:
        for name in (None, "uvicorn.error", "uvicorn.access", "websockets"):
            caplog.set_level(logging.DEBUG, name)
        async with await RawWebSocket.connect(hub.port, f"/?token={CANARY}", {"Cookie": CANARY}) as client:
            client.send_text(CANARY)
            await (await app.accepted()).received(1)
    assert CANARY not in caplog.text


# Clients that hold a socket and do nothing with it


async def test_sockets_that_drip_a_handshake_are_gone_and_cost_the_others_nothing() -> None:
    app = AttachingApp()
    async with running(app, settings(server={"handshake_timeout_s": 1.0})) as hub:
        drips = [asyncio.create_task(_drip(hub.port)) for _ in range(100)]
        for _ in range(100):
            async with await RawWebSocket.connect(hub.port, "/"):
                pass
        lives = await asyncio.gather(*drips)
    assert all(is_cut for is_cut, _ in lives), "a socket outlived its deadline"
    assert min(seconds for _, seconds in lives) > 0.5, "a socket was closed before its deadline"


async def _drip(port: int) -> tuple[bool, float]:
    """Send a handshake a byte at a time, which takes a minute at least.

    Returns:
        Whether the server ended the connection before the last byte, and the seconds until then.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    ended = asyncio.create_task(reader.read())
    for byte in handshake(port, "/", {"X-Padding": "x" * 1000}):
        writer.write(bytes((byte,)))
        done, _ = await asyncio.wait({ended}, timeout=0.05)
        if done:
            break
    is_cut = ended.done()
    await asyncio.wait_for(asyncio.gather(ended, return_exceptions=True), WAIT_S)
    writer.close()
    return is_cut, time.monotonic() - started


async def test_a_second_request_on_a_connection_has_a_deadline_too() -> None:
    async with running(settings(server={"handshake_timeout_s": 0.3})) as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: hub\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.write(b"GET /livez HTTP/1.1\r\n")
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()


async def test_a_head_without_end_is_refused() -> None:
    async with running(AttachingApp()) as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)))
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
        writer.close()


@pytest.mark.parametrize(
    ("status", "request_line", "headers"),
    [
        (400, "GET / HTTP/1.1", {"Sec-WebSocket-Key": "c2hvcnQ="}),
        (400, "GET /\xe9 HTTP/1.1", {}),
        (426, "GET / HTTP/1.1", {"Sec-WebSocket-Version": "12"}),
        (505, "GET / HTTP/2.0", {}),
    ],
)
async def test_a_request_that_is_no_handshake_leaves_no_socket(
    status: int, request_line: str, headers: dict[str, str]
) -> None:
    async with running(AttachingApp()) as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        head = handshake(hub.port, "/", headers)
        writer.write(head.replace(b"GET / HTTP/1.1", request_line.encode("latin-1")))
        async with asyncio.timeout(WAIT_S):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        await _until_connections(hub.server, 0)


async def test_a_client_that_never_connects_is_closed_as_stale() -> None:
    async with (
        running(settings(client={"connect_timeout_s": 0.3, "insecure": True})) as hub,
        await RawWebSocket.connect(hub.port) as client,
    ):
        async with asyncio.timeout(WAIT_S):
            assert await client.closed() == (3502, "stale")


async def test_a_client_without_pongs_is_closed_in_time() -> None:
    quick = settings(client={"ping_interval_s": 0.5, "pong_timeout_s": 0.3, "insecure": True})
    async with running(quick) as hub, await RawWebSocket.connect(hub.port) as client:
        client.send_text(CONNECT)
        await client.read_text()
        async with asyncio.timeout(20):  # by default, the hub waits for 33 s
            assert await client.closed() == (3012, "no pong")


async def test_a_stalled_reader_is_cut_off_a_second_after_close() -> None:
    app = AttachingApp()
    async with running(app) as hub:
        async with await RawWebSocket.connect(hub.port, "/", receive_buffer_bytes=4096):
            recorder = await app.accepted()
            while not recorder.writing_paused.is_set():
                recorder.socket.write(frames.encode(frames.Opcode.TEXT, b"x" * 65_000))
            recorder.socket.close(Disconnects.NO_PONG)
            assert recorder.closing_times == 1
            await recorder.wait_closed()
        assert recorder.closed_times == 1
        assert not hub.server.server_state.connections


async def test_a_peer_that_ends_its_side_and_does_not_read_is_cut_off() -> None:
    app = AttachingApp()
    async with (
        running(app) as hub,
        await RawWebSocket.connect(hub.port, "/", receive_buffer_bytes=4096) as client,
    ):
        recorder = await app.accepted()
        while not recorder.writing_paused.is_set():
            recorder.socket.write(frames.encode(frames.Opcode.TEXT, b"x" * 65_000))
        client.writer.write_eof()
        async with asyncio.timeout(WAIT_S):
            await recorder.closed.wait()


async def test_the_kernel_gives_up_peers_that_vanish() -> None:
    config = settings(server={"port": 0}, client={"ping_interval_s": 20.0, "pong_timeout_s": 5.0})
    with bind(config) as listener:
        client = socket.create_connection(listener.getsockname())
        listener.setblocking(True)
        accepted, _ = listener.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000
        accepted.close()
        client.close()


# Floods


async def test_a_ping_flood_is_closed() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(frame(Opcode.PING, b"hello") * 20)
        for _ in range(20):
            assert await client.read_frame() == (Opcode.PONG, b"hello")
        client.send(frame(Opcode.PING) * 5)
        assert await client.closed() == (1008, "too many pings")
        await (await app.accepted()).wait_closed()


@pytest.mark.parametrize("payload", [b"", b"x" * 125], ids=["many", "large"])
async def test_a_ping_flood_by_a_client_that_does_not_read_costs_no_memory(payload: bytes) -> None:
    async with Process("--dev") as hub:
        process = psutil.Process(hub.pid)
        for _ in range(3):  # what the first sockets make the process load is not the flood's
            async with await RawWebSocket.connect(hub.port) as client:
                client.send_text(CONNECT)
                await client.read_text()
        before = process.memory_info().rss
        async with await RawWebSocket.connect(hub.port, receive_buffer_bytes=4096) as client:
            pings = frame(Opcode.PING, payload)
            await client.flood(pings * (500_000 // len(pings)), 150)
            assert process.memory_info().rss - before < 1_000_000


async def test_pings_are_not_answered_into_a_full_socket() -> None:
    app = AttachingApp()
    async with (
        running(app) as hub,
        await RawWebSocket.connect(hub.port, "/", receive_buffer_bytes=4096) as client,
    ):
        recorder = await app.accepted()
        while not recorder.writing_paused.is_set():
            recorder.socket.write(frames.encode(frames.Opcode.TEXT, b"x" * 65_000))
        transport = recorder.socket._transport
        waiting = transport.get_write_buffer_size()
        client.send(frame(Opcode.PING, b"x" * 125) * 15, frame(Opcode.TEXT, b"after"))
        await recorder.received(1)
        assert transport.get_write_buffer_size() <= waiting


async def test_a_message_in_too_many_fragments_is_closed() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        empty = frame(Opcode.CONT, fin=False)
        client.send(frame(Opcode.TEXT, b"a", fin=False), empty * 1022, frame(Opcode.CONT, b"b"))
        assert await (await app.accepted()).received(1) == [b"ab"]
        client.send(frame(Opcode.TEXT, fin=False))
        await client.flood(empty * 1000, 600)
        assert await client.closed() == (1009, "too many fragments")


COMPRESSION = {"compression": True}


async def test_a_deflate_bomb_is_closed_before_it_goes_off() -> None:
    deflated = zlib.compressobj(9, wbits=-15)
    bomb = deflated.compress(bytes(1 << 28)) + deflated.flush(zlib.Z_SYNC_FLUSH)
    app = AttachingApp()
    async with running(app, settings(client={"message_bytes_max": 1 << 19}, server=COMPRESSION)) as hub:
        headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
        async with await RawWebSocket.connect(hub.port, "/", headers) as client:
            assert "server_no_context_takeover" in client.head
            assert "client_no_context_takeover" in client.head
            tracemalloc.start()
            client.send(frame(Opcode.BINARY, bomb[:-4], rsv1=True))
            code, _ = await client.closed()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert code == 1009
    assert peak < 4_000_000


async def test_deflate_is_off_by_default_and_works_where_it_is_on() -> None:
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    app = AttachingApp(echo=True)
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/", headers) as client:
        assert "deflate" not in client.head.lower()
    deflated = zlib.compressobj(wbits=-15)
    text = deflated.compress(b"hello") + deflated.flush(zlib.Z_SYNC_FLUSH)
    async with (
        running(app, settings(server=COMPRESSION)) as hub,
        await RawWebSocket.connect(hub.port, "/", headers) as client,
    ):
        client.send(frame(Opcode.TEXT, text[:-4], rsv1=True))
        assert await client.read_text() == "hello"


# Frames that lie


async def test_a_frame_that_declares_an_exabyte_is_refused_at_its_header() -> None:
    async with running(AttachingApp()) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(frame(Opcode.TEXT, size=1 << 62))
        assert (await client.closed())[0] == 1009


@pytest.mark.parametrize(
    "sent",
    [
        frame(Opcode.TEXT, size=65_537),
        frame(Opcode.TEXT, b"x" * 40_000, fin=False) + frame(Opcode.CONT, size=30_000),
    ],
    ids=["whole", "fragmented"],
)
async def test_a_message_over_the_limit_is_refused_before_it_is_read(sent: bytes) -> None:
    async with running(AttachingApp()) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(sent)
        assert (await client.closed())[0] == 1009


async def test_a_message_of_the_limit_passes() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(frame(Opcode.TEXT, b"x" * 65_536))
        assert await (await app.accepted()).received(1) == [b"x" * 65_536]


async def test_invalid_utf8_is_closed_with_one_short_log_line(caplog: pytest.LogCaptureFixture) -> None:
    app = AttachingApp()
    async with running(app) as hub:
        caplog.set_level(logging.INFO)
        caplog.clear()
        async with await RawWebSocket.connect(hub.port, "/") as client:
            client.send(frame(Opcode.TEXT, b"good"), frame(Opcode.TEXT, b"\xff" * 60_000))
            assert await client.closed() == (1007, "text is not UTF-8")
        recorder = await app.accepted()
        assert recorder.messages == [b"good"]
        await recorder.wait_closed()
        (line,) = caplog.records
        assert "client.fault" in str(line.msg)
        assert len(str(line.msg)) < 500
        assert line.exc_info is None


@pytest.mark.parametrize(
    "sent",
    [
        frame(Opcode.CONT, b"x"),
        frame(0x3, b"x"),
        frame(Opcode.TEXT, b"x", rsv1=True),
        frame(Opcode.PING, b"x" * 126),
        frames.encode(frames.Opcode.TEXT, b"unmasked"),
        frame(Opcode.TEXT, fin=False) + frame(Opcode.TEXT, b"x"),
    ],
    ids=[
        "lone continuation",
        "unknown opcode",
        "reserved bit",
        "long ping",
        "unmasked",
        "message in a message",
    ],
)
async def test_broken_framing_is_a_protocol_error(sent: bytes) -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(frame(Opcode.TEXT, b"good"), sent)
        assert (await client.closed())[0] == 1002
        recorder = await app.accepted()
        assert recorder.messages == [b"good"]
        await recorder.wait_closed()
        assert recorder.closed_times == 1


# Too many


def retry_after_s(refused: HandshakeError) -> int:
    """When a refused peer may come again."""
    return int(refused.head.lower().partition("retry-after: ")[2].partition("\r\n")[0])


async def test_over_the_cap_is_answered_503_and_those_connected_do_not_notice() -> None:
    app = AttachingApp(echo=True)
    async with running(app, settings(server={"connections_max": 3})) as hub:
        clients = [await RawWebSocket.connect(hub.port, "/") for _ in range(3)]
        for _ in range(5):
            with pytest.raises(HandshakeError) as refused:
                await RawWebSocket.connect(hub.port, "/")
            assert refused.value.status == 503
            assert 1 <= retry_after_s(refused.value) <= 5
        assert "full" in await asyncio.to_thread(_get, f"{hub.url}/livez")
        for client in clients:
            client.send_text("still here")
            assert await client.read_text() == "still here"
        clients.pop().writer.transport.abort()
        await _until_connections(hub.server, 2)
        clients.append(await RawWebSocket.connect(hub.port, "/"))
        for client in clients:
            client.writer.transport.abort()


async def _until_connections(server: HubServer, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(server.server_state.connections) > count:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)


async def test_a_silent_socket_over_the_cap_is_cut_off() -> None:
    async with (
        running(AttachingApp(), settings(server={"connections_max": 1})) as hub,
        await RawWebSocket.connect(hub.port, "/"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()


async def test_the_cap_leaves_descriptors_and_the_loop_does_not_spin() -> None:
    env = {"HUB_SERVER__HANDSHAKE_TIMEOUT_S": "30"}
    async with Process("--dev", files_max=128, env=env) as hub:
        process = psutil.Process(hub.pid)
        client = await RawWebSocket.connect(hub.port)
        sockets = [socket.create_connection(("127.0.0.1", hub.port), timeout=WAIT_S) for _ in range(300)]
        # 64 files are left to sockets. Those beyond say nothing and are refused, some after a wait for what
        # they might say: the next one finds room for its own wait when all of them are gone.
        for sock in sockets[64:]:
            with contextlib.suppress(ConnectionError):
                await asyncio.to_thread(sock.recv, 1)
        assert process.num_fds() < 128
        before = process.cpu_times()
        started = time.monotonic()
        client.send_text(CONNECT)
        assert "connect" in await client.read_text()
        with pytest.raises(HandshakeError) as refused:
            await RawWebSocket.connect(hub.port)
        assert refused.value.status == 503
        await asyncio.sleep(1)  # what is measured is what nobody asks for
        after = process.cpu_times()
        busy_s = after.user + after.system - before.user - before.system
        assert busy_s < 0.3 * (time.monotonic() - started)
        assert len(hub.log) < 20_000
        for sock in sockets:
            sock.close()
        client.writer.transport.abort()


# Attaching a receiver


async def test_messages_reach_the_receiver_in_order_and_whole() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        sent = [str(number).encode() * (number * 37) for number in range(1, 40)]
        for payload in sent:
            half = len(payload) // 2
            client.send(
                frame(Opcode.TEXT, payload[:half], fin=False),
                frame(Opcode.PING, b"between"),
                frame(Opcode.CONT, payload[half:]),
            )
            await asyncio.sleep(0)
            if len(payload) % 2:
                client.send(frame(Opcode.BINARY, b"\xff\xfe"))
        recorder = await app.accepted()
        text = [message for message in await recorder.received(20) if message != b"\xff\xfe"]
        assert text == sent[: len(text)]


async def test_reading_stops_and_goes_on_without_loss() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        recorder = await app.accepted()
        recorder.answer = lambda data: recorder.socket.pause_reading() if data == b"0" else None
        payloads = [str(number).encode() for number in range(5000)]
        client.send(*(frame(Opcode.TEXT, payload) for payload in payloads))
        await recorder.received(1)
        await asyncio.sleep(0.05)  # nothing says that nothing comes
        assert len(recorder.messages) < 2500  # what 16 KiB hold
        recorder.socket.resume_reading()
        assert await recorder.received(5000) == payloads


async def test_a_close_is_told_with_its_code_and_reason() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        recorder = await app.accepted()
        recorder.socket.close(Disconnects.FORCE_RECONNECT)
        recorder.socket.close(Disconnects.SLOW)
        client.send_text("too late")
        assert await client.closed() == (3011, "force reconnect")
        client.send(frame(Opcode.CLOSE, (3011).to_bytes(2, "big")))
        await recorder.wait_closed()
        assert recorder.messages == []
        assert recorder.closed_times == 1


async def test_a_close_from_inside_a_message_that_came_with_the_peers_own() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        recorder = await app.accepted()
        recorder.answer = lambda _: recorder.socket.close(Disconnects.BAD_REQUEST)
        client.send(frame(Opcode.TEXT, b"x"), frame(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        assert (await client.closed())[0] == 3501
        await recorder.wait_closed()


async def test_a_close_by_the_peer_is_echoed() -> None:
    app = AttachingApp()
    async with running(app) as hub, await RawWebSocket.connect(hub.port, "/") as client:
        client.send(frame(Opcode.CLOSE, (1000).to_bytes(2, "big") + b"bye"))
        assert await client.closed() == (1000, "bye")
        recorder = await app.accepted()
        await recorder.wait_closed()
        assert recorder.closed_times == 1


async def test_a_vanished_peer_closes_once() -> None:
    app = AttachingApp()
    async with running(app) as hub:
        client = await RawWebSocket.connect(hub.port, "/")
        recorder = await app.accepted()
        client.writer.transport.abort()
        await recorder.wait_closed()
        recorder.socket.close(Disconnects.SLOW)
        assert (recorder.closing_times, recorder.closed_times) == (1, 1)


async def test_nothing_of_the_handshake_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handshakes: list[weakref.ref[asyncio.Protocol]] = []

    def remember(kind: type[asyncio.Protocol], name: str) -> None:
        begin = getattr(kind, name)

        def remembering(self: asyncio.Protocol, *arguments: Any) -> None:
            handshakes.append(weakref.ref(self))
            begin(self, *arguments)

        monkeypatch.setattr(kind, name, remembering)

    remember(HubHTTPProtocol, "connection_made")
    remember(HandshakeProtocol, "start")

    app = AttachingApp()
    async with running(app) as hub:
        gc.collect()
        gc.disable()  # a cycle would live on until it is found, and ten thousand reconnect at once
        try:
            async with await RawWebSocket.connect(hub.port, "/") as client:
                recorder = await app.accepted()
                client.send_text("x")
                await recorder.received(1)
                assert [handshake() for handshake in handshakes] == [None, None]
                assert not hub.server.server_state.tasks
        finally:
            gc.enable()


# Where to listen


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port} is taken .* --port or HUB_PORT"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(StartupError, match=r"192\.0\.2\.1 is no address .* --host"):
        listen("192.0.2.1", 0)


async def test_an_app_that_does_not_start_is_a_startup_error() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no broker"})

    with pytest.raises(StartupError, match="did not start"):
        async with running(app):
            pytest.fail("it started")
