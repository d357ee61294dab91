"""The page about testing: its snippets are a test suite, which passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.snippets import blocks, python_files

PAGE = "testing.md"


def test_every_snippet_runs(tmp_path: Path) -> None:
    files = python_files(PAGE)
    assert len(files) == [language for language, _ in blocks(PAGE)].count("python")
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    tests = sum(source.count("def test_") for source in files.values())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
