"""What the server does with each oddity of HTTP and of the WebSocket handshake: the rows of docs/http.md.

A row is bytes in and bytes out. Behind the bytes of a row comes a probe, in the same segment, which shows
what becomes of the connection: it ends, or it takes another request, or it is a WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from support import sdk
from support.http_rows import (
    ALIVE,
    ALIVE_CLOSE,
    ASK_UPGRADE,
    CONNECT,
    ENDPOINT,
    ENDS,
    KEY,
    LOST_UPGRADE,
    NO_HOST,
    NO_NODE,
    NO_TARGET,
    NOT_ALLOWED,
    NOT_FOUND,
    OLD_KEY,
    OLD_VERSION,
    READABLE,
    STALE,
    STREAM_HEAD,
    TOO_LARGE,
    UNAUTHORIZED,
    UPGRADED,
    Drip,
    Row,
    Then,
    answered,
    chunk,
    chunked,
    exchange,
    get,
    post,
    read_all,
    refused,
    shake,
    text_frame,
    unreadable,
)
from support.limits import WAIT_S
from support.rawws import frame
from support.server import Running, running

from hub.protocol.frames import Opcode

PAGE = Path(__file__).parent.parent.parent / "docs" / "http.md"

VERSIONS = [
    Row(
        "HTTP/1.0", "200, and the connection is closed", get(line="GET /livez HTTP/1.0", host=""), ALIVE_CLOSE
    ),
    Row(
        "HTTP/1.0 with `Connection: keep-alive`",
        "200, and the connection is closed",
        get("Connection: keep-alive", line="GET /livez HTTP/1.0", host=""),
        ALIVE_CLOSE,
    ),
    Row(
        "HTTP/1.0 on `/connection/http_stream`",
        "200; the stream is not chunked, and ends with the connection",
        get(
            f"Content-Length: {len(CONNECT)}",
            line="POST /connection/http_stream HTTP/1.0",
            body=CONNECT,
        ),
        STREAM_HEAD + f"\r\n{UNAUTHORIZED}\n{STALE}\n".encode(),
    ),
    Row(
        "HTTP/1.1 on `/connection/http_stream`",
        "200; the stream is chunked, and the connection is closed behind it",
        post(f"Content-Length: {len(CONNECT)}", body=CONNECT, path="/connection/http_stream"),
        STREAM_HEAD
        + b"transfer-encoding: chunked\r\n\r\n"
        + chunk(UNAUTHORIZED + "\n")
        + chunk(STALE + "\n")
        + b"0\r\n\r\n",
    ),
    Row(
        "HTTP/0.9: `GET /livez` and a blank line",
        "505",
        b"GET /livez\r\n\r\n",
        refused(505, "this server speaks HTTP/1.0 and HTTP/1.1"),
    ),
    Row(
        "HTTP/1.2",
        "505",
        get(line="GET /livez HTTP/1.2"),
        unreadable("Invalid HTTP version", 505),
    ),
    Row(
        "HTTP/2.0 in an HTTP/1.1 request line",
        "505",
        get(line="GET /livez HTTP/2.0"),
        refused(505, "this server speaks HTTP/1.0 and HTTP/1.1"),
    ),
    Row(
        "the preface of HTTP/2",
        "505",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        unreadable("Pause on PRI/Upgrade", 505),
    ),
    Row(
        "a TLS handshake, or other bytes that are not HTTP",
        "400",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        unreadable("Invalid method encountered"),
    ),
]

HOSTS = [
    Row("HTTP/1.1 without Host", "400", get(host=""), refused(400, "Host is missing")),
    Row("two Host lines, alike or not", "400", get("Host: hub"), NO_HOST),
    Row("HTTP/1.0 with two Host lines", "400", get("Host: b", line="GET /livez HTTP/1.0"), NO_HOST),
    Row("an empty Host", "served", get(host="Host:"), ALIVE, Then.KEPT),
    Row(
        "a Host that is no name and port: `a b`, `user@hub`, `hub/x`",
        "400",
        get(host="Host: user@hub"),
        NO_HOST,
    ),
    Row("an IPv6 address and a port as Host", "served", get(host="Host: [::1]:8000"), ALIVE, Then.KEPT),
]

TARGETS = [
    Row(
        "`GET http://hub/livez`, the absolute form",
        "served; its host takes the place of Host",
        get(line="GET http://hub/livez HTTP/1.1"),
        ALIVE,
        Then.KEPT,
    ),
    Row(
        "`GET http://hub`, without a path",
        "as `/`",
        get(line="GET http://hub HTTP/1.1"),
        NOT_FOUND,
        Then.KEPT,
    ),
    Row(
        "the absolute form with a user or without a host",
        "400",
        get(line="GET http://ann@hub/livez HTTP/1.1"),
        NO_TARGET,
    ),
    Row("the absolute form of another scheme", "400", get(line="GET ftp://hub/livez HTTP/1.1"), NO_TARGET),
    Row("`OPTIONS *`", "404: the app has no such path", get(line="OPTIONS * HTTP/1.1"), NOT_FOUND, Then.KEPT),
    Row("`GET *`", "400", get(line="GET * HTTP/1.1"), NO_TARGET),
    Row("`//livez`", "404: slashes are not merged", get(line="GET //livez HTTP/1.1"), NOT_FOUND, Then.KEPT),
    Row(
        "`/a/../livez`",
        "404: dots are not resolved",
        get(line="GET /a/../livez HTTP/1.1"),
        NOT_FOUND,
        Then.KEPT,
    ),
    Row(
        "`/livez/`",
        "307 to `/livez`",
        get(line="GET /livez/ HTTP/1.1"),
        answered(307, "", behind=("location: http://hub/livez",), media_type=""),
        Then.KEPT,
    ),
    Row(
        "`/%6civez`",
        "as `/livez`: a proxy that filters paths has to decode them first",
        get(line="GET /%6civez HTTP/1.1"),
        ALIVE,
        Then.KEPT,
    ),
    Row(
        "`/connection%2fwebsocket`",
        "as `/connection/websocket`",
        get(line="GET /connection%2fwebsocket HTTP/1.1"),
        ASK_UPGRADE,
        Then.KEPT,
    ),
    Row(
        "`/%ff` or `/%zz`, which are no UTF-8 or no encoding",
        "404",
        get(line="GET /%zz HTTP/1.1"),
        NOT_FOUND,
        Then.KEPT,
    ),
    Row("a fragment: `/livez#top`", "400", get(line="GET /livez#top HTTP/1.1"), NO_TARGET),
    Row(
        "a target without a slash: `livez`",
        "400",
        get(line="GET livez HTTP/1.1"),
        unreadable("Invalid characters in url"),
    ),
    Row(
        "a byte over 127 or a control character in the target",
        "400",
        get(line="GET /\xe9 HTTP/1.1"),
        unreadable("Invalid char in url path"),
    ),
    Row(
        "a target over 32 KiB",
        "414",
        get(line=f"GET /{'a' * 100_000} HTTP/1.1"),
        refused(414, "a request target has at most 32768 bytes"),
        whole=True,
    ),
]

METHODS = [
    Row(
        "HEAD",
        "the head of the answer to GET",
        get(line="HEAD /livez HTTP/1.1"),
        ALIVE.partition(b"{")[0],
        Then.KEPT,
    ),
    Row(
        "HEAD that the server refuses before the app sees it",
        "the head of the refusal",
        get(line="HEAD /livez HTTP/1.1", host=""),
        refused(400, "Host is missing").partition(b"Host is")[0],
    ),
    Row(
        "HEAD in another version of HTTP",
        "the head of the refusal",
        get(line="HEAD /livez HTTP/1.2"),
        unreadable("Invalid HTTP version", 505).partition(b"this is")[0],
    ),
    Row(
        "HEAD that the server refuses, behind another request",
        "both answers",
        get() + get(line="HEAD /livez HTTP/1.1", host=""),
        ALIVE + refused(400, "Host is missing").partition(b"Host is")[0],
    ),
    Row(
        "HEAD, and behind it what is no HTTP",
        "both answers; the second has a body",
        get(line="HEAD /livez HTTP/1.1") + b"\x00\r\n\r\n",
        ALIVE.partition(b"{")[0] + unreadable("Invalid method encountered"),
    ),
    Row(
        "HEAD on a stream",
        "405 with Allow",
        get(line="HEAD /connection/sse HTTP/1.1"),
        answered(405, "this endpoint takes GET\n", "allow: GET, OPTIONS").partition(b"this")[0],
        Then.KEPT,
    ),
    Row(
        "OPTIONS on `/emulation` and streams",
        "204, as a CORS preflight",
        get(line="OPTIONS /emulation HTTP/1.1"),
        b"HTTP/1.1 204 No Content\r\naccess-control-allow-methods: POST\r\n"
        b"access-control-allow-headers: Content-Type\r\naccess-control-max-age: 86400\r\n\r\n",
        Then.KEPT,
    ),
    Row(
        "another method than an endpoint's, known to HTTP: TRACE, PUT, QUERY",
        "405 with Allow",
        get(line="TRACE /livez HTTP/1.1"),
        NOT_ALLOWED,
        Then.KEPT,
    ),
    Row(
        "GET on `/emulation` or `/connection/http_stream`",
        "405 with Allow",
        get(line="GET /connection/http_stream HTTP/1.1"),
        answered(405, "this endpoint takes POST\n", "allow: POST, OPTIONS"),
        Then.KEPT,
    ),
    Row(
        "GET on `/api/publish`",
        "405 with Allow",
        get(line="GET /api/publish HTTP/1.1"),
        answered(
            405,
            '{"error":{"code":405,"message":"the server API takes POST, with JSON in the body"}}',
            behind=("allow: POST",),
            media_type="application/json",
        ),
        Then.KEPT,
    ),
    Row(
        "GET on a WebSocket endpoint, without an upgrade",
        "426 with Upgrade",
        get(line="GET /connection/websocket HTTP/1.1"),
        ASK_UPGRADE,
        Then.KEPT,
    ),
    Row(
        "POST on a WebSocket endpoint",
        "405 with Allow",
        post("Content-Length: 2", path="/connection/websocket"),
        answered(405, ENDPOINT, "allow: GET, HEAD", behind=READABLE),
        Then.KEPT,
    ),
    Row("CONNECT", "501", get(line="CONNECT hub:80 HTTP/1.1"), refused(501, "this server is not a proxy")),
    Row(
        "a method that HTTP does not know, or in lower case",
        "400",
        get(line="get /livez HTTP/1.1"),
        unreadable("Invalid method encountered"),
    ),
]

HEADERS = [
    Row(
        "a header folded over two lines",
        "400",
        get("X: a", " b"),
        unreadable("Unexpected whitespace after header value"),
    ),
    Row(
        "lines that end in LF alone",
        "400",
        b"GET /livez HTTP/1.1\nHost: hub\n\n",
        unreadable("Expected CRLF after version"),
    ),
    Row(
        "LF or CR alone within a header",
        "400",
        get("X: a\nY: b"),
        unreadable("Missing expected CR after header value"),
    ),
    Row("blank lines before a request", "served", b"\r\n\r\n" + get(), ALIVE, Then.KEPT),
    Row("a space before the colon", "400", get(host="Host : hub"), unreadable("Invalid header token")),
    Row(
        "a space before the first header",
        "400",
        get(host=" Host: hub"),
        unreadable("Unexpected space after start line"),
    ),
    Row("a header without a name or a colon", "400", get("nothing"), unreadable("Invalid header token")),
    Row(
        "NUL or another control character in a header",
        "400",
        get("X: a\x00b"),
        unreadable("Invalid header value char"),
    ),
    Row("a byte over 127 in the value of a header", "served", get("X: \xe9"), ALIVE, Then.KEPT),
    Row(
        "spaces and tabs around the value of a header",
        "ignored",
        get(
            "Transfer-Encoding: \tchunked ",
            line="POST /emulation HTTP/1.1",
            host="Host:  hub \t",
            body="2\r\n{}\r\n0\r\n\r\n",
        ),
        NO_NODE,
        Then.KEPT,
    ),
    Row("several spaces in the request line", "served", get(line="GET  /livez HTTP/1.1"), ALIVE, Then.KEPT),
    Row("a head over 64 KiB", "431", get(f"X: {'a' * 100_000}"), TOO_LARGE, whole=True),
    Row("more than 256 header lines", "431", get(*["X: a"] * 256), TOO_LARGE),
    Row(
        "`Expect: 100-continue`",
        "100 once the app reads the body, then the answer; the connection is closed if the body came later",
        post("Content-Length: 2", "Expect: 100-continue"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + NO_NODE,
        Then.KEPT,
        whole=True,
    ),
    Row(
        "`Expect: 100-continue` in HTTP/1.0",
        "no 100",
        post("Content-Length: 2", "Expect: 100-continue", version="1.0"),
        NO_NODE.replace(b"utf-8\r\n", b"utf-8\r\nconnection: close\r\n"),
    ),
    Row(
        "another expectation",
        "417",
        post("Content-Length: 2", "Expect: magic"),
        refused(417, "the one expectation is 100-continue"),
    ),
]

BODIES = [
    Row(
        "Transfer-Encoding and Content-Length",
        "400",
        post("Content-Length: 2", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
        unreadable("Transfer-Encoding can't be present with Content-Length"),
    ),
    Row(
        "Transfer-Encoding in HTTP/1.0",
        "400",
        post("Transfer-Encoding: chunked", body="0\r\n\r\n", version="1.0"),
        refused(400, "HTTP/1.0 has no Transfer-Encoding"),
    ),
    Row(
        "a Transfer-Encoding beside or in place of `chunked`",
        "501",
        post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"),
        refused(501, "the one Transfer-Encoding is chunked"),
    ),
    Row(
        "two Content-Length lines, alike or not",
        "400",
        post("Content-Length: 2", "Content-Length: 3"),
        unreadable("Duplicate Content-Length"),
    ),
    Row(
        "a Content-Length that is no number: `-1`, `+2`, `2, 2`",
        "400",
        post("Content-Length: +2"),
        unreadable("Invalid character in Content-Length"),
    ),
    Row(
        "a Content-Length over 64 bits",
        "400",
        post("Content-Length: 99999999999999999999999"),
        unreadable("Content-Length overflow"),
    ),
    Row(
        "a chunk size that is no number: `zz`, `0x2`",
        "400",
        chunked("0x2\r\n{}\r\n0\r\n\r\n"),
        unreadable("Invalid character in chunk size"),
    ),
    Row(
        "a chunk size over 64 bits",
        "400",
        chunked("fffffffffffffffff\r\n"),
        unreadable("Chunk size overflow"),
    ),
    Row(
        "a chunk that is longer than its size",
        "400",
        chunked("2\r\n{}}\r\n0\r\n\r\n"),
        unreadable("Expected LF after chunk data"),
    ),
    Row(
        "a chunk size that ends in LF alone",
        "400",
        chunked("2\n{}\n0\n\n"),
        unreadable("Missing expected CR after chunk size"),
    ),
    Row("chunk extensions", "ignored", chunked("2;a=b\r\n{}\r\n0\r\n\r\n"), NO_NODE, Then.KEPT),
    Row(
        "trailers",
        "ignored: none becomes a header",
        chunked("2\r\n{}\r\n0\r\nX-API-Key: a\r\n\r\n"),
        NO_NODE,
        Then.KEPT,
    ),
    Row(
        "trailers, or other framing of a body, over 64 KiB",
        "400",
        chunked("2\r\n{}\r\n0\r\n" + "X: a\r\n" * 100_000),
        refused(400, "the framing of the body is too large"),
        whole=True,
    ),
    Row(
        "GET with a body",
        "the body is read and ignored",
        get("Content-Length: 2", body="{}"),
        ALIVE,
        Then.KEPT,
    ),
    Row(
        "a body to an endpoint that takes none",
        "the body is read and ignored",
        post("Content-Length: 2", path="/livez"),
        NOT_ALLOWED,
        Then.KEPT,
    ),
    Row(
        "`Content-Encoding: gzip`",
        "415",
        post("Content-Length: 2", "Content-Encoding: gzip"),
        answered(415, "a body must not be compressed\n"),
        Then.KEPT,
    ),
    Row(
        "any Content-Type but `application/octet-stream`",
        "the body is read as JSON",
        post("Content-Length: 2", "Content-Type: text/html"),
        NO_NODE,
        Then.KEPT,
    ),
    Row(
        "`application/octet-stream`, in any case of letters",
        "the body is read as Protobuf",
        post("Content-Length: 2", "Content-Type: Application/Octet-Stream; a=b"),
        answered(
            400,
            "not an emulation request: Error parsing message with type 'hub.protocol.EmulationRequest':"
            " Wire format was corrupt\n",
        ),
        Then.KEPT,
    ),
]

ORDER = [
    Row("several requests in one segment", "answered in order", get() * 3, ALIVE * 3, Then.KEPT),
    Row(
        "a request behind a body",
        "answered in order",
        post("Content-Length: 2", path="/livez") + get(),
        NOT_ALLOWED + ALIVE,
        Then.KEPT,
    ),
    Row(
        "a request, and garbage behind it",
        "answered; then 400",
        get() + b"garbage\r\n\r\n",
        ALIVE + unreadable("Invalid method encountered"),
    ),
    Row(
        "a request, and one with a broken body behind it",
        "answered; then 400",
        get() + chunked("zz\r\n"),
        ALIVE + unreadable("Invalid character in chunk size"),
    ),
    Row(
        "more than 32 requests that wait for the answer to an earlier one",
        "33 are answered; then 400",
        get() * 50,
        ALIVE * 33 + refused(400, "too many requests wait for an earlier response"),
        whole=True,
    ),
    Row(
        "a request behind one with `Connection: close`",
        "ignored",
        get("Connection: close") + get(),
        ALIVE_CLOSE,
    ),
    Row(
        "a request, and a WebSocket handshake behind it",
        "answered; then 101",
        get() + shake(),
        ALIVE + UPGRADED,
        Then.WEBSOCKET,
    ),
    Row(
        "a request, and a handshake behind it that is refused",
        "answered; then refused",
        get() + shake(key="Sec-WebSocket-Key: short"),
        ALIVE + OLD_KEY,
    ),
    Row(
        "frames in the segment of the handshake",
        "read as frames",
        shake() + frame(Opcode.TEXT, CONNECT.encode()),
        UPGRADED + text_frame(UNAUTHORIZED),
        Then.WEBSOCKET,
    ),
]

UPGRADES = [
    Row(
        "`Upgrade: h2c` on a request with a body, as Java's `HttpClient` sends",
        "the upgrade is ignored, the body read",
        post(
            "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAM", "Content-Length: 2"
        ),
        NO_NODE,
        Then.KEPT,
    ),
    Row(
        "`Upgrade: h2c` on a request with chunks",
        "the upgrade is ignored, the body read",
        post(
            "Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", body="2\r\n{}\r\n0\r\n\r\n"
        ),
        NO_NODE,
        Then.KEPT,
    ),
    Row(
        "`Upgrade: h2c` on GET",
        "the upgrade is ignored",
        get("Connection: Upgrade", "Upgrade: h2c"),
        ALIVE,
        Then.KEPT,
    ),
    Row(
        "`Connection: close, Upgrade` and `Upgrade: h2c`",
        "the upgrade is ignored",
        get("Connection: close, Upgrade", "Upgrade: h2c"),
        ALIVE_CLOSE,
    ),
    Row(
        "`Upgrade: websocket` on POST",
        "the upgrade is ignored, the body read",
        shake("Content-Length: 2", line="POST /emulation HTTP/1.1") + b"{}",
        NO_NODE,
        Then.KEPT,
    ),
    Row(
        "`Upgrade: websocket` in HTTP/1.0",
        "the upgrade is ignored",
        shake(line="GET /connection/websocket HTTP/1.0"),
        LOST_UPGRADE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1),
    ),
    Row(
        "`Upgrade: websocket` without `Connection: Upgrade`",
        "the upgrade is ignored",
        shake(upgrade=("Upgrade: websocket",)),
        LOST_UPGRADE,
        Then.KEPT,
    ),
    Row(
        "`Connection: Upgrade` and `Connection: keep-alive`, in lines of their own and any order",
        "101",
        shake(upgrade=("Connection: Upgrade", "Upgrade: websocket", "Connection: keep-alive")),
        UPGRADED,
        Then.WEBSOCKET,
    ),
    Row(
        "`Connection: keep-alive, Upgrade`, in any case of letters",
        "101",
        shake(upgrade=("connection: keep-alive ,\tUPGRADE", "upgrade: WebSocket")),
        UPGRADED,
        Then.WEBSOCKET,
    ),
    Row(
        "`Upgrade: websocket, foo` or `Upgrade: foo, websocket`",
        "101",
        shake(upgrade=("Connection: Upgrade", "Upgrade: foo/1, websocket")),
        UPGRADED,
        Then.WEBSOCKET,
    ),
    Row(
        "a handshake with a body",
        "400",
        shake("Content-Length: 2") + b"{}",
        refused(400, "a WebSocket handshake has no body"),
    ),
    Row(
        "another Sec-WebSocket-Version, none, or several",
        "426 with the version",
        shake(version="Sec-WebSocket-Version: 8"),
        OLD_VERSION,
    ),
    Row("Sec-WebSocket-Key missing", "400", shake(key=""), OLD_KEY),
    Row(
        "a Sec-WebSocket-Key that is not 16 bytes in base64",
        "400",
        shake(key="Sec-WebSocket-Key: c2hvcnQ="),
        OLD_KEY,
    ),
    Row("two Sec-WebSocket-Key lines", "400", shake(KEY), OLD_KEY),
    Row(
        "subprotocols that the hub does not speak",
        "101 without a subprotocol: JSON",
        shake("Sec-WebSocket-Protocol: chat, superchat"),
        UPGRADED,
        Then.WEBSOCKET,
    ),
    Row(
        "subprotocols of which the hub speaks some",
        "101 with the client's first of them",
        shake("Sec-WebSocket-Protocol: chat, centrifuge-protobuf, centrifuge-json"),
        UPGRADED[:-2] + b"Sec-WebSocket-Protocol: centrifuge-protobuf\r\n\r\n",
        Then.WEBSOCKET,
    ),
    Row(
        "extensions that the hub does not know, or compression where it is off",
        "101 without extensions",
        shake("Sec-WebSocket-Extensions: x-foo, permessage-deflate"),
        UPGRADED,
        Then.WEBSOCKET,
    ),
    Row(
        "a handshake on a path without a WebSocket",
        "404",
        shake(line="GET /nowhere HTTP/1.1"),
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 82\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n\r\n"
        b"no WebSocket is at this path: clients of the hub connect to /connection/websocket\n",
    ),
    Row(
        "a token in the URL",
        "400",
        shake(line="GET /connection/websocket?token=a HTTP/1.1"),
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 67\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n\r\na token in the URL would be logged: send it in the connect command\n",
    ),
]


LATE = refused(408, "the request did not come in time")
LATE_BODY = answered(408, "the body took over 0.5 s\n")

TIMES = [
    Drip("a connection on which nothing comes", "closed after `server.handshake_timeout_s`", b"", b"", b""),
    Drip(
        "a head that drips",
        "408 after `server.handshake_timeout_s`",
        b"GET /livez HTTP/1.1\r\nX: ",
        b"x",
        LATE,
    ),
    Drip(
        "the request line of HTTP/0.9, and nothing behind it",
        "408 after `server.handshake_timeout_s`",
        b"GET /livez\r\n",
        b"",
        LATE,
    ),
    Drip("blank lines that drip", "closed after `server.handshake_timeout_s`", b"", b"\r\n", b""),
    Drip(
        "a body that drips",
        "408 after `client.connect_timeout_s`; 10 s for `/api/…`",
        post("Content-Length: 1000000", body=""),
        b"x",
        LATE_BODY,
    ),
    Drip(
        "trailers that drip",
        "408 after `client.connect_timeout_s`; 10 s for `/api/…`",
        chunked("2\r\n{}\r\n0\r\n"),
        b"X: a\r\n",
        LATE_BODY,
    ),
    Drip(
        "a body that drips behind its answer",
        "closed after 2 s",
        post("Content-Length: 1000000", path="/livez", body=""),
        b"x",
        NOT_ALLOWED,
    ),
    Drip("an idle connection", "closed after `server.keep_alive_s`", get(), b"", ALIVE),
]

TABLES = {
    "Versions": VERSIONS,
    "Host": HOSTS,
    "Request targets": TARGETS,
    "Methods": METHODS,
    "Heads": HEADERS,
    "Bodies": BODIES,
    "Order": ORDER,
    "Upgrades and the WebSocket handshake": UPGRADES,
}
ROWS = [row for rows in TABLES.values() for row in rows]


def served() -> contextlib.AbstractAsyncContextManager[Running]:
    """A hub whose client has half a second to connect."""
    return running(sdk.settings({"connect_timeout_s": 0.5}, server={"lag_max_s": 0}))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
async def test_a_row_in_one_segment(row: Row) -> None:
    async with served() as server:
        assert await exchange(server.port, row.sent + row.then.value) == row.received + ENDS[row.then]


async def test_the_rows_in_many_segments() -> None:
    async with served() as server:
        for row in ROWS:
            if not row.whole:
                pieces = [bytes((byte,)) for byte in row.sent + row.then.value]
                assert await exchange(server.port, *pieces) == row.received + ENDS[row.then], row.what


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (get("Connection: close"), b""),
        (get(line="GET /livez HTTP/1.0"), b""),
        (post("Content-Length: 2", "Expect: 100-continue", body=""), b"{}"),
    ],
    ids=["Connection: close", "HTTP/1.0", "a body that comes after its head"],
)
async def test_a_client_that_sends_more_behind_the_last_answer_is_not_reset(head: bytes, body: bytes) -> None:
    """A reset may cost the client the answer (RFC 9112 section 9.6)."""
    loop = asyncio.get_running_loop()
    async with served() as server, asyncio.timeout(WAIT_S):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, head)
            if body:
                assert b"100 Continue" in await loop.sock_recv(sock, 65_536)
                await loop.sock_sendall(sock, body)
            answer = b""
            while piece := await loop.sock_recv(sock, 65_536):
                answer += piece
            assert b"connection: close" in answer
            for _ in range(3):
                await loop.sock_sendall(sock, get())


@pytest.mark.parametrize("row", TIMES, ids=lambda row: row.what)
async def test_a_request_that_comes_too_slowly(row: Drip) -> None:
    limits = {"handshake_timeout_s": 0.5, "keep_alive_s": 0.5, "lag_max_s": 0}
    async with running(sdk.settings({"connect_timeout_s": 0.5}, server=limits)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(row.begin)
        received = asyncio.create_task(read_all(reader))
        try:
            async with asyncio.timeout(WAIT_S):
                while not received.done():
                    writer.write(row.piece)
                    await asyncio.wait({received}, timeout=0.1)
            assert await received == row.received
        finally:
            received.cancel()
            writer.transport.abort()


def test_the_page_has_these_rows() -> None:
    expected = {title: [(row.what, row.answer) for row in rows] for title, rows in TABLES.items()}
    expected["Time limits"] = [(row.what, row.answer) for row in TIMES]
    found: dict[str, list[tuple[str, str]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
        if len(cells) > 2 and cells[0][:2] == ["request", "answer"]:
            found[title] = [(row[0], row[1]) for row in cells[2:]]
    assert found == expected
