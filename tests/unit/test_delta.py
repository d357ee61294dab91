"""hub.protocol.delta: what it makes is read by an SDK, is text where the payload is, and is small."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol import delta


def applied(source: bytes, made: bytes) -> bytes:
    return bytes(apply_delta(source, made))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (b"", b""),
        (b"", b"abc"),
        (b"abc", b""),
        (b"same as before, all of it", b"same as before, all of it"),
        (b"0123456789abcdef" * 4, b"0123456789abcdef" * 9),
        (b"x" * 15, b"x" * 15),
        (b"x" * 16, b"x" * 16),
        (b"x" * 5000, b"x" * 4999 + b"y"),
        (b"tail of the source that stays", b"another head, and the tail of the source that stays"),
    ],
)
def test_the_target_comes_back(source: bytes, target: bytes) -> None:
    assert applied(source, delta.create(source, target)) == target


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_come_back(shared: bytes, before: bytes, after: bytes) -> None:
    source, target = before + shared + after, after + shared + before
    assert applied(source, delta.create(source, target)) == target


@given(st.lists(st.text(alphabet="aé€😀", min_size=8, max_size=60), min_size=2, max_size=8), st.randoms())
def test_the_delta_of_texts_is_a_text(pieces: list[str], chance: random.Random) -> None:
    source = "".join(pieces).encode()
    chance.shuffle(pieces)
    target = "".join(pieces).encode()
    made = delta.create(source, target)
    made.decode()
    assert applied(source, made) == target


def test_a_copy_that_ends_within_a_character_is_narrowed() -> None:
    source = "0123456789abcdef€0123456789abcdef".encode()
    target = "0123456789abcdef₭0123456789abcdef".encode()  # its first two bytes are those of the other
    made = delta.create(source, target)
    assert "₭" in made.decode()
    assert applied(source, made) == target


def test_small_changes_of_a_document_send_a_small_share() -> None:
    chance = random.Random(7)
    rows = [{"player": f"player {n}", "score": n * 17, "team": chance.choice("abc")} for n in range(40)]
    texts = []
    for _ in range(50):
        chance.choice(rows)["score"] = chance.randrange(1000)
        texts.append(json.dumps(rows).encode())
    assert len(texts[0]) > 2000
    sent = sum(len(delta.create(before, after)) for before, after in pairwise(texts))
    assert sent < 0.05 * sum(map(len, texts))


def test_a_repetitive_document_takes_no_more_time_than_its_length_asks_for() -> None:
    calls = 0

    class Counted(bytes):
        def __getitem__(self, key: Any) -> Any:
            nonlocal calls
            calls += 1
            return super().__getitem__(key)

    source, target = Counted(b"ab" * 5000), Counted(b"ab" * 2500 + b"c" + b"ab" * 2499)
    assert applied(bytes(source), delta.create(source, target)) == target
    assert calls < 5 * len(target)
