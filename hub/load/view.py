"""What a run is like while it goes on, in the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hub.load.probe import Probe
from hub.load.report.figures import in_order
from hub.load.report.units import Unit, clock, text
from hub.load.watch import Watch

REFRESHES_PER_S: Final = 2
NODE: Final[dict[str, Unit]] = {
    "connections": "count", "cpu": "percent", "lag_s": "s", "memory": "bytes", "outbox_bytes": "bytes",
}  # fmt: skip
HEADS: Final = {"lag_s": "lag", "outbox_bytes": "outboxes", "cpu": "CPU"}
BOOKS: Final = ("lost", "repeated", "disordered")


class View:
    """Shows the last second of a run, as a context manager. Where there is no terminal it shows nothing.

    Args:
        console: where to.
        scenario: its name.
        seconds: how long the run takes.
        samples: the file that Locust writes a line into each second.
        watch: what the nodes say.
        probe: what the latency probe measures.
    """

    def __init__(
        self, console: Console, scenario: str, seconds: int, samples: Path, watch: Watch, probe: Probe
    ) -> None:
        self._scenario = scenario
        self._seconds = seconds
        self._samples = samples
        self._watch = watch
        self._probe = probe
        self._began = time.monotonic()
        self._live: AbstractContextManager[object] = nullcontext()
        if console.is_terminal and not console.quiet:
            self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_S, transient=True)

    def __enter__(self) -> View:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._live.__exit__(*exc)

    def __rich__(self) -> RenderableType:
        sample = last_line(self._samples)
        over_s = min(self._seconds, time.monotonic() - self._began)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"[bold]{self._scenario}[/]",
            f"{sample.get('users', 0):,} users",
            ProgressBar(self._seconds, over_s, width=30),
            f"{clock(over_s)} of {clock(self._seconds)}",
        )
        stats = dict(sample.get("stats", {}))
        if self._probe.lines:
            now = self._probe.lines[-1]["at"]
            stats["probe"] = self._probe.between(now - 1.5, now).summary()
        nodes = self._watch.samples[-1]["nodes"] if self._watch.samples else {}
        return Group(head, measured(stats), hub(nodes), generator(sample))


def last_line(path: Path) -> dict[str, Any]:
    """The last line of a file of JSON lines; nothing where there is none yet."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return {}
    found: dict[str, Any] = json.loads(lines[-2]) if len(lines) > 1 else {}
    return found


def measured(stats: dict[str, Any]) -> Table:
    """What was measured in the last second."""
    table = _table("in the last second", ("count", "failed", "p50", "p99", "max"))
    for name in in_order(stats):
        figures = stats[name]
        failed = f"[bold red]{figures['fail']:,}[/]" if figures["fail"] else "0"
        times = (text(figures.get(each), "ms") for each in ("p50", "p99", "max"))
        table.add_row(name, f"{figures['n']:,}", failed, *times)
    return table


def hub(nodes: dict[str, dict[str, float]]) -> Table:
    """The nodes, as they said last; one that is gone is not among them."""
    table = _table("node", [HEADS.get(name, name) for name in NODE])
    for name, figures in nodes.items():
        table.add_row(name, *(text(figures.get(each), unit) for each, unit in NODE.items()))
    return table


def generator(sample: dict[str, Any]) -> Text:
    """The generator, and what is wrong with what it received so far."""
    busy = sample.get("generator", {})
    counts = sample.get("counts", {})
    shown = Text(f"generator: CPU {text(busy.get('cpu'), 'percent')}, lag {text(busy.get('lag_s'), 's')}; ")
    for name in BOOKS:
        count = counts.get(name, 0)
        shown.append(f"{count:,} {name}  ", style="bold red" if count else "green")
    return shown


def _table(first: str, columns: Iterable[str]) -> Table:
    table = Table(first, box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    return table
