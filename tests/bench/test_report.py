"""What is shown of results, from results that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.bench import report
from loadtests.bench.environment import LATEST, ROOT
from loadtests.bench.results import Environment, Result, Results, Row, Sample, read, write

ENVIRONMENT = Environment(
    date="2026-11-24 05:00 UTC",
    commit="abc1234",
    cpu="A CPU",
    cores=2,
    memory_gib=15.6,
    kernel="6.1",
    congestion="cubic",
    load_average=0.1,
    versions={"Python": "3.11.7", "uvloop": "0.23.0"},
)
FANOUT = Row("fanout-1000-4", "fan-out", "deliveries/s", "floor", "ratio", at_least=3.0)
CALM = Row("p50", "p50", "ms", "floor", "difference", at_most=1.0)
PAIR = Row("pair", "a pair", "deliveries/s", "floor", "itself", at_least=40_000)
ITSELF = Row("fanout-json", "itself", "deliveries/s", "itself", "ratio", at_least=0.98, at_most=1.02)
IDLE = Row("idle-memory", "memory", "KiB", "", "itself", at_most=12.0)


def results(*, fanout: float = 700_000) -> Results:
    """A run in which all but the pair met their targets, where nothing else is said."""
    return Results(
        ENVIRONMENT,
        [
            Result.of(
                FANOUT,
                [
                    Sample(fanout, 200_000, 1.25, 5.0, 0.5, 0.6),
                    Sample(fanout + 10_000, 210_000, 1.5, 4.0, 0.6, 0.7),
                    Sample(fanout + 20_000, 100_000, 1.0, 6.0, 0.7, 0.9),
                ],
            ),
            Result.of(CALM, [Sample(2.25, 2.5, generator=0.1, beside_generator=0.2)]),
            Result.of(PAIR, [Sample(9_000, 70_000, generator=0.1, beside_generator=0.9)]),
            Result.of(IDLE, [Sample(8.5)]),
        ],
    )


def test_a_figure_is_the_median_and_the_judged_one_that_of_each_run() -> None:
    fanout = results().results[0]
    assert (fanout.hub, fanout.beside, fanout.value, fanout.met) == (710_000, 200_000, 3.5, True)
    assert (fanout.cpu_us, fanout.beside_cpu_us, fanout.generator, fanout.beside_generator) == (
        1.25,
        5.0,
        0.6,
        0.7,
    )


@pytest.mark.parametrize(
    ("row", "sample", "met", "limited"),
    [
        (FANOUT, Sample(300, 100), True, False),
        (FANOUT, Sample(299, 100), False, False),
        (FANOUT, Sample(299.6, 100), True, False),
        (ITSELF, Sample(102, 100), True, False),
        (ITSELF, Sample(103, 100), False, False),
        (ITSELF, Sample(97, 100), False, False),
        (FANOUT, Sample(300, 100, generator=0.86, beside_generator=0.1), True, True),
        (FANOUT, Sample(300, 100, generator=0.1, beside_generator=0.86), True, True),
        (CALM, Sample(3.5, 2.5), True, False),
        (CALM, Sample(3.6, 2.5), False, False),
        (PAIR, Sample(40_000, 90_000, generator=0.1, beside_generator=0.99), True, False),
        (IDLE, Sample(12.0), True, False),
        (IDLE, Sample(12.1), False, False),
    ],
)
def test_a_row_is_judged(row: Row, sample: Sample, met: bool, limited: bool) -> None:
    result = Result.of(row, [sample])
    assert (result.met, result.limited) == (met, limited)


def test_the_table_shows_figures_targets_verdicts_and_what_was_before() -> None:
    shown = report.table(results(), results(fanout=650_000)).splitlines()
    assert shown[0].startswith("Commit abc1234, 2026-11-24 05:00 UTC. A CPU, 2 cores, 16 GiB, Linux 6.1,")
    assert shown[4:] == [
        "| `fanout-1000-4` | fan-out | 710,000 deliveries/s | 200,000 deliveries/s (floor) | 3.50x | ≥ 3.00x"
        " | met | 3.25x | 1.25 µs / 5.00 µs | 60% / 70% |",
        "| `p50` | p50 | 2.25 ms | 2.50 ms (floor) | -0.25 ms | ≤ +1.00 ms | met | -0.25 ms |  | 10% / 20% |",
        "| `pair` | a pair | 9,000 deliveries/s | 70,000 deliveries/s (floor) | 9,000 deliveries/s"
        " | ≥ 40,000 deliveries/s | **missed** | 9,000 deliveries/s |  | 10% / 90% |",
        "| `idle-memory` | memory | 8.50 KiB |  | 8.50 KiB | ≤ 12.0 KiB | met | 8.50 KiB |  | 0% |",
    ]


def test_a_target_may_have_two_sides() -> None:
    assert report.target(ITSELF) == "0.98x to 1.02x"


def test_a_generator_that_may_be_the_limit_is_marked() -> None:
    busy = Results(ENVIRONMENT, [Result.of(FANOUT, [Sample(300, 100, generator=0.9)])])
    shown = report.table(busy, None).splitlines()
    assert "| met † |  |" in shown[4]
    assert shown[-1] == "† The generator took over 85% of a core: it may have been the limit."


def test_results_are_kept_whole(tmp_path: Path) -> None:
    kept = tmp_path / "results" / "latest.json"
    write(kept, results())
    assert read(kept.read_bytes()) == results()


def test_the_table_stands_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page(page, "new \\1")
    assert page.read_text() == f"before\n{report.BEGIN}\nnew \\1\n{report.END}\nafter\n"


def test_a_miss_that_the_page_does_not_explain_is_found() -> None:
    page = f"{report.BEGIN}\n| `pair` |\n{report.END}\n"
    assert list(report.unexplained(results(), page)) == ["pair"]
    assert list(report.unexplained(results(), f"{page}`pair` is slow because …")) == []


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    report.chart(results(), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_is_of_the_results_that_are_kept() -> None:
    kept = read((ROOT / LATEST).read_bytes())
    page = (ROOT / "docs" / "performance.md").read_text()
    for result in kept.results:
        shown = report.line(result, {}).split(" | ")
        assert " | ".join(shown[:7]) in page, f"{result.row.name}: run scripts/bench"
    assert report.about(kept.environment) in page
    assert list(report.unexplained(kept, page)) == []
