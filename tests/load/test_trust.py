"""When the figures of a run are not to be trusted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.limits import WAIT_S
from support.server import running

from hub.config import load
from hub.load.histogram import bucket, percentile, summary
from hub.load.probe import Probe
from hub.load.report.record import GeneratorFigures
from hub.load.run import FOLDER
from hub.load.shapes import ramp, spike
from hub.load.trust import generator_limits, nothing_measured
from hub.load.view import last_line
from loadtests.faults.cluster import NEVER_OVERLOADED

HEARD = {"n": 9, "fail": 1}


def test_the_generator_is_the_limit_where_it_is_busy_or_late_for_more_than_moments() -> None:
    calm, busy, late = (
        GeneratorFigures(40.0, 0.004),
        GeneratorFigures(97.0, 0.004),
        GeneratorFigures(40.0, 0.2),
    )
    assert list(generator_limits([])) == []
    assert list(generator_limits([busy, late] * 2 + [calm] * 6)) == []
    assert list(generator_limits([busy] * 3 + [calm] * 7)) == [
        "the generator was the limit: its busiest process took over 85 % of a core in 3 of 10 seconds,"
        " 97 % at most"
    ]
    assert list(generator_limits([late] * 3 + [calm] * 7)) == [
        "the generator was the limit: it was itself over 50 ms late in 3 of 10 seconds, 200 ms at most"
    ]


@pytest.mark.parametrize(
    ("totals", "received", "silent", "said"),
    [
        ({"connect": HEARD, "probe": HEARD}, 1, False, []),
        ({"connect": HEARD, "probe": HEARD}, 0, True, []),
        ({"connect": HEARD, "probe": HEARD}, 0, False, ["nothing was received"]),
        ({"connect": HEARD, "probe": {"n": 3, "fail": 3}}, 1, False, ["the probe heard nothing"]),
        ({"connect": HEARD}, 1, False, ["the probe heard nothing"]),
        ({"probe": HEARD}, 1, False, ["nothing was measured"]),
    ],
)
def test_what_was_not_measured_is_said(
    totals: dict[str, object], received: int, silent: bool, said: list[str]
) -> None:
    assert list(nothing_measured({"totals": totals, "counts": {"received": received}}, silent=silent)) == said


async def test_a_probe_measures_and_says_what_it_is_refused() -> None:
    async def measured(server_url: str) -> Probe:
        probe = Probe([server_url], "")
        task = asyncio.create_task(probe.run())
        async with asyncio.timeout(WAIT_S):
            while not probe.lines:  # noqa: ASYNC110 - its process tells once a second
                await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return probe

    async with running(load(FOLDER / "hub.toml", env=NEVER_OVERLOADED)) as server:
        figures = (await measured(server.url)).between(0, float("inf")).summary()
    assert figures["n"] > 5
    assert figures["fail"] == 0
    assert 0 < figures["p50"] < 200
    async with running(load(env=NEVER_OVERLOADED)) as server:
        refused = (await measured(server.url)).between(0, float("inf"))
    assert refused.failed == {"unauthorized (code 101)": 1}
    assert refused.summary() == {"n": 1, "fail": 1}


async def test_a_probe_that_ends_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"the probe ended: ValueError: .*mailto"):
        await Probe(["mailto:x"], "").run()


def test_times_have_three_digits() -> None:
    assert [bucket(each) for each in (-1, 0, 0.12345, 12.345, 123.45, 12345)] == [
        0, 0, 0.123, 12.3, 123, 12345,
    ]  # fmt: skip
    assert percentile({}, 0.5) == 0
    assert summary({1.0: 98, 5.0: 1, 9.0: 1}, 101, 1) == {
        "n": 101, "fail": 1, "p50": 1.0, "p95": 1.0, "p99": 5.0, "max": 9.0,
    }  # fmt: skip


def test_shapes() -> None:
    assert [ramp(1000, part) for part in (0, 0.4, 0.8, 1)] == [1, 500, 1000, 1000]
    assert [spike(1000, part) for part in (0, 0.29, 0.3, 0.59, 0.6)] == [100, 100, 1000, 1000, 100]
    assert spike(3, 0) == 1


def test_the_last_line_of_a_file_that_is_written_just_now(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert last_line(path) == {}
    path.write_text('{"users": 1')
    assert last_line(path) == {}
    path.write_text('{"users": 1}\n{"users": 2}\n{"us')
    assert last_line(path) == {"users": 2}
