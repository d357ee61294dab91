"""hub/protocol/jsonable.py: the JSON text of an app's values, and the error of a value without one."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from collections import ChainMap, OrderedDict, UserDict, deque
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, field_serializer
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hub.protocol.jsonable import json_text

NOON = datetime.datetime(2026, 11, 30, 12, 0, 0, 500, tzinfo=datetime.UTC)
ID = uuid.UUID("6e8bc430-9c3a-11d9-9669-0800200c9a66")


class Status(enum.Enum):
    PAID = "paid"


class Level(enum.IntEnum):
    HIGH = 3


class Line(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    line_id: int = Field(default=1, serialization_alias="lineId")
    price: Decimal = Decimal("9.90")
    extra: Any = None


@dataclasses.dataclass
class Order:
    line: Any
    at: datetime.datetime = NOON


@pydantic_dataclass
class Checked:
    count: int


class Message(msgspec.Struct):
    text: Any
    kind: str = msgspec.field(default="chat", name="type")


class Point(NamedTuple):
    x: int
    y: int


LINE = {"lineId": 1, "price": "9.90", "extra": None}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, None, True, 1.5, "é"]}, {"a": [1, None, True, 1.5, "é"]}),
        (Line(), LINE),
        ([Line()], [LINE]),
        (Line(extra=Message(Line())), {**LINE, "extra": {"text": LINE, "type": "chat"}}),
        (
            Line(extra=MappingProxyType({"a": deque([Message(1)])})),
            {**LINE, "extra": {"a": [{"text": 1, "type": "chat"}]}},
        ),
        (RootModel[list[int]]([1]), [1]),
        (Order(Line()), {"line": LINE, "at": "2026-11-30T12:00:00.000500Z"}),
        (Checked(2), {"count": 2}),
        (Message(Order(None)), {"text": {"line": None, "at": "2026-11-30T12:00:00.000500Z"}, "type": "chat"}),
        (
            {"at": NOON, "day": NOON.date(), "id": ID},
            {"at": "2026-11-30T12:00:00.000500Z", "day": "2026-11-30", "id": str(ID)},
        ),
        (
            {"sum": Decimal("1.50"), "status": Status.PAID, "level": Level.HIGH},
            {"sum": "1.50", "status": "paid", "level": 3},
        ),
        ({Status.PAID: 1, ID: 2, 3: 4}, {"paid": 1, str(ID): 2, "3": 4}),
        ({None: 1, True: 2, False: 3}, {"null": 1, "true": 2, "false": 3}),
        ((1, Point(2, 3), {4}, frozenset({5})), [1, [2, 3], [4], [5]]),
        ((each for each in [1, Line()]), [1, LINE]),
        ([OrderedDict(a=1), ChainMap({"b": 2}), UserDict(c=3)], [{"a": 1}, {"b": 2}, {"c": 3}]),
        ([range(2), {"a": 1}.values(), {"b": 1}.keys()], [[0, 1], [1], ["b"]]),
        ({"path": Path("/a"), "secret": SecretStr("s")}, {"path": "/a", "secret": "**********"}),
        ([float("nan"), float("inf")], [None, None]),
        ({"binary": b"\xff"}, {"binary": "/w=="}),
    ],
)
def test_a_value_with_a_json_form(value: Any, expected: Any) -> None:
    assert json.loads(json_text(value)) == expected


@pytest.mark.parametrize(
    "value",
    [
        Line(),
        {"line": Line(extra=[Line()])},
        Order({"at": NOON.date()}),
        {"id": ID, "status": Status.PAID, "level": Level.HIGH, "set": {1}},
        deque([Line()]),
    ],
)
def test_the_json_form_is_that_of_fastapi(value: Any) -> None:
    """FastAPI's encoder writes a date and time with +00:00, and a decimal outside a model as a number."""
    sent = json.loads(json_text(value))
    expected = jsonable_encoder(value)
    if isinstance(value, Order):
        sent["at"], expected["at"] = (
            datetime.datetime.fromisoformat(each["at"]) for each in (sent, expected)
        )
    assert sent == expected


class Customer:
    """A class like one of an ORM."""


class Broken(BaseModel):
    number: int = 1

    @field_serializer("number")
    def fail(self, number: int) -> int:
        raise KeyError("first\nsecond")


REMEDY = "give a dict, a list, a str, a number, a dataclass, a Pydantic model or a msgspec.Struct"
CUSTOMER = f"is of type {__name__}.Customer, which has no JSON form: {REMEDY}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), f"data is of type object, which has no JSON form: {REMEDY}"),
        ({"orders": [1, {"customer": Customer()}]}, f"data.orders[1].customer {CUSTOMER}"),
        ({"two words": {7: Customer()}}, f"data['two words'][7] {CUSTOMER}"),
        ({"k" * 100 + " ": Customer()}, f"data['{'k' * 39}…] {CUSTOMER}"),
        (Line(extra={"by": Customer()}), f"data.extra.by {CUSTOMER}"),
        (Line(extra=Message(Customer())), f"data.extra.text {CUSTOMER}"),
        (Order(Message([Customer()])), f"data.line.text[0] {CUSTOMER}"),
        ((1, deque([Customer()])), f"data[1][0] {CUSTOMER}"),
        ((each for each in [Customer()]), f"data has no JSON form: {__name__}.Customer has none; {REMEDY}"),
        (Order, f"data is of type type, which has no JSON form: {REMEDY}"),
        ({"a": {(1, 2): 3}}, "data.a has the key (1, 2), which is no JSON string: give another key"),
        (MappingProxyType({Customer: 1}), f"data has the key {Customer!r}"[:57]),
        ({"text": ["\ud800"]}, "data.text[0] holds a lone surrogate, which is no character: remove it"),
        ([Broken()], "data[0] has no JSON form: Error calling function `fail`: KeyError: 'first\\nsecond'"),
    ],
)
def test_a_value_without_a_json_form_is_named_with_its_place(value: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as failed:
        json_text(value)
    assert str(failed.value).startswith(text)
    assert "\n" not in str(failed.value)
    assert failed.value.__context__ is None


def test_a_lone_surrogate_is_a_wrong_value_and_anything_else_a_wrong_type() -> None:
    with pytest.raises(ValueError, match="info holds a lone surrogate"):
        json_text("\ud800", "info")
    with pytest.raises(TypeError, match="info is of type object"):
        json_text(object(), "info")


def test_a_value_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append({"loop": loop})
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(TypeError, match="data contains itself, or is nested too deeply"):
            json_text(value)
