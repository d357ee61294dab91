"""What the nodes themselves say while they are loaded: their metrics, and what their processes take."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from hub.load.local import LocalServer

PERIOD_S: Final = 1.0
_GAUGES: Final = {
    "hub_connections": "connections",
    "hub_loop_lag_seconds": "lag_s",
    "hub_outbox_bytes": "outbox_bytes",
    "hub_memory_bytes": "memory",
}


def names(urls: list[str], *, local: bool) -> list[str]:
    """What nodes are called in charts: by their number where they run here, else by host, and port."""
    if local:
        return [f"node {number}" for number in range(1, len(urls) + 1)]
    return [urlsplit(url).netloc.rpartition("@")[2] for url in urls]


class Watch:
    """Looks at nodes each second, until it is cancelled.

    Args:
        urls: of the nodes.
        processes: those of the nodes that run here, in the same order; none for a hub elsewhere.
    """

    def __init__(self, urls: list[str], processes: list[LocalServer]) -> None:
        self.samples: list[dict[str, Any]] = []
        """A line each second, with the figures of each node that answered."""
        self._urls = urls
        self._names = names(urls, local=bool(processes))
        self._processes = processes
        self._known: dict[int, psutil.Process] = {}

    async def run(self) -> None:
        """Look, for ever."""
        async with httpx.AsyncClient(timeout=PERIOD_S, trust_env=False) as client:
            while True:
                nodes = await asyncio.gather(*(self._look(client, index) for index in range(len(self._urls))))
                figures = {name: node for name, node in zip(self._names, nodes, strict=True) if node}
                self.samples.append({"at": time.time(), "nodes": figures})
                await asyncio.sleep(PERIOD_S)

    @property
    def memory_bytes(self) -> float | None:
        """The most that a node took, None where none said."""
        taken = [
            node["memory"] for sample in self.samples for node in sample["nodes"].values() if "memory" in node
        ]
        return max(taken, default=None)

    async def _look(self, client: httpx.AsyncClient, index: int) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        try:
            reply = await client.get(f"{self._urls[index]}/metrics")
        except httpx.HTTPError:
            return figures
        if reply.status_code != httpx.codes.OK:
            return figures
        for family in text_string_to_metric_families(reply.text):
            for sample in family.samples:
                if sample.name in _GAUGES:
                    figures[_GAUGES[sample.name]] = sample.value
        if self._processes:
            figures["cpu"] = self._cpu(self._processes[index].pid)
        return figures

    def _cpu(self, pid: int) -> float:
        """Percent of a core since the last look."""
        try:
            process = self._known.setdefault(pid, psutil.Process(pid))
            return float(process.cpu_percent())
        except psutil.NoSuchProcess:
            return 0.0
