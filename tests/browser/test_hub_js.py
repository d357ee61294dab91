"""The browser client's own tests, which run in Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = sorted((Path(__file__).parent.parent / "js").glob("*.test.mjs"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_hub_js(file: Path) -> None:
    node = shutil.which("node")
    assert node, "node is missing: scripts/test installs it"
    run = subprocess.run([node, "--test", file], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
