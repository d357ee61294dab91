"""The page of a run, or of two side by side: one HTML document that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from hub.load.report import plot
from hub.load.report.figures import Chart, charts, failures, measured, unit_of
from hub.load.report.record import Failure, Figures, JudgedLevel, LoadRun
from hub.load.report.units import NOTHING, clock, clock_ticks, text

STYLE: Final = files(__package__).joinpath("style.css").read_text()
SCRIPT: Final = files(__package__).joinpath("tips.js").read_text()

NAMES: Final = ("A", "B")
"""Of two runs."""

NONE: Final = {"failures": "No request failed.", "disconnects": "No connection ended."}
"""What an empty chart means."""

LOSSES: Final = ("lost", "repeated", "disordered")

ERRORS_MAX: Final = 12
"""Most errors that are shown; the rest is counted."""

_YES: Final = '<path d="M12 21l6 6 11-13" stroke="currentColor" stroke-width="3.5" fill="none"/>'
_NO: Final = '<path d="M13 13l14 14M27 13L13 27" stroke="currentColor" stroke-width="3.5" fill="none"/>'
_RING: Final = '<circle cx="20" cy="20" r="17.5" stroke="currentColor" stroke-width="3" fill="none"/>'


def page(runs: Sequence[LoadRun], beside: Sequence[str] = ()) -> str:
    """The document.

    Args:
        runs: one, or two to be compared.
        beside: names of files that hold the same figures.
    """
    title = "Load test: " + " and ".join(dict.fromkeys(run.scenario for run in runs))
    parts = [
        *_top(title, runs),
        *_levels(runs),
        *_totals(runs),
        *_errors(runs),
        *_charts(runs),
        *_environment(runs),
    ]
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in beside)
    foot = f"<footer><p>The same figures: {links}.</p></footer>" if links else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: {' and '.join(map(_verdict, runs)).lower()}</title>"
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n'
        f"<body><main>{''.join(parts)}{foot}</main><script>{SCRIPT}</script></body></html>\n"
    )


# The top


def _top(title: str, runs: Sequence[LoadRun]) -> Iterator[str]:
    yield f'<header class="top"><h1>{escape(title)}</h1></header><div class="pair">'
    for run, name in zip(runs, _names(runs), strict=True):
        yield (
            f'<div><p class="quiet about-run">{_badge(name)}{escape(_about(run))}</p>{_verdict_card(run)}'
            f"{_warning(run)}{_facts(run)}</div>"
        )
    yield "</div>"


def _about(run: LoadRun) -> str:
    """When, how many and how long, in a line."""
    users = max((sample.users for sample in run.samples), default=0)
    nodes = len({name for sample in run.samples for name in sample.nodes})
    parts = [
        run.began.replace("T", " ").replace("+00:00", " UTC"),
        f"{users:,} users",
        f"{clock(_seconds(run))} min",
    ]
    if nodes:
        parts.insert(2, f"{nodes} node{'s' if nodes > 1 else ''}")
    return " · ".join(parts)


def _verdict(run: LoadRun) -> str:
    return "Passed" if run.passed else "Failed"


def _verdict_card(run: LoadRun) -> str:
    missed = [level.name for level in run.levels if not level.ok]
    if missed:
        words = f"{len(missed)} of {len(run.levels)} service levels missed: {', '.join(missed)}"
    elif run.levels and run.passed:
        words = (
            f"all {len(run.levels)} service levels held" if len(run.levels) > 1 else "its service level held"
        )
    else:
        words = "no service levels were given" if run.passed else "the run did not go as it should"
    kind, sign = ("passed", _YES) if run.passed else ("failed", _NO)
    return (
        f'<div class="card verdict {kind}"><svg viewBox="0 0 40 40" aria-hidden="true">{_RING}{sign}</svg>'
        f"<div><strong>{_verdict(run)}</strong><p>{escape(words)}</p></div></div>"
    )


def _warning(run: LoadRun) -> str:
    if not run.warnings:
        return ""
    said = "".join(f"<li>{escape(warning)}</li>" for warning in run.warnings)
    return (
        '<div class="card warning" role="note"><p><strong>The figures are not to be trusted</strong></p>'
        f"<ul>{said}</ul></div>"
    )


def _facts(run: LoadRun) -> str:
    """What one wants to know first."""
    receive = run.totals.get("receive")
    delivery = run.totals.get("probe", receive)
    failed = failures(run)
    facts = [
        ("messages received", f"{receive.n if receive else 0:,}", False),
        ("p99 to a reader", text(delivery.p99 if delivery else None, "ms"), False),
        *((name, f"{run.counts[name]:,}", run.counts[name] > 0) for name in LOSSES if name in run.counts),
        ("failed requests", f"{failed:,}", failed > 0),
    ]
    shown = (
        f'<div><dt>{escape(name)}</dt><dd class="{"off" if off else ""}">{escape(value)}</dd></div>'
        for name, value, off in facts
    )
    return f'<dl class="facts">{"".join(shown)}</dl>'


# Tables


def _levels(runs: Sequence[LoadRun]) -> Iterator[str]:
    names = list(dict.fromkeys(level.name for run in runs for level in run.levels))
    if not names:
        return
    yield '<h2 id="levels">Service levels</h2>'
    columns = ["level", "at most"] if len(runs) == 1 else ["level"]
    for name in _names(runs):
        columns += [f"{name} measured", f"{name} verdict"] if name else ["measured", "verdict"]
    rows = []
    for name in names:
        of_each = [next((level for level in run.levels if level.name == name), None) for run in runs]
        cells = [f'<th scope="row">{escape(name)}</th>']
        if len(runs) == 1:
            assert of_each[0] is not None
            cells.append(f"<td>{escape(text(of_each[0].limit, unit_of(of_each[0])))}</td>")
        for level in of_each:
            cells += _level(level, with_limit=len(runs) > 1)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    yield _table(columns, rows, "levels")


def _level(level: JudgedLevel | None, *, with_limit: bool) -> Iterator[str]:
    if level is None:
        yield f"<td>{NOTHING}</td><td></td>"
        return
    unit, kind = unit_of(level), "ok" if level.ok else "off"
    part = (
        100.0 if level.value is None else min(100.0, 100 * level.value / level.limit) if level.limit else 0.0
    )
    if level.limit == 0 and level.value:
        part = 100.0
    limit = f' <span class="quiet">of {escape(text(level.limit, unit))}</span>' if with_limit else ""
    bar = f'<span class="room" aria-hidden="true"><i style="width:{part:.0f}%"></i></span>'
    yield f'<td class="{kind}">{escape(text(level.value, unit))}{limit}{bar}</td>'
    yield f'<td class="{kind}">{"✓ held" if level.ok else "✗ missed"}</td>'


def _totals(runs: Sequence[LoadRun]) -> Iterator[str]:
    yield '<h2 id="totals">Measured</h2>'
    columns = ["what", *([] if len(runs) == 1 else ["run"]), "count", "failed", "p50", "p95", "p99", "most"]
    rows = []
    for name in dict.fromkeys(name for run in runs for name in measured(run)):
        for index, (run, letter) in enumerate(zip(runs, _names(runs), strict=True)):
            first = f'<th scope="rowgroup" rowspan="{len(runs)}">{escape(name)}</th>' if not index else ""
            run_cell = f'<th scope="row">{letter}</th>' if letter else ""
            rows.append(f"<tr>{first}{run_cell}{_figures(run.totals.get(name, Figures(0)))}</tr>")
    yield _table(columns, rows, "totals")


def _figures(figures: Figures) -> str:
    failed = f'<td class="{"off" if figures.fail else ""}">{figures.fail:,}</td>'
    times = (figures.p50, figures.p95, figures.p99, figures.max)
    return f"<td>{figures.n:,}</td>{failed}" + "".join(
        f"<td>{escape(text(time, 'ms'))}</td>" for time in times
    )


def _errors(runs: Sequence[LoadRun]) -> Iterator[str]:
    """What failed, the most frequent first."""
    found = [
        (error, letter)
        for run, letter in zip(runs, _names(runs), strict=True)
        for error in sorted(run.errors, key=lambda error: -error.n)
    ]
    if not found:
        return
    yield '<h2 id="errors">What failed</h2>'
    columns = ["error", *([] if len(runs) == 1 else ["run"]), "of", "times"]
    found.sort(key=lambda each: -each[0].n)
    rows = [_error(error, letter) for error, letter in found[:ERRORS_MAX]]
    if rest := found[ERRORS_MAX:]:
        times = sum(error.n for error, _ in rest)
        rows.append(_error(Failure("", f"and {len(rest):,} others", times), " " if len(runs) > 1 else ""))
    yield _table(columns, rows, "errors")


def _error(error: Failure, letter: str) -> str:
    run_cell = f"<td>{letter}</td>" if letter else ""
    return (
        f'<tr><th scope="row">{escape(error.error)}</th>{run_cell}<td>{escape(error.name)}</td>'
        f"<td>{error.n:,}</td></tr>"
    )


def _table(columns: Sequence[str], rows: Sequence[str], label: str) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    return (
        f'<div class="card scroll" tabindex="0" role="region" aria-labelledby="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


# Charts


def _charts(runs: Sequence[LoadRun]) -> Iterator[str]:
    yield '<h2 id="charts">Over time</h2>'
    for run, name in zip(runs, _names(runs), strict=True):
        if run.faults:
            faults = "".join(
                f"<li><b>{number}</b> {clock(fault.t)} {escape(fault.name)}</li>"
                for number, fault in enumerate(run.faults, 1)
            )
            yield f'<ol class="faults" aria-label="faults">{_badge(name)}{faults}</ol>'
    yield '<div class="charts">'
    seconds = max(map(_seconds, runs))
    by_key = [{chart.key: chart for chart in charts(run)} for run in runs]
    for key in dict.fromkeys(key for one in by_key for key in one):
        same = [one[key] for one in by_key if key in one]
        scale = plot.scale(same)
        for index, (run, one) in enumerate(zip(runs, by_key, strict=True)):
            name = f"{_names(runs)[index]}-{key}".replace(" ", "-").strip("-")
            chart = one.get(key, _empty(same[0]))
            yield _figure(chart, scale, seconds, run, _names(runs)[index], name)
    yield "</div>"


def _figure(chart: Chart, scale: plot.Scale, seconds: float, run: LoadRun, letter: str, name: str) -> str:
    head = f"<figcaption><h3>{_badge(letter)}{escape(chart.title)}</h3></figcaption>"
    if chart.is_empty:
        words = NONE.get(chart.key, "Not measured.")
        return f'<figure class="card chart">{head}<p class="nothing">{words}</p></figure>'
    marks = plot.marks(run.faults, seconds)
    drawing = plot.svg(chart, scale, seconds, marks, escape(name))
    labels = "".join(_labels(chart, scale, seconds, marks))
    return (
        f'<figure class="card chart">{head}{_legend(chart)}<div class="plot" tabindex="0">'
        f"{drawing}{labels}</div>{_points(chart, seconds)}</figure>"
    )


def _legend(chart: Chart) -> str:
    items = (
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="line s{style}" d="M0 5H26"/></svg>'
        f"{escape(line.name)} <span>{escape(text(line.most, chart.unit))}</span></li>"
        for line, style in plot.styled(chart.lines)
    )
    return f'<ul class="legend" aria-label="lines, with their highest value">{"".join(items)}</ul>'


def _labels(chart: Chart, scale: plot.Scale, seconds: float, marks: Sequence[plot.Mark]) -> Iterator[str]:
    for value in scale.ticks:
        top = 100 * (1 - scale.height(value))
        words = escape(text(value, chart.unit))
        yield f'<span class="y" aria-hidden="true" style="top:{top:.2f}%">{words}</span>'
    for t in clock_ticks(seconds):
        yield f'<span class="x" aria-hidden="true" style="left:{100 * t / seconds:.2f}%">{clock(t)}</span>'
    for mark in marks:
        side = f"right:{100 * (1 - mark.left):.2f}%" if mark.before else f"left:{100 * mark.left:.2f}%"
        label = f"<b>{mark.number}</b> {escape(mark.name)}"
        if mark.before:
            label = f"{escape(mark.name)} <b>{mark.number}</b>"
        yield (
            f'<span class="flag{" before" if mark.before else ""}" aria-hidden="true"'
            f' style="{side};max-width:calc({100 * mark.room:.2f}% + 0.5em)">{label}</span>'
        )
    if chart.limit is not None and 0 <= scale.height(chart.limit) <= 1:
        top = 100 * (1 - scale.height(chart.limit))
        words = escape(f"p99 at most {text(chart.limit, chart.unit)}" if chart.logarithmic else
                       f"at most {text(chart.limit, chart.unit)}")  # fmt: skip
        yield f'<span class="limit-label" aria-hidden="true" style="top:{top:.2f}%">{words}</span>'


def _points(chart: Chart, seconds: float) -> str:
    """The chart as a table, which is also where the script reads it."""
    head = "".join(f'<th scope="col">{escape(line.name)}</th>' for line in chart.lines)
    rows = "".join(
        f'<tr data-x="{min(1.0, t / seconds):.4f}"><th scope="row">{clock(t)}</th>'
        + "".join(f"<td>{escape(text(line.points[index], chart.unit))}</td>" for line in chart.lines)
        + "</tr>"
        for index, t in enumerate(chart.times)
    )
    each = "" if chart.seconds == 1 else f", each of {chart.seconds} seconds"
    return (
        f'<details><summary>Table{each}</summary><div class="scroll" tabindex="0"><table><thead><tr>'
        f'<th scope="col">time</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _empty(like: Chart) -> Chart:
    return Chart(like.key, like.title, like.about, like.unit, (), 1, ())


# The environment


def _environment(runs: Sequence[LoadRun]) -> Iterator[str]:
    yield '<h2 id="environment">Environment</h2><div class="pair">'
    for run, name in zip(runs, _names(runs), strict=True):
        lines = [*_flat(run.arguments), *_flat(run.environment)]
        shown = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in lines)
        head = f"<h3>{_badge(name)}</h3>" if name else ""
        yield f'<div class="card">{head}<dl class="about">{shown}</dl></div>'
    yield "</div>"


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, a table within a table by its own names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif isinstance(value, str):
            yield key, value or NOTHING
        else:
            yield key, json.dumps(value, ensure_ascii=False)


# All


def _names(runs: Sequence[LoadRun]) -> list[str]:
    """A letter for each of several runs, and none for one alone."""
    return list(NAMES[: len(runs)]) if len(runs) > 1 else [""]


def _badge(name: str) -> str:
    return f'<span class="badge">{name}</span>' if name else ""


def _seconds(run: LoadRun) -> float:
    """How long a run was."""
    return max([1.0, *(sample.t for sample in run.samples), *(fault.t for fault in run.faults)])
