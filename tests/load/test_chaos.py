"""A short chaos run: every kind of fault, and no client that behaves well notices one."""

from __future__ import annotations

from loadtests.chaos.run import Plan, run

SEED = 1
SECONDS = 20.0
CLIENTS = 60


async def test_random_faults_harm_only_what_they_are_injected_into() -> None:
    verdict = await run(Plan(SEED, SECONDS, CLIENTS, channels=10))
    replay = f"python -m loadtests.chaos --minutes {SECONDS / 60:.2f} --seed {SEED} --clients {CLIENTS}"
    assert verdict.holds, f"{verdict.table()}\nsimilar: {replay}"
