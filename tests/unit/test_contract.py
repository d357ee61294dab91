"""hub/handlers/contract.py and hub/endpoints/asyncapi.py: what handlers promise, in documents for others."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel

from hub import Error, Hub, PublishedEvent, RPCReply, Settings, SubscribeEvent
from hub.endpoints.asyncapi import document
from hub.handlers.contract import Contract


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    amount: int


class Order(BaseModel):
    lines: list[Line]
    parent: Order | None = None


class Cancel(msgspec.Struct):
    order: int


@pytest.fixture
def hub() -> Hub:
    return Hub(Settings(dev=True))


def described(hub: Hub) -> dict[str, Any]:
    made = document(Contract(hub._handlers), "1.2.3")
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(made))
    return decoded


def references(part: Any) -> list[str]:
    """Every reference in a document."""
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in references(value)]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


def test_the_document_of_an_app(hub: Hub) -> None:
    @hub.on_subscribe("orders:{order_id}")
    async def may(event: SubscribeEvent, order_id: int, since: Line | None = None) -> None:
        """Who may follow an order.

        More.
        """

    @hub.on_publish("orders:{order_id}")
    async def place(order_id: int, order: Order) -> None: ...

    @hub.after_publish("log:{color}:{rest:path}")
    async def keep(event: PublishedEvent, color: Color, line: Line) -> None: ...

    @hub.rpc("orders.cancel")
    async def cancel(request: Cancel) -> list[Order] | Error:
        return []

    @hub.rpc("ping")
    async def ping() -> None: ...

    @hub.rpc("any")
    async def anything() -> RPCReply:
        return RPCReply()

    @hub.on_rpc
    async def other(event: Any) -> None: ...

    made = described(hub)
    assert made["asyncapi"] == "3.0.0"
    assert made["info"]["version"] == "1.2.3"
    assert set(made["channels"]) == {
        "orders_order_id",
        "log_color_rest_path",
        "rpc_orders_cancel",
        "rpc_ping",
        "rpc_any",
    }
    orders = made["channels"]["orders_order_id"]
    assert orders["address"] == "orders:{order_id}"
    assert orders["parameters"] == {"order_id": {"description": "integer"}}
    assert orders["description"] == "Who may follow an order."
    assert orders["messages"]["publication"]["payload"] == {"$ref": "#/components/schemas/Order"}
    log = made["channels"]["log_color_rest_path"]
    assert (log["address"], log["parameters"]) == (
        "log:{color}:{rest}",
        {"color": {"enum": ["red", "blue"]}, "rest": {}},
    )
    assert {name: each["action"] for name, each in made["operations"].items()} == {
        "orders_order_id_subscribe": "send",
        "orders_order_id_publish": "receive",
        "log_color_rest_path_subscribe": "send",
        "rpc_orders_cancel": "receive",
        "rpc_ping": "receive",
        "rpc_any": "receive",
    }
    cancel_messages = made["channels"]["rpc_orders_cancel"]["messages"]
    assert cancel_messages["request"]["payload"] == {"$ref": "#/components/schemas/Cancel"}
    assert cancel_messages["result"]["payload"]["items"] == {"$ref": "#/components/schemas/Order"}
    assert "payload" not in made["channels"]["rpc_ping"]["messages"]["result"]
    for reference in references(made):
        found: Any = made
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_two_models_of_one_name_have_two_schemas(hub: Hub) -> None:
    first = Order
    second = type("Order", (BaseModel,), {"__annotations__": {"other": int}})

    async def one(order) -> None: ...  # type: ignore[no-untyped-def]
    async def two(order) -> None: ...  # type: ignore[no-untyped-def]

    one.__annotations__["order"] = first
    two.__annotations__["order"] = second
    hub.rpc("one")(one)
    hub.rpc("two")(two)
    schemas = described(hub)["components"]["schemas"]
    assert "lines" in schemas["Order"]["properties"]
    assert "other" in schemas["Order2"]["properties"]


def test_a_union_by_a_tag_has_no_discriminator_of_openapi(hub: Hub) -> None:
    class Circle(msgspec.Struct, tag=True):
        radius: int

    class Square(msgspec.Struct, tag=True):
        side: int

    @hub.rpc("area")
    async def area(data: Annotated[Circle | Square, "a shape"]) -> int:
        return 1

    assert "discriminator" not in json.dumps(described(hub))


def test_an_app_without_typed_handlers(hub: Hub) -> None:
    made = described(hub)
    assert (made["channels"], made["operations"], made["components"]) == ({}, {}, {"schemas": {}})
