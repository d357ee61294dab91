"""WebSocket handshakes over a socket: the hub's answer beside that of PyPI `websockets`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import AsyncIterator

from support.rawws import frame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from loadtests.fuzz.http_model import Stream
from loadtests.fuzz.mutate import mutate
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import LiveTarget
from loadtests.fuzz.targets.client_frames import hear_websockets
from loadtests.fuzz.targets.handshakes import FIELDS, OPTIONAL
from loadtests.fuzz.targets.handshakes import WORDS as FIELD_WORDS
from loadtests.fuzz.targets.http import WORDS as HTTP_WORDS
from loadtests.fuzz.wire import Answer, connect, read_answer

PATH = "/connection/websocket"
PAUSE_S = 0.05
"""For so long a handshake that is not whole is left open."""

_SPACES = re.compile(rb"GET {2,}[^ ]+ HTTP/1\.1\r\n")
_SILENT = logging.getLogger("loadtests.fuzz.silent")
WORDS = (
    *FIELD_WORDS,
    *(word for word in HTTP_WORDS if len(word) < 1000),
    *(
        b"Upgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
        b"Upgrade, keep-alive",
        b"websocket, foo",
        b"WebSocket",
    ),
    *(
        b"Connection: keep-alive\r\n",
        b"Connection: Upgrade\r\n",
        b"Connection: close\r\n",
        b"Origin: null\r\n",
    ),
)


class Upgrades(LiveTarget):
    name = "upgrades"

    def draw(self, chance: random.Random) -> bytes:
        lines = [b"host: 127.0.0.1", *FIELDS, *chance.sample(OPTIONAL, chance.randrange(3))]
        chance.shuffle(lines)
        fields = b"\r\n".join(lines) + b"\r\n"
        if chance.random() < 0.8:
            fields = mutate(fields, chance, WORDS)
        head = f"GET {PATH} HTTP/1.1\r\n".encode() + fields + b"\r\n"
        return mutate(head, chance, WORDS) if chance.random() < 0.1 else head

    async def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        status, why, request = judge(data)
        broken = Stream(data).broken
        reader, writer = await connect(stage.port)
        try:
            writer.write(data)
            if status is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_S):
                        await reader.read(1)
                return
            answer = await read_answer(reader)
            rule = next(
                (each for each in broken if answer is not None and each.status == answer.status), None
            )
            if rule is not None:
                if status == 101:
                    yield f"hub refuses: {rule.what}"
            elif answer is not None and answer.status >= 500:
                yield f"hub answers {answer.status}"
            elif answer is not None and answer.status == 101:
                if status != 101:
                    yield f"hub accepts, websockets refuses: {why}"
                _, _, behind = data.partition(b"\r\n\r\n")
                async for kind in _use(reader, writer, behind):
                    yield kind
            elif status == 101 and not _is_refused_by_rule(request):
                yield f"hub refuses: {_has_empty_element(request) or _text(answer)}"
        except TimeoutError:
            yield f"no answer to a handshake: websockets says {why or status}"
        except ValueError as exc:
            yield f"unreadable answer: {exc}"
        finally:
            writer.transport.abort()


def judge(data: bytes) -> tuple[int | None, str, Request | None]:
    """The status that `websockets` answers with, None where it waits for more; why; and the request."""
    protocol = ServerProtocol(logger=_SILENT)
    protocol.receive_data(data)
    events = protocol.events_received()
    if not events:
        exc = protocol.handshake_exc or protocol.parser_exc
        if exc is None:
            return None, "", None
        return 400, "several spaces in the first line" if _SPACES.match(data) else "a malformed request", None
    request = events[0]
    assert isinstance(request, Request)
    status = protocol.accept(request).status_code
    name = getattr(protocol.handshake_exc, "name", type(protocol.handshake_exc).__name__)
    return status, "" if status == 101 else name, request


def _is_refused_by_rule(request: Request | None) -> bool:
    """Whether the hub refuses a request for what it asks, not for how: an origin, a token, another path."""
    assert request is not None
    return bool(request.headers.get_all("Origin")) or request.path != PATH


def _has_empty_element(request: Request | None) -> str:
    """Which list of the request has an element that is empty."""
    assert request is not None
    lists = {name: ",".join(request.headers.get_all(name)).split(",") for name in ("Connection", "Upgrade")}
    names = [name for name, elements in lists.items() if not all(map(str.strip, elements))]
    return f"an empty element in {names[0]}" if names else ""


async def _use(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: bytes
) -> AsyncIterator[str]:
    """Ping over a WebSocket that was accepted.

    Args:
        reader, writer: of the connection.
        behind: what was sent behind the handshake, which are frames (RFC 6455 section 4.1), good or bad.
    """
    ping = frame(Opcode.PING, b"fuzz")
    writer.write(ping)
    heard = hear_websockets(behind + ping, inflates=False)
    if heard.pings != [b"fuzz"] and not heard.code:
        return  # the bytes behind the handshake begin a long frame, or are frames that the protocol answers
    expected = b"\x88" if heard.code else b"\x8a\x04fuzz"
    async with asyncio.timeout(20.0):
        with contextlib.suppress(ConnectionError):
            if await reader.read(len(expected)) != expected:
                yield f"no {'close frame' if heard.code else 'pong'} over an accepted WebSocket"


def _text(answer: Answer | None) -> str:
    return "no answer" if answer is None else answer.body[:60].decode("latin-1").strip()
