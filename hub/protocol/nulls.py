"""Members that are null count as absent, as in the JSON of other servers and SDKs of the protocol."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

_PAYLOADS: Final = frozenset({"data", "info", "meta"})
"""Members that hold the app's own values, in which null is a value like any other."""

_STRINGS: Final = frozenset({"headers", "tags"})
"""Members that hold strings by name, among which a null is a fault."""

_MAPS: Final = frozenset({"subs"})
"""Members that hold requests by channel."""


def without_nulls(data: bytes, form: Any, *, is_map: bool = False) -> bytes:
    """Return an encoded value without the members of its maps that are null, at all levels but in payloads.

    Args:
        data: an encoded value whose depth was checked.
        form: the encoding: `msgspec.json` or `msgspec.msgpack`.
        is_map: whether the names of its members are no names of fields.
    """
    try:
        members: dict[str, Raw] = form.decode(data, type=dict[str, Raw])
    except msgspec.ValidationError:
        pass
    else:
        return bytes(form.encode(_kept(members, form, is_map=is_map)))
    try:
        items: list[Raw] = form.decode(data, type=list[Raw])
    except msgspec.ValidationError:
        return data
    return bytes(form.encode([Raw(without_nulls(bytes(item), form)) for item in items]))


def _kept(members: dict[str, Raw], form: Any, *, is_map: bool) -> dict[str, Raw]:
    null = form.encode(None)
    kept = {}
    for name, value in members.items():
        text = bytes(value)
        if not is_map and name in _PAYLOADS:
            kept[name] = value
        elif text != null:
            if is_map or name not in _STRINGS:
                value = Raw(without_nulls(text, form, is_map=not is_map and name in _MAPS))
            kept[name] = value
    return kept
