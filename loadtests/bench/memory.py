"""Where the memory of an idle connection goes: `python -m loadtests.bench.memory [--clients N]`.

A hub in this process holds clients of the generator, subscribed and idle, while every allocation of Python's
is traced to the file whose line made it. What the C code of the event loop takes for a socket is in no trace:
it is what a second hub, which traces nothing, grows by beyond that.
"""

from __future__ import annotations

import argparse
import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop
from support.server import running

from hub.config import load as load_settings
from loadtests.bench.programs import Measured, load, raise_files_limit
from loadtests.bench.servers import hub

ROOT: Final = Path(__file__).parents[2]
SETTLED_S: Final = 3.0
"""After which all are subscribed, and the last of their handshakes is gone."""
_NAMED: Final = {
    "runners.py": "uvloop, for its transports",
    "utils.py": "uvloop, for the socket that uvicorn asks",
}
"""Lines of others from which C code allocates."""
SHOWN_BYTES: Final = 16.0
"""A place that holds less for a connection is among the others."""


AT_ONCE = 16
"""Clients that connect at a time: a hub whose allocations are traced is slow, and sends a crowd away."""


async def traced(clients: int) -> Counter[str]:
    """Bytes of a connection, by the file whose line allocated them."""
    overrides = {"client": {"insecure": True}, "server": {"lag_max_s": 0}, "channels": {"bench": {}}}
    settings = load_settings(env={}, overrides=overrides)
    async with running(settings) as server:
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        idle = asyncio.create_task(
            load("idle", [server.port], clients=clients, in_flight=AT_ONCE, seconds=2 * SETTLED_S)
        )
        while not idle.done() and len(server.app.state.hub.node.registry.clients) < clients:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLED_S)
        after = tracemalloc.take_snapshot()
        tracemalloc.stop()
        await idle
    found: Counter[str] = Counter()
    for difference in after.compare_to(before, "filename"):
        found[_place(difference.traceback[0].filename)] += difference.size_diff
    return Counter({place: size // clients for place, size in found.items()})


async def resident(clients: int) -> float:
    """Bytes by which a hub's process grows for a connection."""
    async with hub() as server:
        found: Measured = await load(
            "idle", server.ports, server.pids, clients=clients, in_flight=AT_ONCE, seconds=SETTLED_S
        )
    [node] = found.watched
    return (node.rss_end - node.rss_before) / found.connections


def _place(filename: str) -> str:
    path = Path(filename)
    if path.is_relative_to(ROOT) and ".venv" not in path.parts:
        return f"`{path.relative_to(ROOT)}`"
    return _NAMED.get(path.name, f"`{path.parent.name}/{path.name}`")


def table(found: Counter[str], total: float) -> Iterator[str]:
    """The rows of docs/performance.md."""
    yield "| allocated by | bytes a connection |"
    yield "| --- | ---: |"
    shown = [(place, size) for place, size in found.most_common() if size >= SHOWN_BYTES]
    for place, size in shown:
        yield f"| {place} | {size:,} |"
    python = found.total()
    yield f"| other lines of Python | {python - sum(size for _, size in shown):,} |"
    yield f"| the event loop's C code, and what the allocators keep | {total - python:,.0f} |"
    yield f"| resident, in a hub that traces nothing | {total:,.0f} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5_000)
    clients = parser.parse_args().clients
    raise_files_limit(2 * clients)
    found = uvloop.run(traced(clients))
    print("\n".join(table(found, uvloop.run(resident(clients)))))


if __name__ == "__main__":
    main()
