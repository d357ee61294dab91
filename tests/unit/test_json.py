"""hub/protocol/json.py: any input is a command or a fault, and what is accepted is plain."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from hub.protocol.json import DEPTH_MAX, JSONCodec, MalformedError, check, one_line
from hub.protocol.messages import (
    PING,
    Command,
    ConnectRequest,
    ErrorMessage,
    Fault,
    HistoryRequest,
    Publication,
    PublishRequest,
    Push,
    Reply,
    SendRequest,
    StreamPosition,
    SubscribeRequest,
    SubscribeResult,
)

CODEC = JSONCodec()


def decode_one(line: bytes) -> Command:
    [command] = CODEC.decode(line)
    assert isinstance(command, Command), command
    return command


def fault(line: bytes) -> Fault:
    [outcome] = CODEC.decode(line)
    assert isinstance(outcome, Fault), outcome
    assert outcome.reason
    return outcome


# What is a command


def test_a_command() -> None:
    line = (
        b'{"id":1,"connect":{"token":"t","data":{"a": [1]},"name":"js",'
        b'"subs":{"c":{"recover":true,"offset":7}}}}'
    )
    assert decode_one(line) == Command(
        id=1,
        connect=ConnectRequest(
            token="t",
            data=Raw(b'{"a": [1]}'),
            name="js",
            subs={"c": SubscribeRequest(recover=True, offset=7)},
        ),
    )


def test_absent_fields_are_zero_empty_or_false() -> None:
    request = decode_one(b'{"id":1,"subscribe":{}}').subscribe
    assert request == SubscribeRequest(channel="", recover=False, offset=0)
    assert not request.data


def test_the_pong() -> None:
    assert decode_one(b"{}") == Command()
    assert decode_one(b" { } ") == Command()


def test_unknown_fields_are_passed_over() -> None:
    assert decode_one(b'{"id":2,"later":{"x":1},"send":{"data":1,"more":[]}}').send == SendRequest(Raw(b"1"))


def test_two_methods_are_left_for_the_session() -> None:
    command = decode_one(b'{"id":1,"ping":{},"send":{}}')
    assert len(command.requests()) == 2


def test_a_frame_holds_many_lines() -> None:
    line = b'{"id":1,"ping":{}}'
    assert len(CODEC.decode(line + b"\n" + line)) == 2
    assert len(CODEC.decode(b"\n" + line + b"\r\n \n" + line + b"\n")) == 2
    assert CODEC.decode(b"\n\n") == []
    kinds = [type(item) for item in CODEC.decode(line + b"\n{\n" + line)]
    assert kinds == [Command, Fault, Command]


@pytest.mark.parametrize("limit", [-(2**31), -1, 0, 2**31 - 1])
def test_history_limits(limit: int) -> None:
    line = b'{"id":1,"history":{"limit":%d,"since":{"offset":%d,"epoch":"e"}}}' % (limit, 2**64 - 1)
    assert decode_one(line).history == HistoryRequest("", limit, StreamPosition(2**64 - 1, "e"))


# What is none


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b"[]",
        b'"text"',
        b"{",
        b"}",
        b"nonsense",
        b'{"id":1',
        b'{"id":0,"ping":[]}',
        b'{"id":-1,"ping":{}}',
        b'{"id":4294967296,"ping":{}}',
        b'{"id":1.5,"ping":{}}',
        b'{"id":true,"ping":{}}',
        b'{"id":"1","ping":{}}',
        b'{"ping":[]}',
        b"\xff\xfe",
        b"\x00",
    ],
)
def test_a_fault_without_an_id(line: bytes) -> None:
    assert fault(line).id == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":7,"connect":5}',
        b'{"id":7,"connect":{"token":5}}',
        b'{"id":7,"connect":{"subs":[]}}',
        b'{"id":7,"subscribe":{"offset":-1}}',
        b'{"id":7,"subscribe":{"offset":"1"}}',
        b'{"id":7,"subscribe":{"recover":1}}',
        b'{"id":7,"history":{"limit":2147483648}}',
        b'{"id":7,"history":{"limit":1.5}}',
        b'{"id":7,"publish":{"data":NaN}}',
        b'{"id":7,"publish":{"data":Infinity}}',
        b'{"id":7,"publish":{"data":1e999}}',
        b'{"id":7,"publish":{"data":1%s}}' % (b"0" * 309),
        b'{"id":7,"publish":{"data":"\\ud800"}}',
        b'{"id":7,"publish":{"data":{"\\udc00":1}}}',
        b'{"id":7,"publish":{"data":{"a":1,"a":2}}}',
        b'{"id":7,"publish":{"data":{"a":1,"\\u0061":2}}}',
        b'{"id":7,"publish":{"data":{"a:":{"b":1,"b":2}}}}',
        b'{"id":7,"publish":{},"publish":{}}',
        b'{"id":7,"unknown":{"a":1,"a":2}}',
    ],
)
def test_a_fault_that_its_sender_is_told_of(line: bytes) -> None:
    assert fault(line).id == 7


def nested(depth: int) -> bytes:
    """Arrays in arrays: `depth` of them."""
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 100, 1_000, 30_000])
def test_depth(depth: int) -> None:
    assert fault(b'{"id":7,"publish":{"data":%s}}' % nested(depth)).id == 7
    assert fault(b'{"publish":{"data":%s}, "id" : 7 }' % nested(depth)).id == 7
    assert fault(b'{"publish":{"data":%s,"id":7}}' % nested(depth)).id == 0
    assert fault(b'{"id":7,"x":' + b"[" * depth).id == 7
    assert fault(b"[" * depth).id == 0
    assert fault(b'{"a":' * depth + b"1" + b"}" * depth).id == 0


def test_depth_counts_from_the_command() -> None:
    assert decode_one(b'{"id":7,"publish":{"data":%s}}' % nested(DEPTH_MAX - 2)).publish
    assert fault(b'{"id":7,"publish":{"data":%s}}' % nested(DEPTH_MAX - 1)).id == 7


def test_brackets_in_text_are_no_depth() -> None:
    text = json.dumps("[{" * 100 + '\\"[' * 100).encode()
    assert decode_one(b'{"id":7,"publish":{"data":%s}}' % text).publish == PublishRequest("", Raw(text))


@pytest.mark.parametrize("piece", [b'"', b'"\\', b'"\\\\', b'{"id"', b"[", b'[{"a":"', b"[[", b'{"":'])
@pytest.mark.parametrize("end", [b"", b'"', b"\\"])
def test_a_long_fault_is_found_in_linear_time(piece: bytes, end: bytes) -> None:
    text = b"[" * (DEPTH_MAX + 1) + piece * (65_000 // len(piece)) + end
    began = time.process_time()
    assert fault(text).id == 0
    assert time.process_time() - began < 0.5  # milliseconds; seconds where it grows with the square


# The check


@pytest.mark.parametrize(
    "text",
    [
        b"0",
        b"-0",
        b"1e308",
        b"5e-324",
        b"1e-999",
        b"1" + b"0" * 307,
        b'"' + b"9" * 400 + b'"',
        b'"\\ud83d\\ude00"',
        '"\u2028\x7f"'.encode(),
        b'{"a:b":":","c":{"a:b":[]}}',
        b'{"a":"\\n:","b":"\\u003a:","\\u003a":1}',
        b" [ 1 , 2 ] ",
        nested(DEPTH_MAX),
    ],
)
def test_plain_json_passes(text: bytes) -> None:
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-",
        b"01",
        b"1.",
        b"+1",
        b"1e999",
        b"-1e999",
        b"1" + b"0" * 400,
        b"-1" + b"0" * 400,
        b"1" + b"0" * 400 + b".5",
        b"1" + b"0" * 5_000,
        b"'a'",
        b'"\t"',
        b'"\\x"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\\ude00\\ud83d"',
        b"\xef\xbb\xbf1",
        b"1 2",
        b"[1,]",
        b'{"a":1,}',
        b"{1:2}",
        b"/**/1",
        b'{":":1,"b":2,"b":3}',
        b'{"a":1,"a":"\\u003a"}',
        b'{"a":"\\n:","a":1,"b":"\\u003A\\u003A"}',
        nested(DEPTH_MAX + 1),
    ],
)
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedError):
        check(text)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)


def depth_of(value: Any) -> int:
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inner), default=0)
    return 0


def read_strictly(text: bytes) -> Any:
    """Another parser, made as strict as the strictest of those that a subscriber may have.

    Raises:
        ValueError: some parser refuses the text, or reads it otherwise.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError("number out of range")
        return number

    def refuse(name: str) -> None:
        raise ValueError(name)

    value = json.loads(
        text.decode(),
        object_pairs_hook=unique,
        parse_float=finite,
        parse_int=finite,
        parse_constant=refuse,
    )
    for string in strings(value):
        string.encode()
    if depth_of(value) > DEPTH_MAX:
        raise ValueError("too deep")
    return value


def as_doubles(value: Any) -> Any:
    """A parsed value as JavaScript has it: every number a double."""
    if isinstance(value, list):
        return [as_doubles(item) for item in value]
    if isinstance(value, dict):
        return {key: as_doubles(item) for key, item in value.items()}
    return float(value) if type(value) is int else value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
"""Values that every parser agrees on, save text with lone surrogates, which Hypothesis does not make."""

tokens = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'[]{}:,"\\ \t\r\n0123-+.eEaN'),
        b"[" * 40,
        b"]" * 40,
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"9" * 310,
        b"\\ud800",
        b"\\ud83d\\ude00",
        b"\xc3\xa9",
        b"\xff",
        b"\xed\xa0\x80",
        b"\x00",
        b'"a":1',
        b'"\\u0061":2',
        b'"id":7',
        b'"connect":{}',
        b'"publish":{"channel":"c","data":',
        b'{"id":1,"send":{"data":{}}}',
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """JSON text, now and then with something hostile put in, or a piece taken out."""
    ensure_ascii = draw(st.booleans())
    text = json.dumps(draw(json_values), ensure_ascii=ensure_ascii).encode()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(tokens | st.just(b"")) + text[place + draw(st.integers(0, 3)) :]
    return text


hostile = mutated() | st.lists(tokens, max_size=12).map(b"".join) | st.binary(max_size=40)


@given(hostile)
@example(b'{"a":":","a":2}')
@example(b'"\\ud83d"')
def test_what_is_accepted_means_the_same_everywhere(text: bytes) -> None:
    try:
        value = check(text)
    except MalformedError:
        return
    assert as_doubles(value) == read_strictly(text)


@given(hostile)
@example(b"9" * 307)
@example(b"1" + b"0" * 308)
@example(b"-%d" % int(sys.float_info.max))
def test_what_every_parser_agrees_on_is_accepted(text: bytes) -> None:
    try:
        read_strictly(text)
    except ValueError:
        return
    check(text)


# The codec against hostile frames

requests = st.sampled_from(
    [
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "ping",
        "send",
        "rpc",
        "refresh",
        "sub_refresh",
        "other",
    ]
)
fields = st.sampled_from(
    [
        "channel",
        "token",
        "data",
        "subs",
        "recover",
        "offset",
        "epoch",
        "limit",
        "since",
        "reverse",
        "flag",
        "tf",
    ]
)
commands = st.fixed_dictionaries({}, optional={"id": st.integers(-1, 2**33) | json_values}).flatmap(
    lambda head: st.dictionaries(
        requests, st.dictionaries(fields, json_values, max_size=4) | json_values, max_size=2
    ).map(lambda body: json.dumps({**head, **body}).encode())
)


@given(st.lists(hostile | commands, max_size=4).map(b"\n".join))
def test_the_outcome_is_a_command_or_a_fault(frame: bytes) -> None:
    outcomes = CODEC.decode(frame)
    assert len(outcomes) <= frame.count(b"\n") + 1
    for outcome in outcomes:
        assert isinstance(outcome, Command | Fault)
        assert 0 <= outcome.id < 2**32
        if isinstance(outcome, Command):
            assert len(outcome.requests()) <= 12


@given(mutated(), st.integers(1, 2**32 - 1))
def test_no_payload_that_was_accepted_fails_at_a_subscriber(text: bytes, number: int) -> None:
    for outcome in CODEC.decode(b'{"id":%d,"publish":{"channel":"c","data":%s}}' % (number, text)):
        if isinstance(outcome, Fault) or outcome.publish is None:
            continue
        data = outcome.publish.data
        sent = CODEC.encode(Reply(push=Push(channel="c", pub=Publication(data=data))))
        assert b"\n" not in sent
        received = read_strictly(sent)["push"]["pub"]
        if isinstance(data, Raw):
            assert bytes(data) in sent
            assert received == {"data": read_strictly(bytes(data))}
        else:
            assert received == {}


# The way out


def test_replies() -> None:
    assert CODEC.encode(PING) == b"{}"
    assert CODEC.encode(Reply(id=3, error=ErrorMessage(109, "token expired"))) == (
        b'{"id":3,"error":{"code":109,"message":"token expired"}}'
    )
    publication = Publication(data=Raw(b'{"a": 1.0}'), offset=2, tags={"k": "v"})
    result = SubscribeResult(recovered=True, publications=[publication], epoch="e")
    assert CODEC.encode(Reply(id=4, subscribe=result)) == (
        b'{"id":4,"subscribe":{"epoch":"e","publications":'
        b'[{"data":{"a": 1.0},"offset":2,"tags":{"k":"v"}}],"recovered":true}}'
    )


def test_join() -> None:
    assert CODEC.join([b"{}"]) == b"{}"
    assert CODEC.join([b"{}", b'{"id":1}']) == b'{}\n{"id":1}'


@given(json_values, st.sampled_from([None, 1, "\t"]), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_one_line_changes_nothing_but_the_lines(value: Any, indent: Any, end: bytes) -> None:
    text = json.dumps(value, indent=indent).encode().replace(b"\n", end)
    line = bytes(one_line(text))
    assert b"\n" not in line
    assert b"\r" not in line
    assert len(line) == len(text)
    assert json.loads(line) == value


def test_one_line_keeps_what_is_one() -> None:
    assert bytes(one_line(b'{ "a":"\\n" }')) == b'{ "a":"\\n" }'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'"\\ud800"', "a string holds a lone surrogate, which is no character"),
        (b'{"a":"\\ud800x"}', "a string holds a lone surrogate, which is no character"),
        (b'{"a":"\\udc00"}', "a string holds a lone surrogate, which is no character"),
        (b'{"a":"\\u0041', "it ends too early"),
        (b'{"a":', "it ends too early"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
        (b'{"a":"\xff"}', "Invalid UTF-8 encoded string"),
        (b"{'a':1}", "JSON is malformed: object keys must be strings (byte 1)"),
    ],
)
def test_what_is_wrong_with_a_text_is_named(text: bytes, fault: str) -> None:
    with pytest.raises(MalformedError) as caught:
        check(text)
    assert str(caught.value) == fault
    for found in CODEC.decode(text):  # none of a blank line
        assert isinstance(found, Fault)
        assert found.reason == fault
