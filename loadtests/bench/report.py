"""What is shown of results: a table in Markdown, and a chart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.bench.results import GENERATOR_SHARE_MAX, Environment, Result, Results, Row

COLUMNS: Final = (
    "row",
    "what",
    "hub",
    "beside",
    "judged",
    "target",
    "verdict",
    "last committed",
    "CPU for a delivery, hub / beside",
    "generator's share of a core, hub / beside",
)
BEGIN: Final = "<!-- from the run: python -m loadtests.bench -->"
END: Final = "<!-- end -->"
MARK: Final = "†"

_MET, _MISSED, _BESIDE = "#2a7f62", "#c1453b", "#9aa3ad"


def table(results: Results, last: Results | None) -> str:
    """The table, what it is of, and what its marks mean.

    Args:
        last: the results before, to be shown beside.
    """
    before = {result.row.name: result for result in last.results} if last else {}
    lines = [about(results.environment), "", f"| {' | '.join(COLUMNS)} |", "| --- | --- |" + " ---: |" * 8]
    lines += [line(result, before) for result in results.results]
    if any(result.limited for result in results.results):
        share = f"{GENERATOR_SHARE_MAX:.0%}"
        lines += ["", f"{MARK} The generator took over {share} of a core: it may have been the limit."]
    return "\n".join(lines)


def about(environment: Environment) -> str:
    """A sentence on where and of what the figures are."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return (
        f"Commit {environment.commit}, {environment.date}. {environment.cpu}, {environment.cores} cores,"
        f" {environment.memory_gib:.0f} GiB, Linux {environment.kernel}, TCP congestion control"
        f" {environment.congestion}, load average at the start {environment.load_average:.2f}. {versions}."
    )


def line(result: Result, before: Mapping[str, Result]) -> str:
    """A line of the table."""
    row, last = result.row, before.get(result.row.name)
    beside = "" if result.beside is None else f"{figure(result.beside, row.unit)} ({row.beside})"
    cpu = "" if result.cpu_us is None else f"{result.cpu_us:.2f} µs"
    if result.beside_cpu_us is not None:
        cpu += f" / {result.beside_cpu_us:.2f} µs"
    generator = f"{result.generator:.0%}"
    if result.beside_generator is not None:
        generator += f" / {result.beside_generator:.0%}"
    cells = (
        f"`{row.name}`",
        row.title,
        figure(result.hub, row.unit),
        beside,
        judged(row, result.value),
        target(row),
        ("met" if result.met else "**missed**") + (f" {MARK}" if result.limited else ""),
        judged(last.row, last.value) if last else "",
        cpu,
        generator,
    )
    return f"| {' | '.join(cells)} |"


def figure(value: float, unit: str) -> str:
    """A figure with its unit, to about three places."""
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2}f} {unit}"


def judged(row: Row, value: float) -> str:
    """A judged figure, as the table shows it."""
    if row.judged == "ratio":
        return f"{value:.2f}x"
    return ("+" if row.judged == "difference" and value >= 0 else "") + figure(value, row.unit)


def target(row: Row) -> str:
    """What the judged figure should be."""
    least, most = (None if bound is None else judged(row, bound) for bound in (row.at_least, row.at_most))
    if least and most:
        return f"{least} to {most}"
    return f"≥ {least}" if least else f"≤ {most}"


def write_page(page: Path, text: str) -> None:
    """Put the table between the marks of a page."""
    page.write_text(
        re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", page.read_text(), flags=re.DOTALL)
    )


def unexplained(results: Results, page: str) -> Iterator[str]:
    """The rows that missed their target and are not named in the page outside of the table."""
    prose = re.sub(f"{BEGIN}.*?{END}", "", page, flags=re.DOTALL)
    for result in results.results:
        if not result.met and f"`{result.row.name}`" not in prose:
            yield result.row.name


_FANOUT: Final = re.compile(r"fanout-(\d+)-(\d+)")


def chart(results: Results, path: Path) -> None:
    """Draw fan-out beside the floor, and how every row stands to its target.

    Args:
        path: of a PNG.
    """
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawing = Figure(figsize=(12, 5.5), dpi=110, facecolor="white", layout="constrained")
        left, right = drawing.subplots(1, 2)
        _draw_fanout(left, [each for each in results.results if _FANOUT.fullmatch(each.row.name)])
        _draw_targets(right, results.results)
        drawing.savefig(path, metadata={"Software": None})


def _draw_fanout(axes: Axes, results: list[Result]) -> None:
    places = range(len(results))
    axes.bar([place - 0.2 for place in places], [each.hub for each in results], 0.4, label="hub", color=_MET)
    beside = [each.beside or 0.0 for each in results]
    axes.bar([place + 0.2 for place in places], beside, 0.4, label="floor: one write each", color=_BESIDE)
    names = [each.row.name.removeprefix("fanout-").split("-") for each in results]
    labels = [f"{int(subscribers):,}\n{in_flight}" for subscribers, in_flight in names]
    axes.set_xticks(list(places), labels)
    axes.set_xlabel("subscribers, and publishes in flight")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f} k")
    axes.set_title("Deliveries a second, messages of 100 bytes")
    axes.legend(frameon=False)


def _draw_targets(axes: Axes, results: list[Result]) -> None:
    """Bars beyond the line at 1 are better than their target."""
    for place, result in enumerate(reversed(results)):
        row = result.row
        color = _MET if result.met else _MISSED
        axes.barh(place, min(10.0, max(0.1, _standing(result))) - 1.0, left=1.0, color=color)
        text = f" {judged(row, result.value)}, target {target(row)}"
        axes.text(10.5, place, text, va="center", fontsize=7.5)
    axes.axvline(1.0, color="#333333", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.1, 10.0)
    axes.set_xticks([0.1, 1.0, 10.0], ["a tenth", "target", "ten times"])
    axes.minorticks_off()
    axes.set_yticks(range(len(results)), [each.row.name for each in reversed(results)])
    axes.set_title("How each row stands to its target: to the right is better")


def _standing(result: Result) -> float:
    """How many times better than the target."""
    row = result.row
    standings = []
    if row.at_least is not None:
        standings.append(result.value / row.at_least)
    if row.at_most is not None:
        standings.append(row.at_most / result.value if result.value > 0 else 10.0)
    return min(standings)
