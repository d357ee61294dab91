"""The latency probe as a run sees it: a process beside the load, and what it has measured so far."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hub.load.histogram import summary


@dataclass
class Measured:
    """What a probe measured in some time.

    Args:
        times: how often each came, in milliseconds.
        failed: publishes that failed, by error.
    """

    times: Counter[float] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        """Add a line that the process wrote."""
        for time_ms, count in line["times"]:
            self.times[time_ms] += count
        self.failed.update(line["failed"])

    def summary(self) -> dict[str, Any]:
        """As of anything that is measured."""
        failed = self.failed.total()
        return summary(self.times, self.times.total() + failed, failed)


class Probe:
    """Runs a probe until it is cancelled.

    Args:
        urls: of the nodes.
        token_key: HMAC secret of a hub that asks for tokens, empty for none.
    """

    def __init__(self, urls: list[str], token_key: str) -> None:
        self.lines: list[dict[str, Any]] = []
        """What it wrote, a line each half second."""
        self._urls = urls
        self._token_key = token_key

    async def run(self) -> None:
        """Measure, for ever.

        Raises:
            RuntimeError: the process ended by itself; the text is what it wrote last.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub.load.prober", ",".join(self._urls)),
            env={**os.environ, "PROBE_TOKEN_KEY": self._token_key},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async for line in process.stdout:
                self.lines.append(json.loads(line))
            said = (await process.stderr.read()).decode(errors="replace").strip()
            raise RuntimeError(f"the probe ended: {said.rpartition(chr(10))[2]}")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def between(self, begin: float, end: float) -> Measured:
        """What it measured from one moment to another, in Unix seconds."""
        measured = Measured()
        for line in self.lines:
            if begin < line["at"] <= end:
                measured.add(line)
        return measured
