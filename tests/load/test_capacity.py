"""The search for the highest load, over a hub whose capacity is known."""

from __future__ import annotations

import msgspec
import pytest
from load import runs

from hub.load.capacity import PRECISION, Trial, search
from hub.load.report.record import JudgedLevel


def trial(users: int, capacity: int, generator: int = 10**9) -> Trial:
    """What becomes of a load, by what the hub and the generator can do."""
    missed = ("receive_p99_ms", "error_share") if users > capacity else ()
    warnings = ("the generator was the limit: it was late",) if users > generator else ()
    return Trial(users, not missed and not warnings, missed, warnings)


@pytest.mark.parametrize("capacity", [1, 7, 99, 100, 101, 1000, 4321, 9999])
def test_the_capacity_is_found_within_its_precision(capacity: int) -> None:
    found = search(lambda users: trial(users, capacity), 100, 10_000)
    assert found.users <= capacity
    assert found.beyond is not None
    assert capacity < found.beyond.users <= max(found.users + 1, found.users / (1 - PRECISION) + 1)
    assert len({each.users for each in found.trials}) == len(found.trials) <= 14


def test_a_hub_that_takes_all_that_is_allowed_has_no_known_end() -> None:
    found = search(lambda users: trial(users, 10_000), 300, 1000)
    assert [each.users for each in found.trials] == [300, 600, 1000]
    assert list(found.told()) == [
        "1,000 users held the service levels",
        "nothing gave out: more was not tried",
    ]


def test_a_hub_that_holds_nothing_has_no_capacity() -> None:
    found = search(lambda users: trial(users, 0), 8, 100)
    assert [each.users for each in found.trials] == [8, 4, 2, 1]
    assert list(found.told()) == [
        "no load held the service levels",
        "at 1 users gave out first: receive_p99_ms, error_share",
    ]


def test_a_generator_at_its_limit_is_no_capacity_of_the_hub() -> None:
    found = search(lambda users: trial(users, 10_000, generator=500), 400, 5000)
    assert 400 <= found.users <= 500
    assert list(found.told())[1].endswith("says nothing of the hub: the generator was the limit: it was late")


def test_a_trial_names_first_what_is_furthest_over_its_limit() -> None:
    levels = [
        JudgedLevel("receive_p99_ms", 250.0, 300.0, False),
        JudgedLevel("connect_p99_ms", 250.0, None, False),
        JudgedLevel("node_memory_bytes", 100.0, 50.0, True),
        JudgedLevel("lost", 0, 1, False),
    ]
    run = msgspec.structs.replace(runs.run(seconds=3), levels=levels, passed=False)
    assert Trial.of(10, run) == Trial(10, False, ("lost", "receive_p99_ms", "connect_p99_ms"))
    doubted = msgspec.structs.replace(runs.run(seconds=3), warnings=["late"], passed=False)
    assert Trial.of(10, doubted) == Trial(10, False, (), ("late",))
    assert not Trial.of(10, msgspec.structs.replace(run, levels=[])).held
