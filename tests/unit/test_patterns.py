"""hub/core/patterns.py: which names a pattern matches, and which of several patterns is most specific."""

from __future__ import annotations

import pytest

from hub.core import patterns
from hub.core.patterns import PatternTable, channels_like, methods_like
from hub.errors import SetupError


@pytest.mark.parametrize(
    ("pattern", "name", "parameters"),
    [
        ("lobby", "lobby", {}),
        ("orders:{order_id}", "orders:7", {"order_id": "7"}),
        ("orders:{order_id}", "orders:7/lines", {"order_id": "7/lines"}),
        ("orders:{order_id}", "orders:a.b", {"order_id": "a.b"}),
        ("{namespace}:{name}", "orders:7", {"namespace": "orders", "name": "7"}),
        ("docs:{team}/{doc}", "docs:a/b", {"team": "a", "doc": "b"}),
        ("docs:{team}/{doc}", "docs:a/b/c", {"team": "a", "doc": "b/c"}),
        ("docs:{path:path}", "docs:a:b:c", {"path": "a:b:c"}),
        ("dialog:{a}#{users}", "dialog:x#ann,bob", {"a": "x", "users": "ann,bob"}),
        ("a.c:{x}", "a.c:1", {"x": "1"}),
    ],
)
def test_a_pattern_matches(pattern: str, name: str, parameters: dict[str, str]) -> None:
    assert channels_like(pattern).match(name) == parameters


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("lobby", "lobby2"),
        ("orders:{order_id}", "orders:"),
        ("orders:{order_id}", "orders"),
        ("orders:{order_id}", "orders:7:8"),
        ("orders:{order_id}", "Orders:7"),
        ("docs:{team}/{doc}", "docs:a"),
        ("docs:{path:path}", "docs:"),
        ("a.c:{x}", "abc:1"),
    ],
)
def test_a_pattern_does_not_match(pattern: str, name: str) -> None:
    assert channels_like(pattern).match(name) is None


def test_a_method_is_separated_by_dots() -> None:
    assert methods_like("orders.{action}").match("orders.cancel") == {"action": "cancel"}
    assert methods_like("orders.{action}").match("orders.cancel.all") is None
    assert methods_like("orders.{action}").match("orders.a:b") == {"action": "a:b"}
    assert methods_like("say hello").match("say hello") == {}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "is empty: leave the pattern out"),
        ("orders:{order id}", "has the parameter {order id}: write {name}"),
        ("orders:{}", "has the parameter {}: write {name}"),
        ("orders:{id:int}", "has the parameter {id:int}: write {name} or {name:path}"),
        ("orders:{id", "a brace without its partner"),
        ("orders:id}", "a brace without its partner"),
        ("{a}:{a}", "has {a} twice"),
        ("a:{b}{c}", "does not say where {b} ends"),
        ("a:{b:path}/c", "does not say where {b:path} ends"),
        ("orders {id}", "the name of a channel has no ' '"),
        ("ordérs:{id}", "the name of a channel has no 'é'"),
    ],
)
def test_a_malformed_pattern_is_refused(pattern: str, text: str) -> None:
    with pytest.raises(SetupError) as refused:
        channels_like(pattern)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("chat:lobby", "chat:lobby"),
        ("chat:vip7", "chat:vip{n}"),
        ("chat:a-b", "chat:{a}-{b}"),
        ("chat:a", "chat:{room}"),
        ("chat:a:b", "chat:{rest:path}"),
        ("news:a", "{namespace}:{name}"),
        ("news", ""),
        ("a:b:c", "{rest:path}"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_most_specific_pattern_wins(name: str, best: str, turned: bool) -> None:
    every = [
        "{rest:path}",
        "{namespace}:{name}",
        "chat:{rest:path}",
        "chat:{room}",
        "chat:{a}-{b}",
        "chat:vip{n}",
        "chat:lobby",
    ]
    if not best:
        every.remove("{rest:path}")
    table = PatternTable[str]()
    for text in reversed(every) if turned else every:
        table.add(channels_like(text), text)
    found = table.find(name)
    assert (found[0] if found else "") == best
    assert table.find(name) is found  # of the cache


def test_what_no_pattern_matches() -> None:
    table = PatternTable[str]()
    assert not table
    table.add(channels_like("a:{b}"), "pattern")
    assert table
    assert table.find("c") is None
    table.add(None, "other")
    assert table.find("c") == ("other", {})
    assert table.find("a:1") == ("pattern", {"b": "1"})
    assert list(table) == ["pattern", "other"]
    assert table.rival(None) == "other"
    table.discard_other()
    assert table.find("c") is None
    assert list(table) == ["pattern"]


@pytest.mark.parametrize(
    ("one", "two", "is_rival"),
    [
        ("a:{b}", "a:{c}", True),
        ("a:{b}", "a:{c:path}", False),
        ("a:{b}", "c:{b}", False),
        ("a:{b}", "a:{b}.c", False),
        ("a:{b}-{c}", "a:{b}.{c}", True),
        ("a:{b}.on", "a:{b}.up", False),
        ("a:{b}-on", "a:{b}.on", True),
    ],
)
def test_rivals(one: str, two: str, is_rival: bool) -> None:
    table = PatternTable[str]()
    table.add(channels_like(one), one)
    assert table.rival(channels_like(two)) == (one if is_rival else None)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "FOUND_MAX", 2)
    table = PatternTable[str]()
    table.add(channels_like("a:{b}"), "value")
    for number in range(5):
        assert table.find(f"a:{number}") == ("value", {"b": str(number)})
        assert len(table._found) <= 2
    long = "a:" + "b" * 300
    assert table.find(long) == ("value", {"b": "b" * 300})
    assert long not in table._found
