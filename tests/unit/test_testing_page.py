"""The page about testing: its snippets are a test suite, which passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_every_snippet_runs(tmp_path: Path) -> None:
    snippets = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == PAGE.read_text().count("```python")
    for name, source in snippets:
        (tmp_path / name).write_text(source)
    tests = sum(source.count("def test_") for _, source in snippets)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
