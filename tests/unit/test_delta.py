"""hub.protocol.delta: what it makes is read by an SDK, is text where the payload is, and is small."""

from __future__ import annotations

import contextlib
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from support.bombs import mangled

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


class Counted(bytes):
    """Bytes that count how often they are looked into."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        Counted.looks += 1
        return super().__getitem__(key)


def noise(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


HOSTILE = {
    "nothing shared": (noise(200_000, 1), noise(200_000, 2)),
    "one block over and over": (b"ab" * 100_000, b"ab" * 50_000 + b"c" + b"ab" * 49_999),
    "blocks that begin alike": (
        b"".join(b"0123456789abcdef%d" % number for number in range(9000)),
        b"".join(b"0123456789abcdef%d" % -number for number in range(9000)),
    ),
    "blocks in another order": (
        noise(160_000, 3),
        b"".join(noise(160_000, 3)[at : at + 16] + b"." for at in range(159_984, 0, -16)),
    ),
    "a long match that is cut off": (
        noise(99_000, 4),
        b"".join(noise(99_000, 4)[at:] for at in (16, 32, 48)),
    ),
    "all the same": (b"a" * 200_000, b"b" + b"a" * 199_998 + b"b"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_document_takes_more_steps_than_the_budget(name: str) -> None:
    source, target = HOSTILE[name]
    Counted.looks = 0
    made = delta.create(Counted(source), Counted(target))
    assert Counted.looks < 3 * delta.STEPS_MAX + delta.INDEX_BYTES_MAX / 8
    assert applied(source, made) == target


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_applied_it_makes_the_target(shared: bytes, before: bytes, after: bytes) -> None:
    source, target = before + shared + after, after + shared + before
    assert delta.apply(source, delta.create(source, target)) == target


SOURCE = b"0123456789abcdef" * 4
GOOD = delta.create(SOURCE, b"head" + SOURCE)


@pytest.mark.parametrize(
    "made",
    [
        *(b"", b"5", b"\n", b"!\n", b"5\n", b"5\nx", b"0\n", b"1000000\n0;"),
        GOOD[:-1],  # cut short
        GOOD[:-2] + b"x;",  # another checksum
        b"2\n1:a0;",  # less than it says
        b"2\n9:aa0;",  # a literal beyond the end
        b"1\n2:aa0;",  # more than it says
        b"~\n~@~,0;",  # a copy from behind the source
        b"~~~\n" + b"10@0," * 100,
        b"~~~~~\n" + b"10@0," * 100,
    ],
)
def test_what_is_no_delta_of_its_source(made: bytes) -> None:
    with pytest.raises(ValueError, match="delta"):
        delta.apply(SOURCE, made)


@given(st.binary(max_size=60) | mangled(GOOD))
def test_no_bytes_make_more_than_they_say(made: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(delta.apply(SOURCE, made)) == delta._value(made.partition(b"\n")[0])
