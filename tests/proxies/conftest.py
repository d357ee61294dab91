"""What the tests of the proxies share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.certificate import Certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("certificate")
    return Certificate(folder)
