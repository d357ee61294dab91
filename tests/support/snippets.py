"""The code blocks of the documentation, which tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent.parent.parent / "docs"

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE: Final = re.compile(r"# (\S+\.py)\n(.*)", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """The code blocks of a page of `docs`, each as its language and its text.

    Args:
        page: name of the page's file.
    """
    return _BLOCK.findall((DOCS / page).read_text())


def python_files(page: str) -> dict[str, str]:
    """The Python blocks of a page that begin with the name of a file in a comment, by this name.

    Args:
        page: name of the page's file.
    """
    found = (_FILE.fullmatch(text) for language, text in blocks(page) if language == "python")
    return {file[1]: file[2] for file in found if file}
