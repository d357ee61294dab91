"""Commands in MessagePack: the hub's reader beside PyPI `msgpack`."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]

from hub.protocol import messages
from hub.protocol.messages import Fault
from hub.protocol.msgpack import MessagePackCodec
from loadtests.fuzz import model
from loadtests.fuzz.corpus import METHODS, draw_command
from loadtests.fuzz.model import Pairs
from loadtests.fuzz.mutate import ODD_BYTES, mutate, odd_value
from loadtests.fuzz.target import PureTarget

HEADS = tuple(bytes((head,)) for head in (*range(0x78, 0xA4), *range(0xBE, 0xE2)))
WORDS = (
    *HEADS,
    *ODD_BYTES,
    *(msgpack.packb(method) for method in METHODS),
    *(b"\xa2id\x01", b"\xa4data", b"\xc7\x00\x01", b"\xd6\xff\x00\x00\x00\x00", b"\xcb\x7f\xf8" + b"\0" * 6),
    *(
        b"\xca\x7f\x80\x00\x00",
        b"\xdc\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x00\x00\x00\x01",
        b"\xd9\x02id",
    ),
    b"\xdc\x10\x00" + b"\xc0" * 4096,
)


def odd(chance: random.Random) -> Any:
    """A value that MessagePack has and JSON has not, or any odd one."""
    return chance.choice(
        (
            odd_value,
            lambda chance: chance.randbytes(chance.choice((0, 3, 300))),
            lambda chance: msgpack.ExtType(chance.randrange(128), b"x" * chance.choice((0, 1, 4, 5, 16))),
            lambda chance: msgpack.Timestamp(chance.randrange(2**34), 5),
            lambda chance: chance.choice((math.inf, -math.inf, math.nan, 1e-300)),
            lambda chance: {chance.choice((1, None, b"k", 1.5)): 1},
            lambda chance: ["x"] * chance.choice((15, 16, 4090, 4096)),
        )
    )(chance)


class MessagePackCommands(PureTarget):
    name = "messagepack"

    def __init__(self) -> None:
        self._codec = MessagePackCodec()

    def draw(self, chance: random.Random) -> bytes:
        commands = [self._pack(chance) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        data = b"".join(commands)
        return mutate(data, chance, WORDS) if chance.random() < 0.6 else data

    def _pack(self, chance: random.Random) -> bytes:
        while True:
            try:
                packed: bytes = msgpack.packb(
                    draw_command(chance, odd), use_single_float=chance.random() < 0.2
                )
            except (OverflowError, ValueError):
                continue  # an integer of more than 64 bits
            return packed

    def check(self, data: bytes) -> Iterator[str]:
        results = list(self._codec.decode(data))
        values, ended = read(data)
        for value, result in zip(values, results, strict=False):
            yield from self._compare(value, result)
        rest = results[len(values) :]
        match ended:
            case "":
                if rest and data:
                    yield "the hub reads more commands"
            case "cut short":
                if len(rest) != 1 or not isinstance(rest[0], Fault):
                    yield "the hub does not refuse a value that is cut short"
            case _:
                if not rest and (not results or not _ends(results)):
                    yield f"the hub reads fewer commands: {ended}"
                elif rest and not isinstance(rest[0], Fault):
                    yield f"hub accepts: {ended}"
        if len(results) < len(values) and not _ends(results):
            yield "the hub reads fewer commands"

    def _compare(self, value: Any, result: Any) -> Iterator[str]:
        wrong = _wrong(value)
        if isinstance(result, Fault):
            if wrong is None:
                yield f"hub refuses a command: {result.reason[:60]}"
            elif wrong not in ("no map", "a field of another type"):
                yield f"hub refuses: {wrong}"
            ids = [item for key, item in value if key == "id"] if isinstance(value, Pairs) else []
            if result.id and result.id not in ids:
                yield "another id in a fault"
            return
        if wrong is not None:
            yield f"hub accepts: {wrong}"
            return
        differs = model.agrees(result, model.plain(value), model.msgpack_is)
        if differs is not None:
            yield f"another value: {differs}"
        for payload in model.payloads_of(result):
            yield from model.shown(payload)


def _ends(results: list[Any]) -> bool:
    """Whether the last result is a fault after which the hub reads nothing."""
    return bool(results) and isinstance(results[-1], Fault) and results[-1].id == 0


def read(data: bytes) -> tuple[list[Any], str]:
    """The values of a message, and why there are no more: nothing, cut short, or what is wrong."""
    unpacker = msgpack.Unpacker(object_pairs_hook=Pairs, strict_map_key=False, ext_hook=msgpack.ExtType)
    unpacker.feed(data)
    values: list[Any] = []
    while unpacker.tell() < len(data):
        try:
            values.append(unpacker.unpack())
        except msgpack.OutOfData:
            return values, "cut short"
        except UnicodeDecodeError:
            return values, "text that is no UTF-8"
        except msgpack.FormatError:
            return values, "a byte that begins no value"
        except (msgpack.StackError, RecursionError):
            return values, "nested too deep"
        except ValueError as exc:
            return values, f"no value: {str(exc)[:40]}"
    return values, ""


def _wrong(value: Any) -> str | None:
    if not isinstance(value, Pairs):
        return "no map"
    if model.depth(value) > model.DEPTH_MAX:
        return "nested too deep"
    everything = list(model.walk(value))
    if any(isinstance(each, msgpack.ExtType | msgpack.Timestamp) for each in everything):
        return "an extension type"
    if any(isinstance(each, float) and not math.isfinite(each) for each in everything):
        return "a number that is not finite"
    maps = [each for each in everything if isinstance(each, Pairs)]
    if any(not isinstance(key, str) for each in maps for key, _ in each):
        return "a key that is no text"
    if len(everything) > model.VALUES_MAX:
        return "too many values"
    if model.has_duplicates(value):
        return "a key twice"
    if model.fits(model.plain(value), messages.Command):
        return None
    whole = model.fits(model.plain(value), messages.Command, whole_floats=True)
    return "an integer written as a float" if whole else "a field of another type"
