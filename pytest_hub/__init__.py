"""Fixtures of pytest for the tests of an app with a hub. pytest loads them by itself where it is installed.

They need a fixture `app` of the test suite, which returns the Starlette or FastAPI app:

    @pytest.fixture
    def app() -> FastAPI:
        return shop.app

- `test_hub` is a running `TestHub`, for an `async def` test under pytest-asyncio or anyio's plugin.
- `sync_test_hub` is a `SyncTestHub`, for a `def` test.

This is a package of its own, so that pytest does not import the hub into test suites that do not ask for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hub.testing import SyncTestHub, TestHub


@pytest.fixture
def sync_test_hub(app: Any) -> Iterator[SyncTestHub]:
    """A `SyncTestHub` over the fixture `app`. A `TestClient` that the test enters runs the app."""
    from hub.testing import SyncTestHub

    with SyncTestHub(app) as hub:
        yield hub


async def _test_hub(app: Any) -> AsyncIterator[TestHub]:
    """A `TestHub` over the fixture `app`, which it runs."""
    from hub.testing import TestHub

    async with TestHub(app) as hub:
        yield hub


def pytest_configure(config: pytest.Config) -> None:
    """Register `test_hub`, so that pytest-asyncio in its strict mode takes it for one of its fixtures."""
    fixture: Any = pytest.fixture
    if config.pluginmanager.hasplugin("asyncio"):
        mode = config.getoption("asyncio_mode") or config.getini("asyncio_mode")
        if str(getattr(mode, "value", mode)) == "strict":
            import pytest_asyncio

            fixture = pytest_asyncio.fixture
    fixtures = ModuleType("pytest_hub.fixtures")
    fixtures.__dict__["test_hub"] = fixture(_test_hub, name="test_hub")
    config.pluginmanager.register(fixtures)
