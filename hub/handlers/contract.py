"""What an app's handlers take and return, with JSON Schemas: the base of AsyncAPI and of TypeScript types."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, Union

from hub.core.hooks import RPCReply
from hub.handlers.conversion import Converter, converter
from hub.handlers.handler import AppHandler, alternatives
from hub.handlers.registry import HandlerTable
from hub.protocol.codes import Disconnect, Error

Schema: TypeAlias = dict[str, Any]

REFERENCE: Final = "#/components/schemas/"
"""What a reference to a named schema begins with."""


@dataclass(slots=True)
class ChannelContract:
    """The channels of a pattern.

    Args:
        parameters: schemas of the pattern's parameters.
        publication: schema of what clients publish; None where no handler says.
        subscribe_data: schema of what clients send when they subscribe; None where no handler says.
        may_publish: whether a handler decides on publishes of clients.
        description: of the handlers.
    """

    parameters: dict[str, Schema] = field(default_factory=dict)
    publication: Schema | None = None
    subscribe_data: Schema | None = None
    may_publish: bool = False
    description: str = ""


@dataclass(slots=True)
class MethodContract:
    """A method.

    Args:
        parameters: schemas of the pattern's parameters.
        request: schema of the argument; None for no argument.
        result: schema of the result; None for no result.
        description: of the handler.
    """

    parameters: dict[str, Schema]
    request: Schema | None
    result: Schema | None
    description: str = ""


class Contract:
    """What the handlers with patterns take and return.

    Args:
        handlers: of an app.
    """

    def __init__(self, handlers: HandlerTable) -> None:
        self.channels: Final[dict[str, ChannelContract]] = {}
        self.methods: Final[dict[str, MethodContract]] = {}
        self.schemas: Final[dict[str, Schema]] = {}
        """Named schemas, which the others refer to."""
        for handler in sorted(handlers.all(), key=lambda each: each.label):
            if handler.pattern is None or handler.plan is None:
                continue
            if handler.hook == "rpc":
                self._add_method(handler, handler.pattern.text)
            else:
                self._add_channel(handler, handler.pattern.text)

    def _add_channel(self, handler: AppHandler, pattern: str) -> None:
        channel = self.channels.setdefault(pattern, ChannelContract())
        channel.parameters |= self._parameters(handler)
        channel.description = channel.description or _description(handler)
        payload = self._payload(handler)
        if handler.hook == "subscribe":
            channel.subscribe_data = payload
        elif channel.publication is None or handler.hook == "publish":
            channel.publication = payload or channel.publication
        channel.may_publish |= handler.hook == "publish"

    def _add_method(self, handler: AppHandler, pattern: str) -> None:
        returned = handler.hints.of(handler.function).get("return", Any)
        kinds = [each for each in alternatives(returned) if each not in (Error, Disconnect)]
        result: Schema | None = None
        if RPCReply in kinds:
            result = {}
        elif kinds and kinds != [type(None)]:
            result = self._named(converter(Union[tuple(kinds)]), is_answer=True)  # noqa: UP007 - of a list
        self.methods[pattern] = MethodContract(
            self._parameters(handler), self._payload(handler), result, _description(handler)
        )

    def _parameters(self, handler: AppHandler) -> dict[str, Schema]:
        assert handler.pattern is not None
        assert handler.plan is not None
        found: dict[str, Schema] = {name: {"type": "string"} for name in handler.pattern.names}
        for each in handler.plan.inputs:
            if each.parameter:
                found[each.parameter] = self._named(each.converter)
        return found

    def _payload(self, handler: AppHandler) -> Schema | None:
        assert handler.plan is not None
        return next((self._named(each.converter) for each in handler.plan.inputs if not each.parameter), None)

    def _named(self, of: Converter, *, is_answer: bool = False) -> Schema:
        """The schema of a type; the schemas that it refers to become named ones of the contract."""
        schema, definitions = of.schema(REFERENCE, is_answer=is_answer)
        names: dict[str, str] = {}
        for name, definition in definitions.items():
            names[name] = self._free(name, definition)
        for name, definition in definitions.items():
            self.schemas[names[name]] = _renamed(definition, names)
        schema = dict(_renamed(schema, names))
        title = schema.get("title")
        if title is None or schema.get("type") != "object":
            return schema
        name = self._free(title, schema)
        self.schemas[name] = schema
        return {"$ref": REFERENCE + name}

    def _free(self, name: str, schema: Schema) -> str:
        """A name that no other schema has."""
        free, number = name, 1
        while free in self.schemas and self.schemas[free] != schema:
            number += 1
            free = f"{name}{number}"
        return free


def _description(handler: AppHandler) -> str:
    return (inspect.getdoc(handler.function) or "").partition("\n")[0]


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """A schema whose references have other names, without what AsyncAPI has another form of."""
    if isinstance(schema, dict):
        return {
            key: _renamed_member(key, value, names) for key, value in schema.items() if key != "discriminator"
        }
    return [_renamed(each, names) for each in schema] if isinstance(schema, list) else schema


def _renamed_member(key: str, value: Any, names: Mapping[str, str]) -> Any:
    if key == "$ref" and isinstance(value, str):
        name = value.removeprefix(REFERENCE)
        return REFERENCE + names.get(name, name)
    return _renamed(value, names)
