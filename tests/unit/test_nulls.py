"""hub/protocol/nulls.py: members that are null count as absent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hub.protocol import messages as m
from hub.protocol.json import JSONCodec
from hub.protocol.msgpack import MessagePackCodec
from hub.protocol.nulls import without_nulls

JSON = JSONCodec()
PACK = MessagePackCodec()


@pytest.mark.parametrize("form", [msgspec.json, msgspec.msgpack])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"a": None, "b": 1}, {"b": 1}),
        ({"a": {"b": None}, "c": [{"d": None, "e": "f"}, None, 2]}, {"a": {}, "c": [{"e": "f"}, None, 2]}),
        (
            {"data": None, "info": {"a": None}, "meta": [None]},
            {"data": None, "info": {"a": None}, "meta": [None]},
        ),
        ({"tags": None, "headers": {"a": None}}, {"headers": {"a": None}}),
        ({"subs": {"data": {"token": None}, "tags": {"token": None}}}, {"subs": {"data": {}, "tags": {}}}),
        (None, None),
        (5, 5),
        ("null", "null"),
    ],
)
def test_null_members_are_dropped_outside_payloads(form: Any, given: Any, kept: Any) -> None:
    assert form.decode(without_nulls(form.encode(given), form)) == kept


FIELDS: dict[str, dict[str, Any]] = {
    "connect": {
        "token": None,
        "data": None,
        "subs": None,
        "name": None,
        "version": None,
        "headers": None,
        "flag": None,
    },
    "subscribe": {
        **{"channel": "a", "token": None, "recover": None, "epoch": None, "offset": None, "positioned": None},
        **{"recoverable": None, "join_leave": None, "delta": None, "tf": None, "flag": None},
    },
    "history": {"channel": "a", "limit": None, "since": {"offset": 3, "epoch": None}, "reverse": None},
    "rpc": {"method": None, "data": {"kept": None}},
    "refresh": {"token": None},
    "sub_refresh": {"channel": "a", "token": None},
    "presence": {"channel": None},
    "unsubscribe": {"channel": None},
}


@pytest.mark.parametrize("method", FIELDS)
def test_a_command_with_null_members_is_read_in_both_encodings(method: str) -> None:
    given = {"id": 7, method: FIELDS[method]}
    [command] = JSON.decode(msgspec.json.encode(given))
    assert isinstance(command, m.Command), command
    assert command.id == 7
    assert len(command.requests()) == 1
    [packed] = PACK.decode(msgspec.msgpack.encode(given))
    assert isinstance(packed, m.Command), packed
    assert m.command_name(packed) == m.command_name(command) == method


def test_the_payload_beside_a_null_member_stays_as_it_was() -> None:
    [command] = JSON.decode(b'{"id":1,"rpc":{"method":null,"data":{ "kept" : null }}}')
    assert isinstance(command, m.Command)
    assert command.rpc
    assert bytes(command.rpc.data) == b'{ "kept" : null }'  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'{"id":1,"connect":{"token":null,"name":5}}', "Expected `str`, got `int` - at `$.connect.name`"),
        (b'{"id":1,"connect":{"token":5}}', "Expected `str`, got `int` - at `$.connect.token`"),
        (b'{"id":1,"connect":{"token":null},"id":2}', "duplicate key"),
        (b'{"id":1,"connect":{"name":5,"data":"\\ud800null"}}', "a string holds a lone surrogate"),
    ],
)
def test_a_fault_names_the_member(text: bytes, fault: str) -> None:
    [found] = JSON.decode(text)
    assert isinstance(found, m.Fault)
    assert fault in found.reason


def test_a_fault_in_messagepack_names_the_member() -> None:
    [found] = PACK.decode(msgspec.msgpack.encode({"id": 1, "connect": {"token": None, "name": 5}}))
    assert found == m.Fault(1, "Expected `str`, got `int` - at `$.connect.name`")
