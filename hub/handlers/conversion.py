"""Converting what clients send to the types that handlers ask for, by Pydantic or by msgspec."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec
import msgspec.inspect
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

FAULT_CHARACTERS_MAX: Final = 200
"""Longest description of a fault, which the client is told."""

_SCALARS: Final = (str, int, float, bytes, Decimal, Enum, UUID, date, time, timedelta, NoneType)

_MSGSPEC_FAULT: Final = re.compile(r"(?P<text>.*) - at `\$(?P<path>.*)`", re.DOTALL)


class InputFault(Exception):  # noqa: N818 - a client's fault, which becomes a reply
    """What a client sent does not fit its type.

    Args:
        path: of the part that does not fit, such as `lines.0.amount`.
        text: why not.
        more: further parts that do not fit.
    """

    def __init__(self, path: str, text: str, more: int = 0) -> None:
        suffix = f" (and {more} more)" if more else ""
        whole = " ".join(f"{path or 'data'}: {text}".split())
        room = FAULT_CHARACTERS_MAX - len(suffix)
        super().__init__((whole if len(whole) <= room else f"{whole[: room - 1]}…") + suffix)


class Converter(ABC):
    """Converts to one type."""

    @abstractmethod
    def from_text(self, text: str, name: str) -> Any:
        """Convert a parameter of a pattern.

        Args:
            text: its part of the channel's or method's name.
            name: of the parameter.

        Raises:
            InputFault: the text does not fit.
        """

    @abstractmethod
    def from_payload(self, value: Any) -> Any:
        """Convert a parsed payload: a JSON value, or `bytes` of a binary payload.

        Raises:
            InputFault: the payload does not fit.
        """

    @abstractmethod
    def schema(self, reference: str, *, is_answer: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """The JSON Schema of the type, and the schemas that it refers to by their names.

        Args:
            reference: what a reference to a named schema begins with.
            is_answer: whether the app sends values of the type, in place of clients.
        """


def converter(annotation: Any) -> Converter:
    """The converter to an annotated type.

    Raises:
        TypeError: no payload can be converted to the type. The text says why.
    """
    if annotation in (Any, object):
        return _AnyConverter()
    if any(_is_of_msgspec(each) for each in _parts(annotation)):
        return _MsgspecConverter(annotation)
    try:
        return _PydanticConverter(annotation)
    except (PydanticUserError, NameError) as error:
        try:
            # A dataclass or TypedDict of structs; on Python 3.11 any TypedDict of `typing`.
            return _MsgspecConverter(annotation)
        except TypeError:
            raise TypeError(str(error).partition("\n")[0]) from None


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation, and everything that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_of_msgspec(part: Any) -> bool:
    return isinstance(part, msgspec.Meta) or (isinstance(part, type) and issubclass(part, msgspec.Struct))


class _AnyConverter(Converter):
    def from_text(self, text: str, name: str) -> Any:
        return text

    def from_payload(self, value: Any) -> Any:
        return value

    def schema(self, reference: str, *, is_answer: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}


class _PydanticConverter(Converter):
    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        if not self._adapter.pydantic_complete:
            self._adapter.rebuild(raise_errors=True)

    def from_text(self, text: str, name: str) -> Any:
        try:
            return self._adapter.validate_strings(text)
        except ValidationError as error:
            raise _fault(error, name) from None

    def from_payload(self, value: Any) -> Any:
        try:
            if isinstance(value, bytes):
                return self._adapter.validate_python(value)
            # As JSON, so that a strict model takes the texts that stand for dates, ids and enums.
            return self._adapter.validate_json(msgspec.json.encode(value))
        except ValidationError as error:
            raise _fault(error) from None

    def schema(self, reference: str, *, is_answer: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = self._adapter.json_schema(
            ref_template=f"{reference}{{model}}", mode="serialization" if is_answer else "validation"
        )
        return schema, schema.pop("$defs", {})


def _fault(error: ValidationError, name: str = "") -> InputFault:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(map(str, (name, *first["loc"]) if name else first["loc"]))
    return InputFault(path, first["msg"], error.error_count() - 1)


class _MsgspecConverter(Converter):
    def __init__(self, annotation: Any) -> None:
        try:
            info = msgspec.inspect.type_info(annotation)
        except NameError as error:
            raise TypeError(str(error)) from None
        if custom := next(_custom_types(info, set()), None):
            raise TypeError(f"msgspec cannot read {custom!r}")
        msgspec.json.Decoder(annotation)  # raises TypeError for a type that msgspec cannot decode
        self._annotation = annotation

    def from_text(self, text: str, name: str) -> Any:
        try:
            return msgspec.convert(text, self._annotation, strict=False)
        except msgspec.ValidationError as error:
            raise _msgspec_fault(error, name) from None

    def from_payload(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self._annotation, str_keys=True)
        except msgspec.ValidationError as error:
            raise _msgspec_fault(error) from None

    def schema(self, reference: str, *, is_answer: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        [schema], definitions = msgspec.json.schema_components(
            [self._annotation], ref_template=f"{reference}{{name}}"
        )
        return schema, definitions


def _custom_types(info: Any, seen: set[int]) -> Iterator[Any]:
    """The types in a type's description that msgspec does not know."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, tuple):
        for part in info:
            yield from _custom_types(part, seen)
    elif isinstance(info, msgspec.Struct):
        for name in info.__struct_fields__:
            yield from _custom_types(getattr(info, name), seen)


def _msgspec_fault(error: msgspec.ValidationError, name: str = "") -> InputFault:
    """A fault by the text of msgspec's error, which ends with the path, as in `$.lines[0].amount`."""
    text, path = str(error), name
    if found := _MSGSPEC_FAULT.fullmatch(text):
        text = found["text"]
        steps = found["path"].replace("[", ".").replace("]", "").strip(".")
        path = ".".join(filter(None, (name, steps)))
    return InputFault(path, text)


def is_scalar(annotation: Any) -> bool:
    """Whether a type is of single values, such as `int`, `UUID` or an enum, or an alternative of these."""
    if supertype := getattr(annotation, "__supertype__", None):  # of typing.NewType
        return is_scalar(supertype)
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_scalar(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return all(map(is_scalar, get_args(annotation)))
    return origin is Literal or (isinstance(annotation, type) and issubclass(annotation, _SCALARS))
