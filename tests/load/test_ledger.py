"""The books of a load test: what is lost, repeated or out of order is found, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from hub.client.codec import CODECS
from hub.load.users.ledger import Counts, Ledger, Ledgers
from hub.load.users.watched import WatchedCodec
from hub.protocol import messages as m
from hub.protocol.json import JSONCodec
from hub.protocol.msgpack import MessagePackCodec
from hub.protocol.protobuf import ProtobufCodec


def ledger(offset: int = 0) -> tuple[Ledger, Counts]:
    counts = Counts()
    made = Ledger(counts)
    assert made.begin("e", offset, was_recovering=False, recovered=False) == ""
    return made, counts


@pytest.mark.parametrize(
    ("offsets", "faults", "counts"),
    [
        ([1, 2, 3], [], Counts(3)),
        ([1, 4], ["messages 2 to 3 are missing"], Counts(2, lost=2)),
        ([2], ["message 1 is missing"], Counts(1, lost=1)),
        ([1, 1], ["message 1 came again"], Counts(2, repeated=1)),
        ([1, 3, 2], ["message 2 is missing", "message 2 came after message 3"], Counts(3, disordered=1)),
        ([1, 3, 2, 2], ["message 2 came again"], Counts(4, repeated=1, disordered=1)),
        ([0, 0], [], Counts(2)),
    ],
)
def test_what_comes_is_counted(offsets: list[int], faults: list[str], counts: Counts) -> None:
    made, found = ledger()
    assert [fault for offset in offsets if (fault := made.take(offset))][-len(faults) or 9 :] == faults
    assert found == counts


def test_a_recovery_goes_on_where_the_user_was() -> None:
    made, counts = ledger(5)
    made.take(6)
    assert made.begin("e", 6, was_recovering=True, recovered=True) == ""
    assert made.begin("e", 8, was_recovering=True, recovered=True) == "messages 7 to 8 are missing"
    assert counts == Counts(1, lost=2)


def test_what_the_hub_says_it_cannot_give_is_told_and_not_lost() -> None:
    made, counts = ledger(5)
    assert made.begin("f", 1, was_recovering=True, recovered=False) == ""
    assert made.take(2) == ""
    assert counts == Counts(1, told=1)


def test_what_is_lost_in_the_end_is_found() -> None:
    made, counts = ledger(5)
    assert made.end(5) == ""
    assert made.end(7) == "messages 6 to 7 are missing"
    assert counts == Counts(lost=2)
    assert Ledger(counts).end(7) == ""


def test_no_order_of_a_shuffled_stream_is_mistaken() -> None:
    chance = random.Random(7)
    for _ in range(200):
        offsets = list(range(1, 30))
        chance.shuffle(offsets)
        made, counts = ledger()
        for offset in offsets:
            made.take(offset)
        made.end(29)
        late = sum(offset < max(offsets[: index + 1]) for index, offset in enumerate(offsets))
        assert counts == Counts(29, disordered=late)


@pytest.mark.parametrize("encoding", CODECS)
def test_the_codec_sees_what_a_client_drops(encoding: str) -> None:
    counts, faults = Counts(), list[str]()
    codec = WatchedCodec(CODECS[encoding], Ledgers(counts), faults.append)
    servers = {"json": JSONCodec(), "msgpack": MessagePackCodec(), "protobuf": ProtobufCodec()}
    encode: Callable[[m.Reply], bytes] = servers[encoding].encode  # type: ignore[attr-defined]
    codec.encode(m.Command(1, connect=m.ConnectRequest()))
    codec.encode(m.Command(2, subscribe=m.SubscribeRequest("news")))
    codec.encode(m.Command(3, subscribe=m.SubscribeRequest("refused")))
    codec.encode(m.Command(4, subscribe=m.SubscribeRequest("plain")))
    pubs = [m.Publication(offset=offset) for offset in (4, 5)]
    result = m.SubscribeResult(recoverable=True, epoch="e", offset=3, publications=pubs)
    for reply in (
        m.Reply(2, subscribe=result),
        m.Reply(3, m.ErrorMessage(103, "no")),
        m.Reply(4, subscribe=m.SubscribeResult()),
        m.Reply(9, publish=m.PublishResult()),
        m.Reply(push=m.Push(channel="news", pub=m.Publication(offset=5))),
        m.Reply(push=m.Push(channel="news", pub=m.Publication(offset=7))),
        m.Reply(push=m.Push(channel="plain", pub=m.Publication())),
        m.Reply(push=m.Push(channel="news", join=m.Join(m.ClientInfo("ann")))),
    ):
        codec.decode(encode(reply))
    assert faults == ["message 5 came again", "message 6 is missing"]
    assert counts == Counts(5, lost=1, repeated=1)
