"""A short run of a node with many channels: Redis goes away and comes back, and each channel is whole again.

Latency is left to the long run: the gate shares its cores with other programs.
"""

from __future__ import annotations

import dataclasses

from loadtests.wide.run import LATENCY_MAX_S, Figures, Plan, run

CHANNELS = 4_000
CLIENTS = 40


async def test_every_channel_is_whole_again_after_redis_was_away() -> None:
    for figures in await run(Plan(CHANNELS, CLIENTS)):
        found = dataclasses.replace(figures, p99_s=0.0).faults(CHANNELS)
        assert not found, figures


def test_a_run_names_each_promise_that_was_missed() -> None:
    sound = Figures("killed", whole_s=1.0, limit_s=2.0, p99_s=LATENCY_MAX_S)
    assert not sound.faults(CHANNELS)
    for change in (
        {"lacking": 1},
        {"whole_s": 3.0},
        {"p99_s": 2 * LATENCY_MAX_S},
        {"lost": 1},
        {"repeated": 1},
        {"told": 1},
        {"dropped": 1},
    ):
        assert len(dataclasses.replace(sound, **change).faults(CHANNELS)) == 1, change
    assert dataclasses.replace(sound, fault="emptied").faults(CHANNELS), "each subscription must be told"
