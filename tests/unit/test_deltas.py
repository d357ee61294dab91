"""hub/core/channel/deltas.py: which subscribers get a delta, and that each delta is computed once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from msgspec import UNSET, Raw

from hub.core.channel import deltas
from hub.core.channel.deltas import Deltas, whole
from hub.protocol.messages import ClientInfo, DeltaPublication, Publication
from hub.protocol.payloads import Packed, Quoted, octets


def document(chance: random.Random) -> Iterator[bytes]:
    """A document of 2 KB, and what becomes of it by small changes."""
    rows = [{"player": f"player {n}", "score": n * 17, "team": chance.choice("abc")} for n in range(40)]
    while True:
        yield json.dumps(rows).encode()
        chance.choice(rows)["score"] = chance.randrange(1000)


def published(count: int, *, seed: int = 7, first: int = 1) -> list[Publication]:
    texts = document(random.Random(seed))
    return [DeltaPublication(Raw(next(texts)), offset=offset) for offset in range(first, first + count)]


def texts_of(publications: list[Publication]) -> list[bytes]:
    return [octets(publication.data) for publication in publications]


class Reader:
    """Reads what is sent as an SDK does. The payloads, whole, are in `texts`."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []

    def take(self, sent: Publication) -> None:
        data = octets(sent.data)
        self.texts.append(bytes(apply_delta(self.texts[-1], data)) if sent.delta else data)


def test_nobody_begins_with_a_delta() -> None:
    [publication] = published(1)
    sent = Deltas().after(None, publication)
    assert not sent.delta
    assert sent.data == Quoted(octets(publication.data).decode())


def test_a_delta_is_of_the_one_before() -> None:
    reader, made = Reader(), Deltas()
    first, second = published(2)
    for sent in (whole(first), made.after(first, second)):
        reader.take(sent)
    assert sent.delta
    assert reader.texts == texts_of([first, second])
    assert made.computed == 1


def test_the_rest_of_a_publication_stays() -> None:
    first, _ = published(2)
    info = ClientInfo("ann")
    second = DeltaPublication(first.data, info, 2, {"a": "b"}, False, 99, "other")
    for sent in (whole(second), Deltas().after(first, second)):
        rest = (sent.info, sent.offset, sent.tags, sent.time, sent.channel)
        assert rest == (info, 2, {"a": "b"}, 99, "other")
    assert second.data is first.data


def test_the_publisher_decides() -> None:
    first, second = published(2)
    asked_for_none = Publication(second.data, offset=2)
    made = Deltas()
    assert not made.after(first, asked_for_none).delta
    assert made.after(asked_for_none, published(3)[2]).delta
    assert made.computed == 1


def test_what_saves_nothing_is_whole() -> None:
    first, second = DeltaPublication(Raw(b"1"), offset=1), DeltaPublication(Raw(b"2"), offset=2)
    made = Deltas()
    for _ in range(2):
        assert made.after(first, second) == Publication(Quoted("2"), offset=2)
    assert made.computed == 1


def test_a_binary_payload_is_whole_and_so_is_the_next() -> None:
    first, second = published(2)
    image = DeltaPublication(bytes(range(256)))
    made = Deltas()
    assert made.after(first, image) == Publication(Quoted(bytes(range(256))))
    assert not made.after(image, second).delta
    assert made.computed == 0


def test_a_payload_in_messagepack_is_taken_as_its_json() -> None:
    reader, made = Reader(), Deltas()
    first, second = published(2)
    packed = DeltaPublication(Packed(msgspec.msgpack.encode(msgspec.json.decode(octets(second.data)))))
    for sent in made.chain([first, packed, second]):
        reader.take(sent)
    assert [json.loads(text) for text in reader.texts] == [
        json.loads(octets(publication.data)) for publication in (first, second, second)
    ]


@pytest.mark.parametrize("size", [0, deltas.PAYLOAD_BYTES_MAX + 1])
@pytest.mark.parametrize("is_base", [True, False])
def test_a_payload_that_is_too_large_or_none_is_whole(size: int, *, is_base: bool) -> None:
    odd = DeltaPublication(Raw(b'"%s"' % (b"a" * (size - 2))) if size else UNSET)
    [other] = published(1)
    made = Deltas()
    assert not (made.after(odd, other) if is_base else made.after(other, odd)).delta
    assert made.computed == 0


def test_the_largest_payload_there_is_a_delta_of() -> None:
    largest = DeltaPublication(Raw(b'"%s"' % (b"a" * (deltas.PAYLOAD_BYTES_MAX - 2))))
    assert Deltas().after(largest, largest).delta


def test_who_comes_back_begins_with_a_whole_one() -> None:
    publications, reader, made = published(5), Reader(), Deltas()
    sent = made.chain(publications)
    for each in sent:
        reader.take(each)
    assert [each.delta for each in sent] == [False, True, True, True, True]
    assert reader.texts == texts_of(publications)
    assert made.chain([]) == []


def test_each_delta_is_computed_once() -> None:
    publications, made = published(5), Deltas()
    live = [made.after(base, publication) for base, publication in pairwise(publications)]
    assert made.computed == 4
    for _ in range(100):
        assert made.chain(publications)[1:] == live
    assert made.computed == 4


def test_deltas_are_kept_up_to_a_bound() -> None:
    publications, bound = published(50), 5_000
    made = Deltas(kept_bytes_max=bound)
    for _ in range(2):
        made.chain(publications)
        assert 0 < made.kept_bytes <= bound
    assert made.computed == 98
    used = publications[-2:]
    made.chain(used)
    assert made.computed == 98


def test_what_was_used_last_is_kept() -> None:
    publications = published(50)
    made = Deltas(kept_bytes_max=5_000)
    for base, publication in pairwise(publications):
        made.after(publications[0], publications[1])
        made.after(base, publication)
    assert made.computed == 49
