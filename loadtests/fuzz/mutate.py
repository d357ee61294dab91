"""Mutators: valid bytes, JSON texts and values in, odd ones out. An argument decides all that is random."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

ODD_BYTES: Final = (
    *(b"\x00", b"\x01", b"\x7f", b"\x80", b"\xc0\x80", b"\xc1", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"\r", b"\n", b"\r\n", b" ", b"\t"),
)
"""Bytes that readers tend to stumble over: ends of ranges, broken UTF-8, ends of lines."""

ODD_JSON: Final = (
    *(
        "null",
        "true",
        "-0",
        "0.0",
        "1.0",
        "1e2",
        "-1",
        "1e308",
        "1e309",
        "-1e999",
        "1e-999",
        "01",
        "+1",
        "1.",
    ),
    *(".5", "1e", "NaN", "Infinity", "-Infinity", "4294967295", "4294967296", "9007199254740993"),
    *("18446744073709551615", "18446744073709551616", "-9223372036854775809", "1" + "0" * 308, "9" * 400),
    *('""', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\\u12"', '"a:b"'),
    *('"\\u003a"', '"\x01"', '"\t"', '"é"', '"\\/"', "[]", "{}", "[1,]", "[,1]", '{"a":1,"a":2}', '{"a":1,}'),
    *('{"a":1,"\\u0061":2}', '{"":0}', "{1:2}", "//", "/**/", "[" * 31 + "]" * 31, "[" * 40 + "]" * 40),
    *(
        '{"a":' * 33 + "0" + "}" * 33,
        "[" * 3000 + "]" * 3000,
        "[" * 3000,
        '{"a":' * 3000,
        '"' + "[" * 50 + '"',
    ),
    *("[1e400]", "[[[[1e308]]]]", " ", "\r", "\n", "\t", "\ufeff", "\u2028", "\x00", "\x0c", "\xa0"),
)
"""JSON texts, good and bad, on which parsers differ."""


def mutate(data: bytes, chance: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """Change bytes in one to five places.

    Args:
        data: to change.
        chance: decides.
        words: of the language that `data` is in, which are put into it.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        data = chance.choice(_CHANGES)(data, chance, words or ODD_BYTES)
    return data


def _span(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 1, 2, 4, 8, chance.randint(1, 64))))


def _flip(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


def _replace(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + chance.choice(words) + data[end:]


def _insert(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    start, _ = _span(data, chance)
    return data[:start] + chance.choice((chance.choice(words), chance.choice(ODD_BYTES))) + data[start:]


def _noise(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + chance.randbytes(end - start) + data[end:]


def _delete(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + data[end:]


def _repeat(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    start, end = _span(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 40)) + data[end:]


def _move(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    start, end = _span(data, chance)
    rest = data[:start] + data[end:]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def _cut(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _count(data: bytes, chance: random.Random, words: Sequence[bytes]) -> bytes:
    """Add to a byte, such as a length."""
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] + chance.choice((-2, -1, 1, 2)) & 0xFF,)) + data[at + 1 :]


_CHANGES: Final = (_flip, _replace, _replace, _insert, _noise, _delete, _repeat, _move, _cut, _count)

ODD_VALUES: Final[tuple[Callable[[random.Random], Any], ...]] = (
    lambda chance: chance.choice((None, True, False, 0, 1, -1, 1.0, 1.5, -0.0, 2**31, 2**32, 2**53, 2**63)),
    lambda chance: chance.choice((2**64 - 1, -(2**63), 1e300, "", "a", "é", "\0", "\U0001f600", "x" * 300)),
    lambda chance: chance.choice(([], {}, [[]], [None] * 5, {"a": {}}, {"": 0}, {"id": 1}, ["a", 1, None])),
    lambda chance: chance.randint(-(2**40), 2**40),
    lambda chance: "".join(chance.choices('ab:#,/."\\{}[] é\n', k=chance.randint(0, 12))),
    lambda chance: _nested(chance.choice((2, 20, 29, 30, 31, 32, 33, 60)), chance),
)


def _nested(levels: int, chance: random.Random) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def odd_value(chance: random.Random) -> Any:
    """A value of the JSON model that is not what a field expects."""
    return chance.choice(ODD_VALUES)(chance)


def mutate_value(value: Any, chance: random.Random, odd: Callable[[random.Random], Any] = odd_value) -> Any:
    """A copy of a value of the JSON model with one place in it changed."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        copied = dict(value)
        key = chance.choice(list(copied))
        match chance.randrange(12):
            case 0:
                del copied[key]
            case 1:
                copied[chance.choice(("id", "data", "channel", "x", "", f"{key}x"))] = odd(chance)
            case 2:
                copied[key] = odd(chance)
            case _:
                copied[key] = mutate_value(copied[key], chance, odd)
        return copied
    if isinstance(value, list) and value and chance.random() < 0.85:
        items = list(value)
        at = chance.randrange(len(items))
        match chance.randrange(5):
            case 0:
                del items[at]
            case 1:
                items.insert(at, odd(chance))
            case _:
                items[at] = mutate_value(items[at], chance, odd)
        return items
    return odd(chance)


def json_text(value: Any, chance: random.Random) -> bytes:
    """The JSON text of a value, now and then with an odd text in it, or spaces between its tokens."""
    separators = chance.choice(((",", ":"), (", ", ": "), (" ,\r\t", " : ")))
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5, separators=separators)
    if chance.random() < 0.5:
        return text.encode(errors="surrogatepass")
    # In place of a scalar, so that the rest stays JSON.
    places = [at for at, character in enumerate(text) if character in ",:[{"]
    if places:
        at = chance.choice(places) + 1
        end = at
        if text[at - 1] == ":" or chance.random() < 0.5:
            while end < len(text) and text[end] not in ",]}[{":
                end += 1
        comma = "," if text[at - 1] in ",[" and end == at and text[end : end + 1] not in ("]", "") else ""
        text = text[:at] + chance.choice(ODD_JSON) + comma + text[end:]
    return text.encode(errors="surrogatepass")
