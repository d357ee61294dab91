"""Code blocks of the documentation, to run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent.parent.parent / "docs"

_BLOCK: Final = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: str) -> dict[str, str]:
    """The Python blocks of a page that begin with the name of a file in a comment, by this name.

    Args:
        page: the file's name in `docs`.
    """
    return dict(_BLOCK.findall((DOCS / page).read_text()))
