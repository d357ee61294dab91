"""RFC 6455 and RFC 7692 at the hub's socket, by the sections of the Autobahn test suite.

That suite's fuzzing client runs on no Python that is maintained, so its cases are written here anew: framing
(1), pings and pongs (2), reserved bits (3), opcodes (4), fragmentation (5), UTF-8 (6), close handling (7),
limits (9), auto-fragmentation (10) and compression (12, 13). Each case is one connection to a server that
sends text back; the first seven sections run with compression negotiated and without.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from support.edge import AttachingApp
from support.rawws import RawWebSocket, frame
from support.server import running
from websockets.frames import Opcode

from hub.config import load

CONT, TEXT, BINARY, CLOSE, PING, PONG = (
    Opcode.CONT,
    Opcode.TEXT,
    Opcode.BINARY,
    Opcode.CLOSE,
    Opcode.PING,
    Opcode.PONG,
)
LIMIT = 1 << 20
HELLO = frame(TEXT, b"Hello")
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate"}

Received: TypeAlias = list[tuple[int, bytes]]


class Echo:
    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self.port = port
        self.headers = headers

    async def answer(self, sent: bytes, chop: int = 0, headers: dict[str, str] | None = None) -> Received:
        """What the server says to these bytes and to a close behind them, its close frame at the end."""
        offered = self.headers if headers is None else headers
        async with await RawWebSocket.connect(self.port, "/", offered) as client:
            if chop:
                for start in range(0, len(sent), chop):
                    client.send(sent[start : start + chop])
                    await client.writer.drain()
                    await asyncio.sleep(0)
            else:
                client.send(sent)
            client.send(frame(CLOSE, (1000).to_bytes(2, "big")))
            received = []
            while (got := await client.read_frame()) is not None:
                received.append(got)
            return received


@asynccontextmanager
async def echo(*, compression: bool) -> AsyncIterator[Echo]:
    overrides = {
        "client": {"message_bytes_max": LIMIT},
        "server": {"compression": compression, "lag_max_s": 0},
    }
    async with running(AttachingApp(echo=True), load(overrides=overrides, env={})) as server:
        yield Echo(server.port, OFFER if compression else {})


@pytest.fixture(params=[False, True], ids=["plain", "deflate"])
async def server(request: Any) -> AsyncIterator[Echo]:
    async with echo(compression=request.param) as running_echo:
        yield running_echo


def code(received: Received) -> int:
    """The code of the close frame at the end; 1006 where there is none."""
    if not received or received[-1][0] != CLOSE:
        return 1006
    return int.from_bytes(received[-1][1][:2], "big") or 1005


def texts(received: Received) -> list[bytes]:
    return [data for opcode, data in received if opcode == TEXT]


def pongs(received: Received) -> list[bytes]:
    return [data for opcode, data in received if opcode == PONG]


def fragments(opcode: int, data: bytes, size: int) -> list[bytes]:
    parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    return [
        frame(opcode if number == 0 else CONT, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


async def passes(server: Echo, cases: Iterable[tuple[str, bytes, list[bytes]]], chop: int = 0) -> None:
    for name, sent, expected in cases:
        received = await server.answer(sent, chop)
        assert (texts(received), code(received)) == (expected, 1000), name


async def fails(server: Echo, closed: int, cases: Iterable[tuple[str, bytes]], before: int = 0) -> None:
    for name, sent in cases:
        received = await server.answer(sent)
        assert (len(texts(received)), code(received)) == (before, closed), name


# 1: framing


@pytest.mark.parametrize("chop", [0, 1, 997])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_1_every_length(server: Echo, opcode: int, chop: int) -> None:
    sizes = [0, 125, 126, 127, 128] + ([65_535, 65_536] if chop != 1 else [])
    await passes(
        server, ((f"{size} bytes", frame(opcode, b"*" * size), [b"*" * size]) for size in sizes), chop
    )


# 2: pings and pongs


@pytest.mark.parametrize("chop", [0, 1])
async def test_2_a_ping_is_answered_with_its_payload(server: Echo, chop: int) -> None:
    for payload in (b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125):
        received = await server.answer(frame(PING, payload), chop)
        assert (pongs(received), code(received)) == ([payload], 1000)


async def test_2_a_ping_is_at_most_125_bytes(server: Echo) -> None:
    await fails(server, 1002, [("126", frame(PING, b"\xfe" * 126))])


async def test_2_a_pong_that_nobody_asked_for_is_passed_over(server: Echo) -> None:
    for payload in (b"", b"unsolicited"):
        received = await server.answer(frame(PONG, payload) + frame(PING, b"x"))
        assert (pongs(received), code(received)) == ([b"x"], 1000)


@pytest.mark.parametrize("chop", [0, 1])
async def test_2_ten_pings_are_answered_in_order(server: Echo, chop: int) -> None:
    payloads = [b"payload-%d" % number for number in range(10)]
    received = await server.answer(b"".join(frame(PING, payload) for payload in payloads), chop)
    assert (pongs(received), code(received)) == (payloads, 1000)


# 3 and 4: reserved bits, reserved opcodes


async def test_3_reserved_bits_are_refused() -> None:
    async with echo(compression=False) as plain:
        for bits, opcode in itertools.product(range(1, 8), (TEXT, BINARY, PING, CLOSE)):
            lie = bytearray(frame(opcode, b""))
            lie[0] |= bits << 4
            await fails(plain, 1002, [(f"bits {bits} of {opcode}", HELLO + bytes(lie) + HELLO)], before=1)
    async with echo(compression=True) as deflating:
        for bits in (1, 2, 3):
            lie = bytearray(frame(TEXT, b""))
            lie[0] |= bits << 4
            await fails(deflating, 1002, [(f"bits {bits}", HELLO + bytes(lie) + HELLO)], before=1)
        for opcode in (PING, CLOSE):
            await fails(deflating, 1002, [("control", HELLO + frame(opcode, b"", rsv1=True))], before=1)
        first = frame(TEXT, b"a", fin=False)
        await fails(deflating, 1002, [("continuation", first + frame(CONT, b"b", rsv1=True))])


async def test_4_reserved_opcodes_are_refused(server: Echo) -> None:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for payload in (b"", b"reserved"):
            await fails(server, 1002, [(f"{opcode}", HELLO + frame(opcode, payload) + HELLO)], before=1)


# 5: fragmentation


async def test_5_control_frames_are_never_fragmented(server: Echo) -> None:
    for opcode in (PING, PONG):
        sent = frame(opcode, b"frag", fin=False) + frame(CONT, b"ment")
        await fails(server, 1002, [(f"{opcode}", sent)])


@pytest.mark.parametrize("chop", [0, 1])
async def test_5_fragments_make_a_message_and_pings_go_between(server: Echo, chop: int) -> None:
    first, middle, last = fragments(TEXT, b"fragment1fragment2fragment3", 9)
    ping = frame(PING, b"ping")
    whole = b"fragment1fragment2fragment3"
    received = await server.answer(first + ping + middle + ping + last, chop)
    assert (pongs(received), texts(received), code(received)) == ([b"ping"] * 2, [whole], 1000)
    empty = frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False)
    cases = [
        ("empty ones", empty + frame(CONT, b""), [b""]),
        ("empty ones, then text", empty + frame(CONT, b"x"), [b"x"]),
        ("two messages", (first + middle + last) * 2, [whole, whole]),
    ]
    await passes(server, cases, chop)


async def test_5_what_continues_nothing_is_refused(server: Echo) -> None:
    cases = [
        ("alone", frame(CONT, b"non-continuation payload")),
        ("not final", frame(CONT, b"non-continuation payload", fin=False)),
        ("and then a message", frame(CONT, b"x") + HELLO),
        ("after a message in two", b"".join([*fragments(TEXT, b"", 1), frame(CONT, b"x", fin=False)])),
    ]
    await fails(server, 1002, cases[:3])
    await fails(server, 1002, cases[3:], before=1)


async def test_5_a_message_does_not_begin_within_another(server: Echo) -> None:
    for opcode in (TEXT, BINARY):
        await fails(server, 1002, [("within", frame(TEXT, b"a", fin=False) + frame(opcode, b"b"))])


# 6: UTF-8

GOOD = [
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\x00",
    "\x7f\x80\u07ff\u0800\uffff",
    "\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd",
    "\ufdd0\ufffe\U0001fffe",
]
BAD = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\x80",
    b"\xbf\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xfe",
    b"\xff\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xce\xba\xce",
]


@pytest.mark.parametrize("chop", [0, 1])
async def test_6_valid_text_passes_wherever_it_is_cut(server: Echo, chop: int) -> None:
    for text in GOOD:
        data = text.encode()
        for size in (len(data), 1, 3):
            await passes(server, [(repr(text), b"".join(fragments(TEXT, data, size)), [data])], chop)


async def test_6_invalid_text_is_refused_wherever_it_is_cut(server: Echo) -> None:
    for data in BAD:
        for size in (len(data), 1):
            await fails(server, 1007, [(repr(data), b"".join(fragments(TEXT, data, size)))])


async def test_6_binary_may_be_anything(server: Echo) -> None:
    for data in BAD:
        received = await server.answer(frame(BINARY, data))
        assert (texts(received), code(received)) == ([data], 1000)


# 7: close handling


def close(number: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, number.to_bytes(2, "big") + reason)


async def test_7_what_comes_after_a_close_is_passed_over(server: Echo) -> None:
    for after in (close(1000), frame(PING, b"x"), HELLO, frame(CONT, b"x"), b"\xff" * 40):
        received = await server.answer(HELLO + close(1000) + after)
        assert (texts(received), pongs(received), code(received)) == ([b"Hello"], [], 1000)


async def test_7_a_close_within_a_message_ends_it(server: Echo) -> None:
    received = await server.answer(frame(TEXT, b"frag", fin=False) + close(1000) + frame(CONT, b"ment"))
    assert (texts(received), code(received)) == ([], 1000)


async def test_7_a_large_message_before_the_close_is_whole(server: Echo) -> None:
    received = await server.answer(frame(TEXT, b"B" * 262_144) + close(1000))
    assert code(received) == 1000
    assert sum(len(data) for data in texts(received)) in (262_144, 0)


async def test_7_payloads_of_a_close(server: Echo) -> None:
    assert code(await server.answer(frame(CLOSE, b""))) in (1000, 1005)
    for reason in (b"", b"Hello World!", b"*" * 123):
        assert code(await server.answer(close(1000, reason))) == 1000
    await fails(server, 1002, [("one byte", frame(CLOSE, b"a")), ("126 bytes", close(1000, b"*" * 124))])
    await fails(server, 1007, [("reason", close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"))])


async def test_7_codes_of_a_close(server: Echo) -> None:
    for good in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        assert code(await server.answer(close(good))) == good
    bad = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
    await fails(server, 1002, [(f"{number}", close(number)) for number in bad])


# 9 and 10: limits


async def test_9_messages_up_to_the_limit_pass_in_any_pieces(server: Echo) -> None:
    for size, piece in (
        (LIMIT, LIMIT),
        (LIMIT, 65_536),
        (LIMIT, 4096),
        (262_144, 1024),
        (65_536, 64),
        (65_536, 1300),
    ):
        data = random.Random(size).randbytes(size // 2).hex().encode()
        sent = b"".join(fragments(TEXT, data, piece))
        await passes(server, [(f"{size} in {piece}", sent, [data])])


async def test_9_a_large_message_passes_in_small_chops() -> None:
    async with echo(compression=False) as plain:
        for chop in (64, 512, 2048):
            await passes(plain, [(f"{chop}", frame(TEXT, b"*" * 131_072), [b"*" * 131_072])], chop)


async def test_9_a_message_over_the_limit_is_refused(server: Echo) -> None:
    over = b"*" * (LIMIT + 1)
    await fails(server, 1009, [("whole", frame(TEXT, over))])
    await fails(server, 1009, [("in pieces", b"".join(fragments(BINARY, over, 65_536)))])


# 12 and 13: compression


def deflated(data: bytes, bits: int = 15) -> bytes:
    deflate = zlib.compressobj(wbits=-bits)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072])
async def test_12_compressed_messages_of_every_size(size: int) -> None:
    data = (b"the quick brown fox %d jumps over " % size * (size // 20 + 1))[:size]
    async with echo(compression=True) as deflating:
        packed = deflated(data)
        sent = frame(TEXT, packed, rsv1=True) * 3
        assert texts(await deflating.answer(sent)) == [data] * 3
        pieces = fragments(TEXT, packed, 100)
        pieces[0] = bytes([pieces[0][0] | 0x40]) + pieces[0][1:]
        ping = frame(PING, b"x")
        received = await deflating.answer(ping.join(pieces[:9]) + b"".join(pieces[9:]))
        assert (texts(received), code(received)) == ([data], 1000)


async def test_12_text_that_is_none_after_inflation_is_refused() -> None:
    async with echo(compression=True) as deflating:
        await fails(deflating, 1007, [("text", frame(TEXT, deflated(b"\xff" * 50), rsv1=True))])


async def test_12_what_does_not_inflate_is_refused() -> None:
    async with echo(compression=True) as deflating:
        received = await deflating.answer(frame(TEXT, b"\xff\xff\xff\xff", rsv1=True))
        assert (texts(received), code(received)) == ([], 1002)


OFFERS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=9",
    "permessage-deflate; client_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
    "permessage-bzip2, permessage-deflate",
    "permessage-deflate; server_max_window_bits=7, permessage-deflate",
]
REFUSED = [
    "permessage-deflate; unknown",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; client_max_window_bits=abc",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-bzip2",
]


@pytest.mark.parametrize("offer", OFFERS)
async def test_13_every_good_offer_is_taken(offer: str) -> None:
    data = b"a text that is long enough to be compressed " * 20
    async with echo(compression=True) as deflating:
        headers = {"Sec-WebSocket-Extensions": offer}
        async with await RawWebSocket.connect(deflating.port, "/", headers) as client:
            assert "permessage-deflate" in client.head
            assert "server_no_context_takeover" in client.head
        sent = frame(TEXT, deflated(data, 9), rsv1=True) + frame(TEXT, data)
        assert texts(await deflating.answer(sent, headers=headers)) == [data, data]


@pytest.mark.parametrize("offer", REFUSED)
async def test_13_a_bad_offer_is_declined_and_not_a_fault(offer: str) -> None:
    async with echo(compression=True) as deflating:
        headers = {"Sec-WebSocket-Extensions": offer}
        async with await RawWebSocket.connect(deflating.port, "/", headers) as client:
            assert "permessage-deflate" not in client.head
        assert texts(await deflating.answer(HELLO, headers=headers)) == [b"Hello"]
