"""JSON text of an app's values, as a FastAPI endpoint that returns them would send it.

msgspec encodes dicts, dataclasses, `msgspec.Struct`s, dates, UUIDs, decimals and enums; Pydantic what msgspec
does not know: models (by alias), and its own types. A value without a JSON form is named, with its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from typing import Any, Final

import msgspec
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

_REMEDY: Final = "give a dict, a list, a str, a number, a dataclass, a Pydantic model or a msgspec.Struct"
_CONSTANT_KEYS: Final = {None: "null", True: "true", False: "false"}
_ARRAYS: Final = (Sequence, Set, ValuesView)
_KEY_CHARACTERS_MAX: Final = 40


def json_text(value: Any, name: str = "data") -> bytes:
    """Encode a value as JSON text.

    Args:
        value: of the app.
        name: what the error calls the value.

    Raises:
        TypeError: the value, or a part of it, has no JSON form. The text names the place and the remedy.
        ValueError: a string holds a lone surrogate.
    """
    try:
        return _encode(value)
    except Exception as error:
        fault = _fault(value, name, error)
        is_text = isinstance(error, UnicodeEncodeError)
    raise ValueError(fault) if is_text else TypeError(fault)


def _form(value: Any) -> Any:
    """The `enc_hook` of the encoder: a value that msgspec knows, in place of one that it does not."""
    if value is None or isinstance(value, bool):
        return _CONSTANT_KEYS[value]  # msgspec knows these values, but not as keys
    if isinstance(value, tuple):
        raise TypeError("a tuple is a key")
    return to_jsonable_python(value, by_alias=True, fallback=_known)


def _known(value: Any) -> Any:
    """A value that Pydantic knows, in place of one that it does not."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, enc_hook=_form)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, _ARRAYS):
        return list(value)
    raise TypeError(f"{_name_of(type(value))} has none; {_REMEDY}")


_encode: Final = msgspec.json.Encoder(enc_hook=_form).encode


def _fault(value: Any, place: str, error: Exception) -> str:
    """Say in one line which part of a value has no JSON form.

    Args:
        value: could not be encoded.
        place: of the value.
        error: of the encoder.
    """
    if isinstance(error, RecursionError):
        return f"{place} contains itself, or is nested too deeply: JSON has no form of it"
    parts = list(_parts(value))
    for name, part in parts:
        try:
            _encode(part)
        except Exception as inner:
            return _fault(part, place + name, inner)
    for key in value if isinstance(value, Mapping) else ():
        try:
            _encode({key: 0})
        except Exception:
            return f"{place} has the key {_short(key)}, which is no JSON string: give another key"
    if isinstance(error, UnicodeEncodeError):
        return f"{place} holds a lone surrogate, which is no character: remove it"
    if not parts and not isinstance(value, Iterator | BaseModel):
        return f"{place} is of type {_name_of(type(value))}, which has no JSON form: {_REMEDY}"
    return f"{place} has no JSON form: {' '.join(str(error).split())}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, each with what its place adds to the value's."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            is_name = isinstance(key, str) and key.isidentifier()
            yield f".{key}" if is_name else f"[{_short(key)}]", item
    elif isinstance(value, BaseModel):
        yield from ((f".{name}", item) for name, item in value)
    elif isinstance(value, msgspec.Struct):
        yield from ((f".{name}", getattr(value, name)) for name in value.__struct_fields__)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{each.name}", getattr(value, each.name)) for each in dataclasses.fields(value))
    elif isinstance(value, _ARRAYS) and not isinstance(value, str | bytes | bytearray | memoryview):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= _KEY_CHARACTERS_MAX else f"{text[:_KEY_CHARACTERS_MAX]}…"


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
