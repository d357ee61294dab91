"""A short fuzz run, and the promises of the fuzzer itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.fuzz import pure
from loadtests.fuzz.differences import EXPLAINED, table
from loadtests.fuzz.run import TARGETS, Plan, Verdict, run
from loadtests.fuzz.target import Found, PureTarget, Tally

SEED = 1
SECONDS = 20.0
PAGE = Path(__file__).parent.parent.parent / "docs" / "fuzzing.md"


@pytest.mark.timeout(300)
async def test_mutated_input_crashes_nothing_and_differs_only_where_it_is_meant_to() -> None:
    verdict = await run(Plan(SEED, SECONDS))
    replay = f"python -m loadtests.fuzz --minutes {SECONDS / 60:.2f} --seed {SEED}"
    assert verdict.holds, f"{verdict.text(SEED)}\nagain: {replay}"
    assert set(TARGETS) == set(verdict.tally.cases)
    assert all(verdict.tally.cases.values())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_case_is_the_same_by_itself_and_after_others(name: str) -> None:
    first, again = TARGETS[name](), TARGETS[name]()
    cases = [first.case(SEED, number) for number in range(30)]
    assert again.case(SEED, 29) == cases[29]
    assert len(set(cases)) > 15
    assert again.case(SEED + 1, 29) != cases[29]


def test_each_difference_is_in_the_docs_with_its_reason() -> None:
    assert "\n".join(table()) in PAGE.read_text()
    assert len({(each.target, each.kind) for each in EXPLAINED}) == len(EXPLAINED)
    assert {each.target for each in EXPLAINED} <= set(TARGETS) | {"log"}


class Broken(PureTarget):
    """A target whose cases differ, raise and hang in turn."""

    name = "broken"

    def draw(self, chance: random.Random) -> bytes:
        return b"x"

    def check(self, data: bytes) -> Iterator[str]:
        yield "it differs"
        if data == b"raise":
            raise RuntimeError
        while data == b"hang":
            pass


def test_what_raises_or_hangs_is_noted_with_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure, "CASE_S", 0.1)
    tally = Tally()
    with pure.catching_hangs():
        for number, data in enumerate((b"", b"raise", b"hang", b"")):
            pure.run_case(Broken(), number, data, tally)
    found = {kind: (found.count, found.case) for kind, found in tally.found["broken"].items()}
    assert found == {
        "it differs": (4, 0),
        "raises RuntimeError in test_fuzz.py:check": (1, 1),
        "hangs: no end after 0.1 s": (1, 2),
    }


def test_a_run_holds_where_all_is_explained_and_nothing_was_noticed() -> None:
    known = EXPLAINED[0]
    sound = Verdict(Tally({known.target: 1}, {known.target: {known.kind: Found(1, 0, b"")}}))
    assert sound.holds
    assert not Verdict(sound.tally, faults=["the hub grew"]).holds
    strange = Verdict(Tally({known.target: 9}, {known.target: {"something else": Found(1, 8, b"odd")}}))
    assert not strange.holds
    assert f"--seed 7 --only {known.target} --case 8" in strange.text(7)
    assert "b'odd'" in strange.text(7)
