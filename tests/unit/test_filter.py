"""hub.core.channel.filter: what each comparison lets through, and which filters are none."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.channel.filter import TERMS_MAX, TEXT_CHARACTERS_MAX, Filter, compiled
from hub.protocol.messages import FilterNode, Publication

STOCK = {"ticker": "AAPL", "source": "NASDAQ", "price": "150.25", "volume": "1000", "note": ""}


def node(**fields: object) -> FilterNode:
    return msgspec.convert(fields, FilterNode)


def passes(tags: dict[str, str], **fields: object) -> bool:
    wanted = compiled(node(**fields))
    assert wanted is not None
    return wanted.passes(Publication(tags=tags))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"key": "ticker", "cmp": "eq", "val": "AAPL"}, True),
        ({"key": "ticker", "cmp": "eq", "val": "MSFT"}, False),
        ({"key": "absent", "cmp": "eq", "val": "AAPL"}, False),
        ({"key": "ticker", "cmp": "neq", "val": "MSFT"}, True),
        ({"key": "ticker", "cmp": "neq", "val": "AAPL"}, False),
        ({"key": "absent", "cmp": "neq", "val": "AAPL"}, True),
        ({"key": "ticker", "cmp": "in", "vals": ["MSFT", "AAPL"]}, True),
        ({"key": "absent", "cmp": "in", "vals": ["MSFT", "AAPL"]}, False),
        ({"key": "ticker", "cmp": "nin", "vals": ["MSFT", "AAPL"]}, False),
        ({"key": "absent", "cmp": "nin", "vals": ["MSFT"]}, True),
        ({"key": "note", "cmp": "ex"}, True),
        ({"key": "absent", "cmp": "ex"}, False),
        ({"key": "note", "cmp": "nex"}, False),
        ({"key": "absent", "cmp": "nex"}, True),
        ({"key": "ticker", "cmp": "sw", "val": "AA"}, True),
        ({"key": "ticker", "cmp": "sw", "val": "PL"}, False),
        ({"key": "ticker", "cmp": "ew", "val": "PL"}, True),
        ({"key": "ticker", "cmp": "ew", "val": "AA"}, False),
        ({"key": "source", "cmp": "ct", "val": "SDA"}, True),
        ({"key": "absent", "cmp": "ct", "val": "SDA"}, False),
        ({"key": "price", "cmp": "gt", "val": "150.249"}, True),
        ({"key": "price", "cmp": "gt", "val": "150.25"}, False),
        ({"key": "price", "cmp": "gte", "val": "150.250"}, True),
        ({"key": "price", "cmp": "gte", "val": "200"}, False),
        ({"key": "price", "cmp": "lt", "val": "1000"}, True),
        ({"key": "volume", "cmp": "lt", "val": "-5"}, False),
        ({"key": "volume", "cmp": "lte", "val": "1000.0"}, True),
        ({"key": "volume", "cmp": "lte", "val": "999"}, False),
        ({"key": "ticker", "cmp": "gt", "val": "1"}, False),
        ({"key": "absent", "cmp": "lt", "val": "1"}, False),
        ({"key": "price", "cmp": "lt", "val": "Infinity"}, False),
        ({"key": "price", "cmp": "lt", "val": "1e9"}, False),
    ],
)
def test_a_comparison_lets_through_what_it_names(fields: dict[str, object], expected: bool) -> None:
    assert passes(STOCK, **fields) is expected


APPLE = {"key": "ticker", "cmp": "eq", "val": "AAPL"}
NYSE = {"key": "source", "cmp": "eq", "val": "NYSE"}


@pytest.mark.parametrize(
    ("op", "nodes", "expected"),
    [
        ("and", [APPLE], True),
        ("and", [APPLE, NYSE], False),
        ("or", [APPLE, NYSE], True),
        ("or", [NYSE], False),
        ("not", [NYSE], True),
        ("not", [APPLE], False),
    ],
)
def test_comparisons_are_joined(op: str, nodes: list[object], expected: bool) -> None:
    assert passes(STOCK, op=op, nodes=nodes) is expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"key": "ticker"},
        {"key": "ticker", "cmp": "like", "val": "A"},
        {"cmp": "eq", "val": "A"},
        {"key": "ticker", "cmp": "eq"},
        {"key": "ticker", "cmp": "eq", "val": "A", "vals": ["A"]},
        {"key": "ticker", "cmp": "gt", "vals": ["1"]},
        {"key": "ticker", "cmp": "in"},
        {"key": "ticker", "cmp": "nin", "vals": ["A"], "val": "A"},
        {"key": "ticker", "cmp": "ex", "val": "A"},
        {"key": "ticker", "cmp": "nex", "vals": ["A"]},
        {"op": "xor", "nodes": [APPLE]},
        {"op": "and"},
        {"op": "or", "nodes": [APPLE, {}]},
        {"op": "not", "nodes": [APPLE, NYSE]},
    ],
)
def test_a_malformed_filter_is_none(fields: dict[str, object]) -> None:
    assert compiled(node(**fields)) is None


def test_a_filter_has_a_greatest_size() -> None:
    values = [str(number) for number in range(TERMS_MAX)]
    assert compiled(node(key="ticker", cmp="in", vals=values[1:]))
    assert not compiled(node(key="ticker", cmp="in", vals=values))
    assert not compiled(node(op="or", nodes=[APPLE] * TERMS_MAX))


def test_a_filter_has_a_greatest_depth() -> None:
    deep = {"key": "ticker", "cmp": "ex"}
    for _ in range(TERMS_MAX - 1):
        deep = {"op": "not", "nodes": [deep]}  # type: ignore[dict-item]
    assert passes(STOCK, **deep) is False
    assert not compiled(node(op="not", nodes=[deep]))


def test_a_filter_holds_no_more_text_than_this() -> None:
    value = "v" * (TEXT_CHARACTERS_MAX - 1)
    assert compiled(node(key="k", cmp="eq", val=value))
    assert not compiled(node(key="kk", cmp="eq", val=value))
    assert not compiled(node(key="kk", cmp="in", vals=[value]))


def test_a_publication_without_tags_has_none_of_them() -> None:
    bare, tagged = Publication(), Publication(tags=STOCK)
    assert wanted("nex").passing([bare, tagged]) == [bare]
    assert wanted("ex").passing([bare, tagged]) == [tagged]


def test_equal_filters_are_one_key() -> None:
    assert len({wanted("ex"), wanted("ex")}) == 1
    assert wanted("ex") != wanted("nex")
    assert wanted("ex") != node(key="ticker", cmp="ex")


def wanted(comparison: str) -> Filter:
    made = compiled(node(key="ticker", cmp=comparison))
    assert made is not None
    return made


KEYS = st.sampled_from(["ticker", "price", "absent", "note", ""])
LEAVES = st.builds(
    FilterNode,
    op=st.sampled_from(["", "", "", "and", "?"]),
    key=KEYS,
    cmp=st.sampled_from(["eq", "in", "ex", "sw", "lt", "gte", "", "?"]),
    val=st.text(max_size=5) | st.sampled_from(["150", "-1e9", "9" * 60, "NaN", "٣"]),
    vals=st.lists(st.text(max_size=3), max_size=3).map(tuple),
)
NODES = st.recursive(
    LEAVES,
    lambda nodes: st.builds(
        FilterNode,
        op=st.sampled_from(["and", "or", "not", ""]),
        nodes=st.lists(nodes, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


@given(NODES, st.dictionaries(KEYS, st.text(max_size=5) | st.sampled_from(["1", "9" * 60])))
def test_any_filter_is_none_or_decides(tree: FilterNode, tags: dict[str, str]) -> None:
    made = compiled(tree)
    assert made is None or made.passes(Publication(tags=tags)) in (True, False)
