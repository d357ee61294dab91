"""Many clients come at once: from nodes that restart or are gone, and more than one node takes in."""

from __future__ import annotations

from support.limits import WAIT_S

from loadtests import herd, overload, roll
from loadtests.faults.cluster import NEVER_OVERLOADED
from loadtests.faults.verdict import Verdict

CLIENTS = 100
WINDOW_S = 1.0


def whole(verdict: Verdict) -> bool:
    """Whether all got everything once, in order, and nobody had to be told that something is missing."""
    faults = (verdict.lost, verdict.duplicated, verdict.out_of_order, verdict.told)
    return verdict.delivered > 0 and faults == (0, 0, 0, 0)


async def test_two_nodes_restart_one_after_the_other_and_nobody_loses_anything_or_logs_in() -> None:
    figures = await roll.run(CLIENTS, rate=100.0, window_s=WINDOW_S, before_s=0.2, env=NEVER_OVERLOADED)
    assert whole(figures.verdict), figures.verdict
    assert figures.verdict.dropped >= CLIENTS, figures.verdict
    assert figures.logins == 0
    assert max(figures.back_s) < WAIT_S


async def test_the_clients_of_a_node_that_was_killed_come_to_the_other_one_by_token() -> None:
    figures = await herd.run(CLIENTS, before_s=0.5, env=NEVER_OVERLOADED)
    assert whole(figures.verdict), figures.verdict
    assert (figures.logins, figures.refused) == (0, 0)
    assert figures.reads <= CLIENTS / 4
    assert max(figures.back_s) < WAIT_S


async def test_twice_as_many_come_as_a_node_takes_in_and_it_is_well_again() -> None:
    """Who is there keeps the socket; who comes is taken in or refused, and all get an answer."""
    figures = await overload.run(CLIENTS, rate=50.0, seconds=1.0, before_s=0.2, capacity_s=0.5)
    assert figures.visits.served_s, figures
    assert (figures.dropped, figures.failed) == (0, 0)
    assert figures.meanwhile_s > 0.0
    assert figures.healthy_s < WAIT_S
