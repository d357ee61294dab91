"""Commands in JSON: the hub's reader beside Python's own `json`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

from hub.protocol import messages
from hub.protocol.json import JSONCodec
from hub.protocol.messages import Fault
from loadtests.fuzz import model
from loadtests.fuzz.corpus import METHODS, draw_command
from loadtests.fuzz.model import Pairs
from loadtests.fuzz.mutate import ODD_JSON, json_text, mutate, odd_value
from loadtests.fuzz.target import PureTarget

WORDS = (
    *(word.encode(errors="surrogatepass") for word in ODD_JSON if len(word) < 200),
    *(f'"{method}":'.encode() for method in METHODS),
    *(b'"id":', b'"data":', b'"channel":', b'"id":1,', b",", b":", b"{", b"}", b"[", b"]", b'"', b"\\"),
)


class JSONCommands(PureTarget):
    name = "json"

    def __init__(self) -> None:
        self._codec = JSONCodec()

    def draw(self, chance: random.Random) -> bytes:
        lines = [
            json_text(draw_command(chance, odd_value), chance) for _ in range(chance.choice((1, 1, 1, 2, 4)))
        ]
        data = chance.choice((b"\n", b"\n", b"\n\n", b"\n \n")).join(lines)
        return mutate(data, chance, WORDS) if chance.random() < 0.6 else data

    def check(self, data: bytes) -> Iterator[str]:
        results = self._codec.decode(data)
        lines = [line for line in data.split(b"\n") if line.strip()] if b"\n" in data else [data]
        if len(results) != len(lines):
            yield "the hub reads another number of commands"
            return
        for line, result in zip(lines, results, strict=True):
            yield from self._compare(line, result)

    def _compare(self, line: bytes, result: Any) -> Iterator[str]:
        value, wrong = read(line)
        if isinstance(result, Fault):
            if wrong is None:
                yield f"hub refuses a command: {result.reason[:60]}"
            elif wrong not in ("no JSON", "no UTF-8", "no object", "a field of another type"):
                yield f"hub refuses: {wrong}"
            want = value.get("id") if isinstance(value, dict) else None
            is_deep = line.count(b"[") + line.count(b"{") > model.DEPTH_MAX
            if result.id and result.id != want:
                guess = (
                    "by its place"
                    if is_deep
                    else "although its text is broken"
                    if wrong == "no UTF-8"
                    else ""
                )
                yield f"an id is told {guess}" if guess else "another id in a fault"
            if type(want) is int and 0 < want < 2**32 and not result.id:
                yield "a deep command's id is not told" if is_deep else "no id in a fault"
            return
        if wrong is not None:
            yield f"hub accepts: {wrong}"
            return
        differs = model.agrees(result, value, model.json_is)
        if differs is not None:
            yield f"another value: {differs}"
        for payload in model.payloads_of(result):
            yield from model.shown(payload)


def read(line: bytes) -> tuple[Any, str | None]:
    """What Python's `json` makes of a text, and what the protocol finds wrong with it."""
    constants: list[str] = []
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None, "no UTF-8"
    try:
        value = json.loads(text, object_pairs_hook=Pairs, parse_constant=constants.append)
    except RecursionError:
        return None, "nested too deep"
    except ValueError:
        # Python refuses to read an integer of over 4,300 digits, too.
        return None, "a number beyond a double" if re.search(r"\d{4301}", text) else "no JSON"
    return model.plain(value), _wrong(value, constants)


def _wrong(value: Any, constants: list[str]) -> str | None:
    if constants:
        return "NaN or Infinity"
    if model.depth(value) > model.DEPTH_MAX:
        return "nested too deep"
    if any(_is_out_of_range(each) for each in model.walk(value)):
        return "a number beyond a double"
    if any(isinstance(each, str) and _has_surrogate(each) for each in model.walk(value)):
        return "a lone surrogate"
    if model.has_duplicates(value):
        return "a key twice"
    if not isinstance(value, Pairs):
        return "no object"
    if model.fits(model.plain(value), messages.Command):
        return None
    whole = model.fits(model.plain(value), messages.Command, whole_floats=True)
    return "an integer written as a float" if whole else "a field of another type"


def _is_out_of_range(value: Any) -> bool:
    if isinstance(value, float):
        return value in (float("inf"), float("-inf"))
    try:
        return isinstance(value, int) and float(value) in (float("inf"), float("-inf"))
    except OverflowError:
        return True


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
