"""The machine, and the versions of what runs on it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
from asyncio.subprocess import DEVNULL, PIPE
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from loadtests.bench.results import Environment, Results, read

ROOT: Final = Path(__file__).parents[2]
LATEST: Final = Path("loadtests/bench/results/latest.json")
LIBRARIES: Final = ("uvicorn", "uvloop", "websockets", "msgspec", "starlette", "redis", "hiredis")


async def output(*command: str) -> str:
    """What a command says; nothing where it is not there or fails."""
    try:
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=DEVNULL)
    except FileNotFoundError:
        return ""
    text, _ = await process.communicate()
    return "" if process.returncode else text.decode().strip()


async def environment() -> Environment:
    """That of now."""
    commit = await output("git", "rev-parse", "--short", "HEAD")
    if await output("git", "status", "--porcelain", "--untracked-files=no"):
        commit += "+"
    versions = {"Python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    redis = await output("redis-server", "--version")
    compiler = await output("cc", "--version")
    versions |= {"redis-server": redis.partition("v=")[2].partition(" ")[0]}
    versions |= {"compiler": compiler.partition("\n")[0]}
    return Environment(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit,
        cpu=_field("/proc/cpuinfo", "model name"),
        cores=os.cpu_count() or 0,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=platform.release(),
        congestion=_text("/proc/sys/net/ipv4/tcp_congestion_control"),
        load_average=os.getloadavg()[0],
        versions=versions,
    )


async def last_committed() -> Results | None:
    """The results that the repository holds at its head."""
    text = await output("git", "show", f"HEAD:{LATEST}")
    return read(text) if text else None


def _text(path: str) -> str:
    return Path(path).read_text().strip()


def _field(path: str, name: str) -> str:
    values = [line.partition(":")[2].strip() for line in _text(path).splitlines() if line.startswith(name)]
    return values[0] if values else "unknown"
