"""HTTP requests over a socket: what the hub's server hands to an app beside what `http_model` reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence

from loadtests.fuzz.app import ECHO
from loadtests.fuzz.http_model import Read, Stream
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
REFUSALS = (400, 408, 413, 414, 417, 431, 501, 505)
"""Statuses with which the server refuses requests. The paths that are asked for answer with none of them."""

LARGE_BYTES = 65_536
"""A stream that is longer may be refused for its size before it is for anything else."""

WAITING_MAX = 33
"""Requests that are answered in any case, however many are sent at once."""


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
        stream = Stream(data)
        count = len(stream.requests) + (stream.end in ("refused", "malformed"))
        reader, writer = await connect(stage.port)
        answers: list[Answer] = []
        try:
            # Small pieces now and then: what a segment holds must not matter.
            size = len(data) if len(data) % 4 else 1 + len(data) // 7
            for at in range(0, len(data), size or 1):
                if writer.transport.is_closing():
                    break
                writer.write(data[at : at + size])
                await asyncio.sleep(0)
            while len(answers) < count:
                answer = await read_answer(reader, has_body=_has_body(stream, len(answers)))
                if answer is None:
                    break
                answers.append(answer)
            if answers and answers[-1].closes:
                async with asyncio.timeout(20.0):
                    with contextlib.suppress(ConnectionError):
                        rest = await reader.read()
                        if rest and answers[-1].status not in REFUSALS:
                            yield "bytes behind the last answer"
        except TimeoutError:
            yield f"no answer and no end: {stream.end or 'whole requests'}"
        except ValueError as exc:
            yield f"unreadable answer: {exc}"
        finally:
            writer.transport.abort()
        for kind in _compare(stream, answers):
            yield kind


def _has_body(stream: Stream, number: int) -> bool | None:
    """Whether the answer to a request of a stream has a body; None where it may have one.

    Of a malformed request the hub may know the method HEAD or not: it depends on the segments.
    """
    if number < len(stream.requests):
        return stream.requests[number].method != "HEAD"
    if stream.end == "malformed":
        return None
    return stream.current is None or stream.current.method != "HEAD"


def _compare(stream: Stream, answers: Sequence[Answer]) -> list[str]:
    kinds: list[str] = []
    is_large = stream.size > LARGE_BYTES
    for number, (request, answer) in enumerate(zip(stream.requests, answers, strict=False)):
        if answer.status in REFUSALS:
            if number >= WAITING_MAX and answer.status == 400:
                return [*kinds, "hub refuses: more than 32 requests that wait"]
            if is_large and answer.status == 400 and b"the framing" in answer.body:
                return [*kinds, "hub refuses: over 64 KiB of framing"]
            return [*kinds, f"hub refuses with {answer.status}: {_text(answer)}"]
        if request.path == ECHO and request.method != "HEAD":
            kinds += _echoed(request.served(), answer)
        elif answer.status >= 500:
            kinds.append(f"the hub answers {answer.status}")
        if answer.closes or not request.keeps_alive:
            return kinds
    if len(answers) < len(stream.requests):
        return [*kinds, "fewer answers than requests"]
    if stream.end in ("refused", "malformed"):
        return [*kinds, *_ended(stream, answers[len(stream.requests) :], is_large)]
    return kinds


def _ended(stream: Stream, answers: Sequence[Answer], is_large: bool) -> list[str]:
    """Judge the answer to the request with which the stream ends."""
    if not answers:
        return [f"no answer to a request that is {stream.end}"]
    status = answers[0].status
    for rule in stream.broken:
        if status == rule.status:
            return [f"hub refuses: {rule.what}"] if stream.end == "refused" else []
    if stream.end == "refused":
        return [f"hub answers {status}: {stream.broken[0].what}"]
    # An app may answer a request before its body is found to be malformed.
    is_served = stream.current is not None and stream.current.version != "" and status not in REFUSALS
    if status == 400 or is_served or (is_large and status in (414, 431)):
        return []
    return [f"hub answers {status} to a malformed request: {_text(answers[0])}"]


def _text(answer: Answer) -> str:
    return answer.body[:40].decode("latin-1").strip()


def _echoed(request: Read, answer: Answer) -> list[str]:
    if answer.status != 200:
        return [f"the hub answers {answer.status} in place of the app"]
    echo = json.loads(answer.body)
    found = []
    if (echo["method"], echo["version"]) != (request.method, request.version):
        found.append("another method or version")
    if echo["target"].rstrip("?") != request.target.decode("latin-1").rstrip("?"):
        found.append("another target")
    if echo["headers"] != request.headers:
        found.append("other headers")
    if bytes.fromhex(echo["body"]) != request.body:
        found.append("another body")
    return found
