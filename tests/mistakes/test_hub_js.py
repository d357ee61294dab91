"""Mistakes with the browser's client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from support import sdk
from support.limits import WAIT_S
from support.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Path(__file__).parent
MODULES = HERE.parent / "js"

Said: TypeAlias = dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def said() -> AsyncIterator[Said]:
    """What `hub.js` says of each mistake: one process of Node makes them all."""
    async with sdk.live() as (_, server):
        arguments = (str(HERE / "hub.mjs"), str(MODULES), str(server.port), str(free_port()))
        process = await asyncio.create_subprocess_exec("node", *arguments, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(WAIT_S):
            output, _ = await process.communicate()
        yield json.loads(output)


async def test_address_without_scheme(said: Said, says: Any) -> None:
    says(said["address_without_scheme"])


async def test_unknown_option(said: Said, says: Any) -> None:
    says(said["unknown_option"])


async def test_wrong_port(said: Said, says: Any) -> None:
    says(said["wrong_port"])


async def test_wrong_path(said: Said, says: Any) -> None:
    says(said["wrong_path"])
