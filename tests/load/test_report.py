"""The report of runs that are made here: what its page says, and what it must not say."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from load import runs

from hub.load.report import RunError, compare, write
from hub.load.report.figures import POINTS_MAX, charts
from hub.load.report.page import page
from hub.load.report.plot import marks, scale
from hub.load.report.record import Failure, Figures, InjectedFault, JudgedLevel, LoadRun, Sample, read
from hub.load.report.units import clock, clock_ticks, decades, text, ticks

VOID = {"meta", "link"}
EVIL = "\"'><script>alert(1)</script>&amp;"


class Checked(HTMLParser):
    """A page whose elements are all closed, in order; and its addresses and ids."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(document)
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)
        assert set(self.references) <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "aria-labelledby":
                self.references += (value or "").split()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def drawings(document: str) -> Iterator[ElementTree.Element]:
    """The charts, each well-formed by itself."""
    for part in document.split('<svg viewBox="0 0 1000 1000"')[1:]:
        yield ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")  # noqa: S314 - our own


def test_a_page_needs_nothing_else_and_says_its_verdict_first() -> None:
    document = page([runs.run()], ["report.json"])
    checked = Checked(document)
    assert checked.addresses == ["data:,", "report.json"]
    assert "url(" not in document
    assert "@import" not in document
    said = " ".join(checked.words)
    assert said.index("Passed") < said.index("receive_p99_ms") < said.index("Latency: receive")
    assert "all 5 service levels held" in said
    assert "not to be trusted" not in said
    assert "What failed" not in said


def test_each_chart_has_a_title_words_a_mark_for_the_fault_and_a_table() -> None:
    document = page([runs.run()])
    found = list(drawings(document))
    assert len(found) == document.count("<details>") == 12
    for drawing in found:
        title, desc = drawing.find("title"), drawing.find("desc")
        assert title is not None
        assert title.text
        assert desc is not None
        assert "At 0:20: kill-node." in (desc.text or "")
        assert len(drawing.findall("line[@class='fault']")) == 1
        assert drawing.findall("path")
    assert document.count("No request failed.") == 1


def test_a_dead_node_is_a_gap_and_not_a_zero() -> None:
    memory = next(chart for chart in charts(runs.run()) if chart.key == "memory")
    dead = memory.lines[1].points[20:25]
    assert list(dead) == [None] * 5
    drawing = list(drawings(page([runs.run()])))[-1]
    node = next(path for path in drawing.findall("path") if "s1" in path.attrib["class"])
    assert node.attrib["d"].count("M") == 2


def test_what_ended_is_counted_by_the_second_and_by_code() -> None:
    disconnects = next(chart for chart in charts(runs.run()) if chart.key == "disconnects")
    by_code = {line.name: list(line.points) for line in disconnects.lines}
    assert by_code["1006"][20] == 500
    assert sum(point or 0 for point in by_code["1006"]) == 500
    assert sum(point or 0 for point in by_code["3012"]) == 2


def test_a_limit_is_drawn_where_it_belongs_and_never_flattens_a_chart() -> None:
    by_key = {chart.key: chart for chart in charts(runs.run())}
    assert by_key["latency receive"].limit == 250
    assert by_key["memory"].limit == 2**28
    assert by_key["cpu"].limit is None
    far = [JudgedLevel("node_memory_bytes", 2**40, 1.0, True)]
    memory = [
        chart for chart in charts(msgspec.structs.replace(runs.run(), levels=far)) if chart.key == "memory"
    ]
    assert scale(memory).ticks[-1] < 2**30


def test_a_long_run_is_drawn_by_its_worst_seconds() -> None:
    run = runs.run(seconds=1801, killed=False)
    receive = charts(run)[0]
    assert len(receive.times) <= POINTS_MAX
    assert receive.seconds == 5
    assert receive.lines[3].most == max(sample.stats["receive"].max or 0 for sample in run.samples)


def test_what_is_said_against_a_run_and_what_failed_are_shown() -> None:
    errors = [Failure("receive", f"message {number} is missing", 1) for number in range(20)]
    run = msgspec.structs.replace(
        runs.run(), warnings=["the probe heard nothing"], errors=[*errors, Failure("connect", "refused", 7)]
    )
    for document in (page([run]), page([run, runs.run()])):
        said = " ".join(Checked(document).words)
        assert "The figures are not to be trusted the probe heard nothing" in said
        what = said[said.index("What failed") :]
        assert what.index("refused") < what.index("message 0 is missing")
        assert "and 9 others" in what


def test_nothing_of_a_run_is_taken_for_markup() -> None:
    run = LoadRun(
        scenario=EVIL,
        began=EVIL,
        passed=False,
        arguments={EVIL: EVIL},
        environment={"a": {EVIL: [EVIL]}},
        faults=[InjectedFault(1.0, EVIL)],
        totals={EVIL: Figures(1, 1, 1.0, 1.0, 1.0, 1.0)},
        levels=[JudgedLevel(EVIL, 0, 1, False)],
        warnings=[EVIL],
        errors=[Failure(EVIL, EVIL, 1)],
        samples=[
            Sample(1.0, 1, {EVIL: Figures(1, 1, 1.0, 1.0, 1.0, 1.0)}, disconnects={EVIL: 1}),
        ],
    )
    for document in (page([run]), page([run, run])):
        assert "<script>alert" not in document
        assert "\"'>" not in document
        Checked(document)


@pytest.mark.parametrize("passed", [True, False])
def test_a_run_of_nothing_has_a_page(passed: bool) -> None:
    document = page([LoadRun("idle", "2026-11-24", passed)])
    Checked(document)
    assert "Not measured." in document
    assert ("no service levels were given" in document) == passed


def test_two_runs_stand_side_by_side_on_the_same_scales() -> None:
    quick, slow = runs.run(killed=False), runs.run(seed=2)
    document = page([quick, slow])
    Checked(document)
    assert document.count("<h3><span") == 2 * 13 + 2
    alone = [next(chart for chart in charts(run) if chart.key == "latency receive") for run in (quick, slow)]
    assert scale(alone).ticks == scale(alone[1:]).ticks
    assert document.count("Not measured.") == 1  # nobody reconnected in the quick one


def test_the_name_of_a_late_fault_stands_before_its_mark() -> None:
    placed = marks(
        [InjectedFault(10, "roll"), InjectedFault(58, "restart-redis"), InjectedFault(70, "late")], 60
    )
    assert [(mark.before, round(mark.room, 2)) for mark in placed] == [
        (False, 0.8),
        (False, 0.03),
        (True, 0.03),
    ]
    assert placed[2].left == 1.0


def test_files_beside_the_page_have_the_same_figures(tmp_path: Path) -> None:
    run = runs.run(seconds=30)
    path = write(runs.write(tmp_path, run))
    assert read(tmp_path) == run
    assert msgspec.convert(json.loads(path.with_suffix(".json").read_bytes()), LoadRun) == run
    with path.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["receive p99"]) for row in rows] == [each.stats["receive"].p99 for each in run.samples]
    assert [row["node-2 connections"] for row in rows][19:22] == ["500.0", "", ""]
    assert rows[-1]["disconnects 1006"] == "500"
    assert rows[0]["reconnect n"] == ""
    assert rows[-1]["generator cpu"] == str(run.samples[-1].generator.cpu)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json cannot be read: No such file"):
        write(tmp_path)
    runs.write(tmp_path, runs.run(seconds=2))
    (tmp_path / "samples.jsonl").write_text('{"t": "soon"}\n')
    with pytest.raises(RunError, match=r"samples\.jsonl is no file of a run"):
        compare(tmp_path, tmp_path)
    command = [sys.executable, "-m", "hub.load.report", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("report: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.00042, "s", "420 µs"),
        (0, "ms", "0 ms"),
        (12.34, "ms", "12.3 ms"),
        (100_000, "ms", "100 s"),
        (600, "s", "10 min"),
        (1023.9, "bytes", "1 KiB"),
        (93.5 * 2**20, "bytes", "93.5 MiB"),
        (12_345.6, "rate", "12,346/s"),
        (0.0015, "share", "0.15 %"),
        (None, "count", "\N{EN DASH}"),
        (float("nan"), "percent", "\N{EN DASH}"),
    ],
)
def test_figures_have_their_unit_and_three_places(value: float, unit: str, said: str) -> None:
    assert text(value, unit) == said  # type: ignore[arg-type]


def test_scales_are_round_and_hold_what_is_drawn() -> None:
    assert ticks(0, "ms") == [0, 1]
    assert ticks(87, "percent") == [0, 25, 50, 75, 100]
    assert ticks(3, "count") == [0, 1, 2, 3]
    assert ticks(100 * 2**20, "bytes") == [0, 25 * 2**20, 50 * 2**20, 75 * 2**20, 100 * 2**20]
    assert decades(1.0, 1.0) == [1, 10]
    assert decades(0.5, 101) == pytest.approx([0.1, 1, 10, 100, 1000])
    assert clock_ticks(60) == [0, 10, 20, 30, 40, 50, 60]
    assert len(clock_ticks(1_000_000)) <= 7
    assert [clock(t) for t in (9, 65.4, 3605)] == ["0:09", "1:05", "1:00:05"]
