"""The table of mistakes is whole: each row has a test, and each test has a row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.mistakes import GROUPS

HERE = Path(__file__).parent
MISTAKES_MIN = 40


@pytest.mark.parametrize("group", GROUPS)
def test_each_mistake_is_made(group: str) -> None:
    tree = ast.parse((HERE / f"test_{group}.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    made = [node.name.removeprefix("test_") for node in functions if node.name.startswith("test_")]
    assert made == list(GROUPS[group].mistakes)


def test_there_are_enough() -> None:
    assert sum(len(group.mistakes) for group in GROUPS.values()) >= MISTAKES_MIN
    assert {f"test_{group}.py" for group in GROUPS} | {"test_table.py"} == {
        path.name for path in HERE.glob("test_*.py")
    }


def test_each_message_is_one_plain_line() -> None:
    for group in GROUPS.values():
        for name, row in group.mistakes.items():
            texts = (row.mistake, row.seen, row.says)
            assert all(text.strip() == text and "\n" not in text and text for text in texts), name
            assert len(row.says) > len("….…"), name
