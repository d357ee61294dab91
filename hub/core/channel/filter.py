"""Filters by tags: the node sends a subscriber only the publications that its filter passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from hub.protocol.messages import FilterNode, Publication

TERMS_MAX: Final = 128
"""Nodes of a filter and values in its lists, together. Each publication is compared with them."""

TEXT_CHARACTERS_MAX: Final = 8192
"""Characters of all keys and values of a filter, which are kept as long as the subscription."""

Tags: TypeAlias = Mapping[str, str]
Matcher: TypeAlias = Callable[[Tags], bool]

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)


class Filter:
    """A compiled filter. Equal filters have the same hash, by which subscribers are grouped.

    An absent tag equals no value, is in no list and starts with no text. A comparison of numbers is false if
    the tag or the filter's value is not a decimal number.

    Args:
        node: the root of the filter, as a client sent it.
        matches: whether tags pass.
    """

    __slots__ = ("_hash", "_matches", "_node")

    def __init__(self, node: FilterNode, matches: Matcher) -> None:
        self._node = node
        self._matches = matches
        self._hash = hash(node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._node == other._node

    def __hash__(self) -> int:
        return self._hash

    def passes(self, publication: Publication) -> bool:
        """Whether a publication passes the filter."""
        return self._matches(publication.tags or {})

    def passing(self, publications: Sequence[Publication]) -> list[Publication]:
        """The publications that pass the filter."""
        return [publication for publication in publications if self.passes(publication)]


def compiled(node: FilterNode) -> Filter | None:
    """Compile the filter that a client sent; None if it is malformed or too large."""
    if not _is_small(node):
        return None
    matches = _matcher(node)
    return Filter(node, matches) if matches else None


def _is_small(root: FilterNode) -> bool:
    # Without recursion, because the depth of the filter is not checked yet.
    terms = characters = 0
    nodes = [root]
    while nodes and terms <= TERMS_MAX:
        node = nodes.pop()
        terms += 1 + len(node.vals)
        characters += len(node.key) + len(node.val) + sum(map(len, node.vals))
        nodes += node.nodes
    return terms <= TERMS_MAX and characters <= TEXT_CHARACTERS_MAX


def _matcher(node: FilterNode) -> Matcher | None:
    if not node.op:
        return _leaf(node)
    matchers = [_matcher(child) for child in node.nodes]
    parts = [part for part in matchers if part is not None]
    if not parts or len(parts) != len(matchers) or node.op not in ("and", "or", "not"):
        return None
    if node.op == "and":
        return lambda tags: all(part(tags) for part in parts)
    if node.op == "or":
        return lambda tags: any(part(tags) for part in parts)
    only = parts[0]
    return (lambda tags: not only(tags)) if len(parts) == 1 else None


def _leaf(node: FilterNode) -> Matcher | None:
    key, value = node.key, node.val
    if node.cmp in ("ex", "nex"):
        if value or node.vals:
            return None
        return (lambda tags: key in tags) if node.cmp == "ex" else lambda tags: key not in tags
    if not key:
        return None
    if node.cmp in ("in", "nin"):
        if value or not node.vals:
            return None
        values = frozenset(node.vals)
        if node.cmp == "in":
            return lambda tags: tags.get(key) in values
        return lambda tags: tags.get(key) not in values
    if not value or node.vals:
        return None
    if node.cmp in _ORDERS:
        return _order(key, value, _ORDERS[node.cmp])
    return _TEXTS[node.cmp](key, value) if node.cmp in _TEXTS else None


def _order(key: str, value: str, holds: Callable[[Decimal, Decimal], bool]) -> Matcher:
    bound = _number(value)

    def match(tags: Tags) -> bool:
        number = _number(tags.get(key, ""))
        return bound is not None and number is not None and holds(number, bound)

    return match


def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


_ORDERS: Final[dict[str, Callable[[Decimal, Decimal], bool]]] = {
    "gt": Decimal.__gt__,
    "gte": Decimal.__ge__,
    "lt": Decimal.__lt__,
    "lte": Decimal.__le__,
}

_TEXTS: Final[dict[str, Callable[[str, str], Matcher]]] = {
    "eq": lambda key, value: lambda tags: tags.get(key) == value,
    "neq": lambda key, value: lambda tags: tags.get(key) != value,
    "sw": lambda key, value: lambda tags: tags.get(key, "").startswith(value),
    "ew": lambda key, value: lambda tags: tags.get(key, "").endswith(value),
    "ct": lambda key, value: lambda tags: value in tags.get(key, ""),
}
