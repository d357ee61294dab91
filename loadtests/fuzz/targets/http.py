"""HTTP requests over a socket: what the hub's server hands to an app beside what `httptools` reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httptools

from loadtests.fuzz.app import ECHO
from loadtests.fuzz.mutate import ODD_BYTES, mutate
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import LiveTarget
from loadtests.fuzz.wire import Answer, connect, read_answer

PATHS = (*(f"{ECHO}?a=b", ECHO, ECHO, ECHO, ECHO, f"{ECHO}?x=%41%zz&y"), "/livez", "/api/info", "/nothing")
METHODS = ("GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH")
FIELDS = (
    *(
        "Accept: */*",
        "User-Agent: fuzz",
        "X-Empty:",
        "Cookie: a=b; c=d",
        "Expect: 100-continue",
        "TE: trailers",
    ),
    *(
        "Connection: keep-alive",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "X-A: 1",
        "X-A: 2",
        "Range: bytes=0-1",
    ),
    *(
        "Accept-Encoding: gzip",
        "X-Forwarded-For: 1.2.3.4",
        "Content-Type: application/json",
        "Origin: http://a.b",
    ),
)
WORDS = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b": ",
        b";",
        b",",
        b"0\r\n\r\n",
        b"\r\n ",
        b"\r\n\t",
    ),
    *(
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"HTTP/2.0",
        b"HTTP/0.9",
        b"http://hub/echo",
        b"*",
        b"/../",
        b"/%2e%2e/",
        b"#",
        b"?",
    ),
    *(
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"CONNECT ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"5, 5",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: x\r\n",
    ),
    *(
        b"Host: hub\r\n",
        b"Host:\r\n",
        b"Connection: close\r\n",
        b"5\r\nhello\r\n",
        b"ffffffffffffffff\r\n",
        b"0x5\r\n",
    ),
    *(
        b"X: " + b"a" * 70_000 + b"\r\n",
        b"X: y\r\n" * 300,
        b"5;ext=1\r\n",
        b"X\x00: y\r\n",
        b"\xc3\xa9: 1\r\n",
    ),
    *ODD_BYTES,
)
REFUSALS = (400, 413, 431)


@dataclass
class Read:
    """A request as `httptools` reads it."""

    method: str = ""
    target: bytes = b""
    version: str = ""
    headers: list[list[str]] = field(default_factory=list)
    body: bytes = b""
    keeps_alive: bool = True

    def values(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for key, value in self.headers if key == name]


class _Parser:
    """Collects the whole requests in a stream of bytes, and why there are no more."""

    def __init__(self, data: bytes) -> None:
        self.requests: list[Read] = []
        self.ended = ""
        self._current: Read | None = None
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.ended = "an upgrade"
        except httptools.HttpParserError:
            self.ended = "malformed"
        else:
            self.ended = "" if self._current is None else "unfinished"

    def on_message_begin(self) -> None:
        self._current = Read()

    def on_url(self, url: bytes) -> None:
        assert self._current is not None
        self._current.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._current is not None
        if not self._current.version:  # else it is a trailer
            self._current.headers.append([name.decode("latin-1").lower(), value.decode("latin-1")])

    def on_headers_complete(self) -> None:
        assert self._current is not None
        self._current.version = self._parser.get_http_version()
        self._current.method = self._parser.get_method().decode("ascii")
        self._current.keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        assert self._current is not None
        self._current.body += body

    def on_message_complete(self) -> None:
        assert self._current is not None
        self.requests.append(self._current)
        self._current = None


def draw_request(chance: random.Random, *, is_last: bool) -> bytes:
    """Return a request."""
    method = chance.choice(METHODS)
    lines = [f"{method} {chance.choice(PATHS)} HTTP/{chance.choice(('1.1',) * 9 + ('1.0',))}", "Host: hub"]
    lines += chance.sample(FIELDS, chance.randrange(4))
    body = b""
    if method in ("POST", "PUT", "PATCH"):
        body = chance.choice((b"", b"hello", b"x" * 3000, chance.randbytes(40)))
        if chance.random() < 0.5:
            lines.append("Transfer-Encoding: chunked")
            body = _chunked(body, chance)
        else:
            lines.append(f"Content-Length: {len(body)}")
    if is_last and chance.random() < 0.7:
        lines.append("Connection: close")
    return "\r\n".join((*lines, "\r\n")).encode() + body


def _chunked(body: bytes, chance: random.Random) -> bytes:
    chunks = b""
    while body:
        size = chance.randint(1, len(body))
        extension = chance.choice((b"", b"", b";a", b';a="b"'))
        chunks += b"%x%b\r\n%b\r\n" % (size, extension, body[:size])
        body = body[size:]
    return chunks + b"0\r\n" + chance.choice((b"", b"", b"X-Trailer: 1\r\n")) + b"\r\n"


class HTTP(LiveTarget):
    name = "http"

    def draw(self, chance: random.Random) -> bytes:
        count = chance.choice((1, 1, 2, 3))
        data = b"".join(draw_request(chance, is_last=number == count - 1) for number in range(count))
        return mutate(data, chance, WORDS) if chance.random() < 0.75 else data

    async def check(self, data: bytes, stage: Stage) -> AsyncIterator[str]:
        parsed = _Parser(data)
        requests = parsed.requests
        reader, writer = await connect(stage.port)
        answers: list[Answer] = []
        ended = False
        try:
            # Small pieces now and then: what a segment holds must not matter.
            size = len(data) if len(data) % 4 else 1 + len(data) // 7
            for at in range(0, len(data), size or 1):
                if writer.transport.is_closing():
                    break
                writer.write(data[at : at + size])
                await asyncio.sleep(0)
            while not ended and (len(answers) < len(requests) or parsed.ended == "malformed"):
                method = requests[len(answers)].method if len(answers) < len(requests) else ""
                answer = await read_answer(reader, has_body=method != "HEAD")
                if answer is None:
                    ended = True
                else:
                    answers.append(answer)
            if not ended and answers and answers[-1].closes:
                async with asyncio.timeout(20.0):
                    with contextlib.suppress(ConnectionError):
                        await reader.read()
        except TimeoutError:
            if parsed.ended != "an upgrade" or not answers:
                yield f"no answer and no end: {parsed.ended or 'whole requests'}"
        except ValueError as exc:
            yield f"unreadable answer: {exc}"
        finally:
            writer.transport.abort()
        for kind in _compare(requests, parsed.ended, answers):
            yield kind


def _compare(requests: Sequence[Read], ended: str, answers: Sequence[Answer]) -> list[str]:
    kinds = [f"the hub answers {each.status}" for each in answers if each.status >= 500]
    is_cut = ended in ("malformed", "an upgrade") and 0 < len(answers) <= len(requests)
    if is_cut and answers[-1].status in REFUSALS:
        kinds.append("an answer is dropped for a malformed request behind it")
        answers = answers[:-1]
    for request, answer in zip(requests, answers, strict=False):
        if answer.status in REFUSALS:
            if request.target.partition(b"?")[0] == ECHO.encode():
                kinds.append(_refusal(request, answer))
            break
        if request.target.partition(b"?")[0] == ECHO.encode() and request.method != "HEAD":
            kinds += _echoed(request, answer)
        if answer.closes or not request.keeps_alive:
            break
    else:
        if len(answers) < len(requests) and not ended:
            kinds.append("fewer answers than requests")
    # A request may be answered before it is whole, and what makes it malformed is refused after that.
    if len(answers) > len(requests) + {"malformed": 2, "unfinished": 1}.get(ended, 0):
        kinds.append("more answers than requests")
    return kinds


def _refusal(request: Read, answer: Answer) -> str:
    if request.version == "1.1" and len(request.values("host")) != 1:
        return "hub refuses: no Host, or several"
    return f"hub refuses with {answer.status}: {answer.body[:40].decode('latin-1').strip()}"


def _echoed(request: Read, answer: Answer) -> list[str]:
    if answer.status != 200:
        return [f"the hub answers {answer.status} in place of the app"]
    echo = json.loads(answer.body)
    # The server takes the scheme and host off a target in absolute form, and a fragment.
    target = request.target.partition(b"#")[0].decode("latin-1")
    found = []
    if (echo["method"], echo["version"]) != (request.method, request.version):
        found.append("another method or version")
    if echo["target"].rstrip("?") != target.rstrip("?"):
        found.append("another target")
    if echo["headers"] != request.headers:
        found.append("other headers")
    if bytes.fromhex(echo["body"]) != request.body:
        found.append("another body")
    return found
