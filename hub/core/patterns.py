"""Patterns of channel names and of RPC methods, such as `orders:{order_id}`, and which of several fits best.

A parameter stands for one character or more, up to the character that follows it in the pattern, and never
for a separator: the colon in a channel's name, the dot in a method's. `{name:path}` at the end stands for all
of the rest. Of two patterns, the more specific one has a literal character where the other one has a
parameter, at the first place where they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from hub.errors import SetupError
from hub.settings import CHANNEL_NAME

FOUND_MAX: Final = 4096
"""Names whose pattern is cached."""

_NAME_MAX: Final = 255
"""Characters of a name that is cached: a client chooses the name of a method."""

_PARAMETER: Final = re.compile(r"\{([^{}]*)\}")
_LITERAL, _NAMED, _REST, _END = range(4)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of names.

    Args:
        text: as the app wrote it.
        names: its parameters, in order.
        regex: matches the names that the pattern stands for.
        tokens: kind and text of each part; a parameter's text is empty.
    """

    text: str
    names: tuple[str, ...]
    regex: re.Pattern[str]
    tokens: tuple[tuple[int, str], ...]

    @property
    def rank(self) -> tuple[int, ...]:
        """The kind of each place: the most specific pattern is the least."""
        kinds = (kind for kind, text in self.tokens for _ in range(len(text) or 1))
        return (*kinds, _END)

    def is_rival(self, other: Pattern) -> bool:
        """Whether both may match one name, and neither is more specific."""
        if self.rank != other.rank:
            return False
        for index, ((_, mine), (_, theirs)) in enumerate(zip(self.tokens, other.tokens, strict=True)):
            if mine != theirs:
                # After a parameter, the first character decides where the parameter ends.
                return index > 0 and mine[0] != theirs[0]
        return True

    def match(self, name: str) -> dict[str, str] | None:
        """The parameters of a name; None if the pattern does not stand for it."""
        found = self.regex.fullmatch(name)
        return found.groupdict() if found else None


def channels_like(text: str) -> Pattern:
    """Read a pattern of channel names.

    Raises:
        SetupError: the pattern is malformed. The text says how to correct it.
    """
    pattern = _read(text, ":", "channel names")
    for kind, literal in pattern.tokens:
        if kind == _LITERAL and not CHANNEL_NAME.fullmatch(literal):
            wrong = next(each for each in literal if not CHANNEL_NAME.fullmatch(each))
            raise SetupError(
                f"the pattern {text!r} matches no channel: the name of a channel has no {wrong!r}; it has"
                " letters, digits and characters of _-.:#,/@=+~$&!%|"
            )
    return pattern


def methods_like(text: str) -> Pattern:
    """Read a pattern of RPC methods.

    Raises:
        SetupError: the pattern is malformed. The text says how to correct it.
    """
    return _read(text, ".", "methods")


def _read(text: str, separator: str, subject: str) -> Pattern:
    if not text:
        raise SetupError(f"a pattern of {subject} is empty: leave the pattern out to handle all {subject}")
    tokens: list[tuple[int, str]] = []
    names: list[str] = []
    regex = ""
    for part, following in _parts(text):
        if not part.startswith("{"):
            if "{" in part or "}" in part:
                raise SetupError(f"the pattern {text!r} has a brace without its partner: write {{name}}")
            tokens.append((_LITERAL, part))
            regex += re.escape(part)
            continue
        name, _, kind = part[1:-1].partition(":")
        if not name.isidentifier() or kind not in ("", "path"):
            raise SetupError(
                f"the pattern {text!r} has the parameter {part}: write {{name}} or {{name:path}}"
            )
        if name in names:
            raise SetupError(f"the pattern {text!r} has {{{name}}} twice: give each parameter its own name")
        if following.startswith("{") or (kind and following):
            raise SetupError(
                f"the pattern {text!r} does not say where {part} ends: write a literal character after it,"
                " and {name:path} at the end only"
            )
        names.append(name)
        tokens.append((_REST if kind else _NAMED, ""))
        regex += f"(?P<{name}>.+)" if kind else f"(?P<{name}>[^{re.escape(separator + following[:1])}]+)"
    return Pattern(text, tuple(names), re.compile(regex, re.DOTALL), tuple(tokens))


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Each literal and each parameter of a pattern, with all text that follows it."""
    at = 0
    for found in _PARAMETER.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], text[found.start() :]
        yield found.group(), text[found.end() :]
        at = found.end()
    if at < len(text):
        yield text[at:], ""


class PatternTable(Generic[_T]):
    """Values by pattern, with at most one value for all names that no pattern matches."""

    def __init__(self) -> None:
        self._patterns: list[tuple[Pattern, _T]] = []
        self._other: _T | None = None
        self._found: dict[str, tuple[_T, Mapping[str, str]] | None] = {}

    def __bool__(self) -> bool:
        return bool(self._patterns) or self._other is not None

    def __iter__(self) -> Iterator[_T]:
        """Every value, the most specific first."""
        yield from (value for _, value in self._patterns)
        if self._other is not None:
            yield self._other

    def rival(self, pattern: Pattern | None) -> _T | None:
        """The value that prevents a pattern from being added; None for the value of all other names."""
        if pattern is None:
            return self._other
        return next((value for each, value in self._patterns if each.is_rival(pattern)), None)

    def add(self, pattern: Pattern | None, value: _T) -> None:
        """Add a value, in place of one that has no pattern if this has none."""
        if pattern is None:
            self._other = value
        else:
            self._patterns.append((pattern, value))
            self._patterns.sort(key=lambda each: each[0].rank)
        self._found.clear()

    def discard_other(self) -> None:
        """Forget the value for all other names."""
        self._other = None
        self._found.clear()

    def find(self, name: str) -> tuple[_T, Mapping[str, str]] | None:
        """The value of the most specific pattern that matches a name, with the parameters of the name."""
        try:
            return self._found[name]
        except KeyError:
            pass
        found = self._search(name)
        if len(name) <= _NAME_MAX:
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            self._found[name] = found
        return found

    def _search(self, name: str) -> tuple[_T, Mapping[str, str]] | None:
        for pattern, value in self._patterns:
            parameters = pattern.match(name)
            if parameters is not None:
                return value, parameters
        return None if self._other is None else (self._other, {})
