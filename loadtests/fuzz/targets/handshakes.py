"""Opening handshakes: the hub's reader of a request's fields beside the one of PyPI `websockets`."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol

from hub.protocol import handshake, heads
from loadtests.fuzz.mutate import ODD_BYTES, mutate
from loadtests.fuzz.target import PureTarget

_SILENT = logging.getLogger("loadtests.fuzz.silent")

FIELDS = (
    b"connection: Upgrade",
    b"upgrade: websocket",
    b"sec-websocket-version: 13",
    b"sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==",
)
OPTIONAL = (
    b"sec-websocket-protocol: centrifuge-json",
    b"sec-websocket-protocol: other, centrifuge-protobuf , hub-msgpack",
    b"sec-websocket-extensions: permessage-deflate",
    b"sec-websocket-extensions: permessage-deflate; client_max_window_bits",
    b"sec-websocket-extensions: permessage-deflate; server_max_window_bits=10; server_no_context_takeover",
    b'sec-websocket-extensions: x; y="z", permessage-deflate; client_max_window_bits="12"',
    b"sec-websocket-extensions: permessage-deflate; client_no_context_takeover, permessage-deflate",
    b"origin: http://127.0.0.1:8000",
    b"cookie: a=b",
)
WORDS = (
    *(b"permessage-deflate", b"server_max_window_bits=", b"client_max_window_bits", b"_no_context_takeover"),
    *(
        b"; ",
        b", ",
        b"=",
        b'"',
        b"\\",
        b"7",
        b"8",
        b"9",
        b"15",
        b"16",
        b"08",
        b"+13",
        b"13, 13",
        b"==",
        b"A",
        b"-",
    ),
    *(b"x-webkit-deflate-frame", b"\xc3\xa9", b"centrifuge-json", b"sec-websocket-key: x", b"\r\n", b"\r\n"),
    *ODD_BYTES,
)


class Handshakes(PureTarget):
    name = "handshakes"

    def draw(self, chance: random.Random) -> bytes:
        """Return fields, a line each."""
        lines = [*FIELDS, *chance.sample(OPTIONAL, chance.randrange(4))]
        if chance.random() < 0.2:
            lines.append(chance.choice(lines[2:]))
        if chance.random() < 0.1:
            del lines[chance.randrange(2, len(lines))]
        chance.shuffle(lines)
        at = chance.randrange(len(lines))
        name, colon, value = lines[at].partition(b": ")
        if chance.random() < 0.8 and name not in (b"connection", b"upgrade"):
            lines[at] = name + colon + mutate(value, chance, WORDS)
        return b"\r\n".join(lines)

    def check(self, data: bytes) -> Iterator[str]:
        headers = []
        for line in data.split(b"\r\n"):
            name, _, value = line.partition(b":")
            value = value.strip(b" \t")
            if any((byte < 0x20 and byte != 9) or byte == 0x7F for byte in value):
                return  # no HTTP parser passes such a field on
            headers.append((name.lower(), value))
        request = Request("/", _headers(headers))
        protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory(True, True)], logger=_SILENT)
        theirs = protocol.accept(request)
        if not heads.is_handshake("GET", "1.1", headers):
            if theirs.status_code == 101:
                yield "hub ignores the upgrade, websockets accepts"
            return
        ours = handshake.read(headers, compresses=True)
        if isinstance(ours, heads.Refusal):
            if theirs.status_code == 101:
                yield f"hub refuses: {ours.text}"
            elif int(ours.status[:3]) != theirs.status_code:
                yield f"hub answers {ours.status[:3]}, websockets {theirs.status_code}"
            return
        if theirs.status_code != 101:
            yield f"hub accepts, websockets refuses: {_why(protocol)}"
            return
        answer = ours.accept().decode("latin-1").split("\r\n")
        if f"Sec-WebSocket-Accept: {theirs.headers['Sec-WebSocket-Accept']}" not in answer:
            yield "another Sec-WebSocket-Accept"
        agreed = theirs.headers.get("Sec-WebSocket-Extensions")
        if agreed != (ours.compression.header if ours.compression else None):
            yield "another extension is agreed on"


def _headers(headers: list[tuple[bytes, bytes]]) -> Headers:
    found = Headers()
    for name, value in headers:
        found[name.decode("latin-1")] = value.decode("latin-1")
    return found


def _why(protocol: ServerProtocol) -> str:
    """The field that is refused, or the whole reason."""
    field = getattr(protocol.handshake_exc, "name", None)
    return str(field or protocol.handshake_exc)
