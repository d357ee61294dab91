"""The three codecs over one model: every message in each, and what came in by one going out by another.

What they write is read by others' code, and what they read was written by it: Python's own json, PyPI
msgpack, and the Protobuf classes that PyPI centrifuge-python ships.
"""

from __future__ import annotations

import json
import tracemalloc
import types
from collections.abc import Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints
from unittest import mock

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from centrifuge.protocol import client_pb2 as theirs  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw
from support.bombs import BOMBS, mangled
from support.dialects import (
    ALWAYS_WRITTEN,
    DIALECTS,
    NEWER_FIELDS,
    Dialect,
    delimited,
    read_msgpack,
    write_protobuf,
)

from hub.protocol import client_pb2 as ours
from hub.protocol import messages as m
from hub.protocol import protobuf
from hub.protocol.encoding import JSON, MESSAGEPACK, PROTOBUF
from hub.protocol.msgpack import MessagePackCodec, checked
from hub.protocol.payloads import Packed, Payload, Quoted, octets
from hub.protocol.protobuf import ProtobufCodec

dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)

text = st.text(max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
# What is JSON text after all has its newlines made spaces.
binary = st.binary(min_size=1, max_size=9).map(lambda data: b"\xff" + data if {10, 13} & {*data} else data)
payloads = (
    values.map(lambda made: Raw(json.dumps(made).encode()))
    | binary
    | (values | st.dictionaries(text, binary, min_size=1)).map(lambda made: Packed(msgpack.packb(made)))
)

NUMBERS: Final = {
    "limit": st.integers(-(2**31), 2**31 - 1),
    "offset": st.integers(0, 2**53),
    "idempotency_ttl": st.just(0),  # the hub's own field of a result, which the SDK does not read
}
"""Fields whose numbers are not those of 31 bits."""


def of_type(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Anything that a field of a message may hold."""
    if kind == m.Payload:
        return payloads
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return of_type(arguments[0], name)
    if kind == dict[str, str] | None:  # that tags are empty shows in one encoding and not in another
        return st.none() | st.dictionaries(text, text, min_size=1, max_size=2)
    if origin in (Union, types.UnionType):
        return st.one_of(*(of_type(argument, name) for argument in arguments))
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=2)
    if origin is Sequence:
        some = st.lists(of_type(arguments[0]), min_size=1, max_size=2)
        return st.just([]) | some | some.map(lambda items: m.Publications(items, 0))
    if origin is tuple:
        return st.lists(of_type(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(text, of_type(arguments[1]), max_size=2)
    if kind is types.NoneType:
        return st.none()
    if kind is int:
        return NUMBERS.get(name, st.integers(0, 2**31 - 1))
    if kind in (str, bool):
        return text if kind is str else st.booleans()
    return messages(kind)


def messages(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any message of a type."""
    if kind is m.FilterNode:
        leaf = st.builds(
            m.FilterNode, key=text, cmp=st.sampled_from(["eq", "in"]), val=text, vals=st.tuples(text)
        )
        return leaf | st.builds(m.FilterNode, op=st.just("and"), nodes=st.tuples(leaf, leaf))
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: of_type(hint, name) for name, hint in hints.items()})


def one_of_its_fields(
    kind: type[msgspec.Struct], common: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Any]:
    """A command, a reply or a push: one of its fields is set, and that is what it is."""
    hints = get_type_hints(kind, include_extras=True)
    return st.one_of(
        *(
            st.builds(kind, **common, **{name: of_type(get_args(hint)[0])})
            for name, hint in hints.items()
            if types.NoneType in get_args(hint) and name != "push"
        )
    )


pushes = one_of_its_fields(m.Push, {"id": st.integers(0, 9), "channel": text})
replies = one_of_its_fields(m.Reply, {"id": st.integers(1, 2**32 - 1)}) | st.builds(m.Reply, push=pushes)
commands = one_of_its_fields(m.Command, {"id": st.integers(1, 2**32 - 1)})
publishes = st.builds(
    m.Command, id=st.integers(1, 300) | st.integers(1, 2**32 - 1), publish=messages(m.PublishRequest)
)


def plain(item: Any, dialect: Dialect) -> Any:
    """A message as plain values, as a client of an encoding sees it."""
    if isinstance(item, msgspec.Struct):
        defaults = type(item)() if not isinstance(item, m.Join | m.Leave) else None
        written = {} if dialect is DIALECTS["protobuf"] else ALWAYS_WRITTEN.get(type(item).__name__, {})
        return {
            name: plain(field, dialect)
            for name in item.__struct_fields__
            if (field := getattr(item, name)) != getattr(defaults, name, None) or name in written
        }
    if isinstance(item, Raw | bytes | Packed):
        return dialect.shows(item)
    if isinstance(item, dict):
        return {key: plain(content, dialect) for key, content in item.items()}
    if isinstance(item, list | tuple | m.Publications):
        return [plain(content, dialect) for content in item]
    return item


# What goes out


@dialects
@given(reply=replies)
def test_each_reply_is_read_by_others(dialect: Dialect, reply: m.Reply) -> None:
    assert dialect.read(dialect.codec.encode(reply)) == [plain(reply, dialect)]


@dialects
@given(id=st.integers(0, 9), channel=text, pub=messages(m.Publication))
@example(id=0, channel="", pub=m.Publication(info=m.ClientInfo()))
def test_each_publication_is_read_by_others(dialect: Dialect, id: int, channel: str, pub: Any) -> None:
    reply = m.Reply(push=m.Push(id, channel, pub))
    assert dialect.read(dialect.codec.encode(reply)) == [plain(reply, dialect)]


@dialects
def test_a_publication_without_data(dialect: Dialect) -> None:
    reply = m.Reply(push=m.Push(channel="c", pub=m.Publication(offset=1)))
    [read] = dialect.read(dialect.codec.encode(reply))
    assert read == {"push": {"channel": "c", "pub": {"offset": 1}}}


@dialects
def test_replies_that_leave_together(dialect: Dialect) -> None:
    sent = [
        m.Reply(7, publish=m.PublishResult()),
        m.PING,
        m.Reply(push=m.Push(channel="c", pub=m.Publication(Raw(b'"' + b"x" * 300 + b'"')))),
    ]
    encoded = [dialect.codec.encode(reply) for reply in sent]
    assert dialect.read(dialect.encodings.messages.pack(encoded)) == [plain(reply, dialect) for reply in sent]


@dialects
def test_what_several_are_sent_is_encoded_once(dialect: Dialect) -> None:
    shared = m.Publications([m.Publication(Raw(b"1"), offset=2), m.Publication(offset=3)], 0)
    reply = m.Reply(4, subscribe=m.SubscribeResult(publications=shared, epoch="e"))
    first = dialect.codec.encode(reply)
    assert dialect.read(first) == [plain(reply, dialect)]
    [form] = shared.encoded
    assert form is dialect.codec
    kept = shared.encoded[form]
    assert dialect.codec.encode(reply) == first
    assert shared.encoded[form] is kept
    other = m.Publications([m.Publication(offset=9)], 0)
    dialect.codec.encode(m.Reply(4, subscribe=m.SubscribeResult(publications=other)))
    shared.encoded[form] = other.encoded[form]
    [read] = dialect.read(dialect.codec.encode(reply))
    assert read["subscribe"]["publications"] == [{"offset": 9}]


def test_the_ping_is_an_empty_message() -> None:
    assert JSON.messages.codec.encode(m.PING) == b"{}"
    assert PROTOBUF.messages.codec.encode(m.PING) == b"\0"
    assert MESSAGEPACK.messages.codec.encode(m.PING) == b"\x80"


@dialects
def test_a_message_is_a_frame_of_its_kind(dialect: Dialect) -> None:
    message = dialect.codec.encode(m.Reply(7, rpc=m.RPCResult(Raw(b'"' + b"x" * 999 + b'"'))))
    assert dialect.encodings.frames.pack([message])[0] == (0x81 if dialect.codec.is_text else 0x82)
    assert dialect.encodings.compressed.pack([message])[0] == (0xC1 if dialect.codec.is_text else 0xC2)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**308], ids=str)
def test_an_integer_of_json_that_messagepack_has_no_form_for_is_a_float_there(number: int) -> None:
    data = Raw(json.dumps({"a": [number, 1]}).encode())
    encoded = MESSAGEPACK.messages.codec.encode(m.Reply(1, rpc=m.RPCResult(data)))
    assert read_msgpack(encoded) == [{"id": 1, "rpc": {"data": {"a": [float(number), 1]}}}]


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_json_beyond_a_double_is_infinite_in_messagepack(sign: str) -> None:
    data = Raw(f"[{sign}{'9' * 400}]".encode())
    encoded = MESSAGEPACK.messages.codec.encode(m.Reply(1, rpc=m.RPCResult(data)))
    assert read_msgpack(encoded) == [{"id": 1, "rpc": {"data": [float(f"{sign}inf")]}}]


@pytest.mark.parametrize(
    "text", ["1e999", '{"a":"\\ud800"}', "[" * 5_000 + "]" * 5_000], ids=["1e999", "half", "deep"]
)
def test_json_text_that_messagepack_has_no_form_for_is_a_text_there(text: str) -> None:
    encoded = MESSAGEPACK.messages.codec.encode(m.Reply(1, rpc=m.RPCResult(Raw(text.encode()))))
    assert read_msgpack(encoded) == [{"id": 1, "rpc": {"data": text}}]


@pytest.mark.parametrize("value", [None, {"a": [1, "b", b"c", 0.5, {}]}, b"x"], ids=repr)
def test_a_packed_payload_of_another_node_is_taken_as_it_is(value: object) -> None:
    packed = msgspec.msgpack.encode(value)
    assert checked(packed) == Packed(packed)


@pytest.mark.parametrize(
    "value", [{1: 2}, msgspec.msgpack.Ext(5, b""), [float("inf")]], ids=["key", "ext", "inf"]
)
def test_a_packed_payload_without_a_form_in_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="every encoding"):
        checked(msgspec.msgpack.encode(value))


@dialects
@pytest.mark.parametrize(
    ("data", "in_json"), [('{"a":1}', '{"a":1}'), ("é\n", "é\n"), (b"\x00\xff", '"AP8="')], ids=ascii
)
def test_a_quoted_payload_is_looked_into_by_nobody(dialect: Dialect, data: str | bytes, in_json: str) -> None:
    [read] = dialect.read(dialect.codec.encode(m.Reply(1, rpc=m.RPCResult(Quoted(data)))))
    expected = {"json": in_json, "protobuf": octets(Quoted(data)), "msgpack": data}
    assert read["rpc"]["data"] == expected[dialect.codec.name]
    assert len({Quoted(data), Quoted(data), Quoted(b"other")}) == 2


@dialects
def test_the_type_of_a_publication_does_not_show(dialect: Dialect) -> None:
    encoded = [
        dialect.codec.encode(m.Reply(push=m.Push(channel="c", pub=kind(Raw(b"1"), offset=2))))
        for kind in (m.Publication, m.DeltaPublication)
    ]
    assert encoded[0] == encoded[1]


# What comes in


@dialects
@given(command=commands)
def test_each_command_of_others_is_read(dialect: Dialect, command: m.Command) -> None:
    [read] = dialect.codec.decode(dialect.write(plain(command, dialect)))
    assert isinstance(read, m.Command), read
    assert plain(read, dialect) == plain(command, dialect)


@dialects
def test_commands_that_come_together(dialect: Dialect) -> None:
    several = [dialect.write({"id": 1, "ping": {}}), dialect.write({}), dialect.write({"id": 2, "ping": {}})]
    message = dialect.codec.join(several)
    assert list(dialect.codec.decode(message)) == [
        m.Command(1, ping=m.PingRequest()),
        m.PONG,
        m.Command(2, ping=m.PingRequest()),
    ]


@dialects
def test_fields_that_nobody_knows_are_passed_over(dialect: Dialect) -> None:
    if dialect.codec.name == "protobuf":
        [read] = dialect.codec.decode(b"\x0a\x08\x02\x5a\x00\xfa\x3e\x03abc")
    else:
        [read] = dialect.codec.decode(dialect.write({"id": 2, "ping": {"x": 1}, "other": [{}]}))
    assert read == m.Command(2, ping=m.PingRequest())


@dialects
@given(data=payloads)
def test_what_one_publishes_everybody_can_read(dialect: Dialect, data: Payload) -> None:
    published = {"id": 1, "publish": {"channel": "c", "data": dialect.shows(data)}}
    [command] = dialect.codec.decode(dialect.write(published))
    assert isinstance(command, m.Command), command
    assert command.publish
    reply = m.Reply(push=m.Push(channel="c", pub=m.Publication(command.publish.data)))
    for other in DIALECTS.values():
        [read] = other.read(other.codec.encode(reply))
        assert read["push"]["pub"]["data"] == other.shows(command.publish.data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a" : 1}', Raw(b'{"a" : 1}')),
        (b'{\r\n"a": 1}', Raw(b'{  "a": 1}')),
        (b"12", Raw(b"12")),
        (b" null ", Raw(b" null ")),
        (b"\x00\xff", b"\x00\xff"),
        (b"hello", b"hello"),
        (b"NaN", b"NaN"),
        (b'{"a":}', b'{"a":}'),
        (b"\xef\xbb\xbf1", b"\xef\xbb\xbf1"),
        (b"[" * 40 + b"x", b"[" * 40 + b"x"),
        (bytes(range(256)) * 200, bytes(range(256)) * 200),
        (b"[{" * 200 + b"\xff", b"[{" * 200 + b"\xff"),
    ],
)
def test_bytes_of_protobuf_are_json_where_they_can_be(data: bytes, expected: Payload) -> None:
    [command] = PROTOBUF.messages.codec.decode(write_protobuf({"id": 1, "send": {"data": data}}))
    assert command == m.Command(1, send=m.SendRequest(expected))


@pytest.mark.parametrize(
    "data",
    [
        rb'"\ud800"',
        b'{"a":1,"a":2}',
        b"1e999",
        b"1" * 5000,
        b"[" * 33 + b"]" * 33,
        b"[" * 20_000,
    ],
    ids=["a lone surrogate", "duplicate keys", "beyond a double", "a long integer", "33 deep", "20,000 deep"],
)
def test_json_that_not_everybody_can_read_is_refused_from_protobuf(data: bytes) -> None:
    message = write_protobuf({"id": 9, "publish": {"channel": "c", "data": data}})
    [fault] = PROTOBUF.messages.codec.decode(message)
    assert isinstance(fault, m.Fault)
    assert fault.id == 9


def test_values_of_messagepack_keep_their_bytes() -> None:
    for data in (
        b"\xcd\x00\x01",
        b"\xca\x3f\x80\x00\x00",
        b"\x81\xa1b\xc4\x01\xff",
        b"\xc0",
        b"\xdf\x00\x00\x00\x00",
    ):
        sent = b"\x82\xa2id\x01\xa3rpc\x81\xa4data" + data
        assert list(MESSAGEPACK.messages.codec.decode(sent)) == [m.Command(1, rpc=m.RPCRequest(Packed(data)))]
        reply = MESSAGEPACK.messages.codec.encode(m.Reply(1, rpc=m.RPCResult(Packed(data))))
        assert reply == sent


@given(data=st.data())
def test_messagepack_is_read_the_same_without_a_walk_over_its_bytes(data: st.DataObject) -> None:
    valid = msgpack.packb(plain(data.draw(publishes | commands), DIALECTS["msgpack"]))
    message = data.draw(st.just(valid) | mangled(valid))
    codec = MessagePackCodec()
    assert list(codec.decode(message)) == list(codec._each(message))


_PUBLISH: Final = theirs.Command(publish=theirs.PublishRequest(channel="c", data=b"[1]")).SerializeToString()


@given(data=st.data())
def test_a_publish_of_protobuf_is_read_as_the_runtime_reads_it(data: st.DataObject) -> None:
    valid = write_protobuf(plain(data.draw(publishes | commands), DIALECTS["protobuf"]))
    message = data.draw(st.just(valid) | mangled(valid))
    codec = ProtobufCodec()
    read = [_without_reason(each) for each in codec.decode(message)]
    with mock.patch.object(protobuf, "_publish", return_value=None):
        assert [_without_reason(each) for each in codec._each(message)] == read


@pytest.mark.parametrize(
    "message",
    [
        delimited(b"\x08\x85\x80\x80\x80\x10" + _PUBLISH),  # an id of 33 bits
        delimited(b"\x08\x80\x80\x80\x80\x80\x01" + _PUBLISH),
        delimited(b"\x10\x05" + _PUBLISH),  # another field before it
        delimited(b"\x08\x05" + _PUBLISH + b"\x4a\x00"),  # a request beside it
        b"\x05\x08\x05" + _PUBLISH,  # a length that ends within it
        delimited(b"\x08\x05" + _PUBLISH[:-1]),
        delimited(b"\x08\x05" + _PUBLISH.replace(b"c", b"\xff")),
        delimited(b"\x08\x05"),
        b"",
        delimited(ours.Command(id=5, publish={"channel": "c", "type": 1}).SerializeToString()),
        delimited(ours.Command(id=5, publish={"channel": "c", "key": "k"}).SerializeToString()),
        delimited(ours.Command(id=5, publish={"channel": "c", "removed": True}).SerializeToString()),
        delimited(ours.Command(id=5, publish={"channel": "c", "idempotency_key": "k"}).SerializeToString()),
    ],
)
def test_only_a_publish_as_encoders_write_it_takes_the_short_way(message: bytes) -> None:
    codec = ProtobufCodec()
    assert protobuf._publish(message) is None
    assert list(codec.decode(message)) == list(codec._each(message))


def _without_reason(read: m.Command | m.Fault) -> m.Command | m.Fault:
    return m.Fault(read.id, "") if isinstance(read, m.Fault) else read


def test_a_publish_as_encoders_write_it_takes_the_short_way() -> None:
    for number in (1, 300, 2**32 - 1):
        command = m.Command(number, publish=m.PublishRequest("c", Raw(b"[1]")))
        message = theirs.Command(id=number, publish=theirs.PublishRequest(channel="c", data=b"[1]"))
        assert protobuf._publish(delimited(message.SerializeToString())) == command
    long = theirs.Command(id=1, publish=theirs.PublishRequest(channel="c", data=b"[%b]" % (b" " * 300)))
    assert protobuf._publish(delimited(long.SerializeToString())) is not None


def test_what_encoders_write_needs_no_walk() -> None:
    data = {"text": "é", "numbers": [1, -300, 1.5, 2**40], "nested": {"none": None, "binary": b"\xff"}}
    codec = MessagePackCodec()
    for number in (1, 300, 2**31):
        message = msgpack.packb({"id": number, "publish": {"channel": "c", "data": data}})
        assert codec._publish(message) == m.Command(
            number, publish=m.PublishRequest("c", Packed(msgpack.packb(data)))
        )


@pytest.mark.parametrize(
    "message",
    [
        {"publish": {"channel": "c", "data": 1}, "rpc": {"data": 1}},
        {"id": 1, "publish": {"channel": "c", "data": 1}, "rpc": {"data": 1}},
        {"id": 1, "publish": {"channel": "c"}},
        {"id": 1, "publish": {"data": 1, "channel": "c"}},
        {"id": 1, "publish": {"channel": "c", "data": 1, "more": msgpack.ExtType(1, b"")}},
    ],
)
def test_only_a_publish_as_it_is_written_here_needs_no_walk(message: dict[str, Any]) -> None:
    codec = MessagePackCodec()
    packed = msgpack.packb(message)
    assert codec._publish(packed) is None
    assert list(codec.decode(packed)) == list(codec._each(packed))


def test_data_of_subscriptions_in_a_connect_is_taken_too() -> None:
    connect = {"data": b"\xff", "subs": {"c": {"data": {"a": 1}}}}
    [command] = MESSAGEPACK.messages.codec.decode(msgpack.packb({"id": 1, "connect": connect}))
    assert isinstance(command, m.Command)
    assert command.connect
    assert command.connect.data == b"\xff"
    assert command.connect.subs["c"].data == Packed(b"\x81\xa1a\x01")


# The table


def test_the_fields_are_those_of_the_structs() -> None:
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        if name != "Identified":
            struct = m.ConnectResult if name == "ConnectPush" else getattr(m, name)
            assert {field.name for field in message.fields} == set(struct.__struct_fields__), name


def test_the_numbers_and_types_are_those_of_the_sdk() -> None:
    compared: dict[str, str] = {}

    def compare(one: Any, other: Any) -> None:
        if compared.setdefault(one.full_name, other.full_name) != other.full_name or one.full_name in seen:
            return
        seen.add(one.full_name)
        newer = NEWER_FIELDS.get(one.name, set())
        assert {field for field in _fields(one) if field[1] not in newer} == _fields(other), one.full_name
        for field in one.fields:
            if field.message_type:
                compare(field.message_type, other.fields_by_name[field.name].message_type)
        assert newer <= {field.name for field in one.fields}

    seen: set[str] = set()
    compare(ours.Command.DESCRIPTOR, theirs.Command.DESCRIPTOR)
    compare(ours.Reply.DESCRIPTOR, theirs.Reply.DESCRIPTOR)
    compare(ours.EmulationRequest.DESCRIPTOR, theirs.EmulationRequest.DESCRIPTOR)
    assert len(seen) > 40


def _fields(message: Any) -> set[tuple[int, str, int, bool]]:
    return {(field.number, field.name, field.type, field.is_repeated) for field in message.fields}


# What is no command


@pytest.mark.parametrize(("name", "data", "faults"), BOMBS.values(), ids=BOMBS)
def test_what_is_no_command_has_a_documented_answer_and_costs_little(
    name: str, data: bytes, faults: list[int]
) -> None:
    assert len(data) < 65_536
    tracemalloc.start()
    try:
        read = list(DIALECTS[name].codec.decode(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one.id for one in read if isinstance(one, m.Fault)] == faults
    assert peak < 2**20


@dialects
@given(data=st.data())
def test_any_bytes_become_commands_and_faults(dialect: Dialect, data: st.DataObject) -> None:
    valid = dialect.write(plain(data.draw(commands), dialect))
    noise = data.draw(st.binary(max_size=40) | mangled(valid))
    for read in dialect.codec.decode(noise):
        assert isinstance(read, m.Command | m.Fault)
        if isinstance(read, m.Command):
            for request in read.requests():
                sent = getattr(request, "data", m.NO_PAYLOAD)
                reply = m.Reply(1, rpc=m.RPCResult(sent))
                for other in DIALECTS.values():
                    other.read(other.codec.encode(reply))
