"""One run: readers in a process beside, a hub over sockets, and what came of both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from loadtests.fuzz import pure
from loadtests.fuzz.differences import EXPLAINED
from loadtests.fuzz.honest import Bystander, Honest, bystanders
from loadtests.fuzz.stage import Stage
from loadtests.fuzz.target import INPUT_BYTES_SHOWN, Found, LiveTarget, PureTarget, Tally, Target
from loadtests.fuzz.targets.api_calls import APICalls
from loadtests.fuzz.targets.connections import Connections
from loadtests.fuzz.targets.emulation import Emulation
from loadtests.fuzz.targets.http import HTTP
from loadtests.fuzz.targets.redis_traffic import RedisTraffic
from loadtests.fuzz.targets.upgrades import Upgrades

LIVE: tuple[type[LiveTarget], ...] = (HTTP, Upgrades, Connections, Emulation, APICalls, RedisTraffic)
TARGETS: dict[str, type[PureTarget] | type[LiveTarget]] = {
    **{each.name: each for each in pure.TARGETS},
    **{each.name: each for each in LIVE},
}

CASE_S = 60.0
"""A case over sockets that takes longer hangs."""

TURN_S = 2.0
PURE_END_S = 60.0
GROWTH_BYTES_MAX = 64 << 20
"""What the hub may grow by after every target had its first turn."""

WARM_UP_CASES = 20


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Args:
        seed: of all that is random.
        seconds: of fuzzing.
        only: names of targets; all where it is empty.
    """

    seed: int
    seconds: float
    only: frozenset[str] = frozenset()

    def chosen(self, targets: Sequence[type[Target]]) -> list[str]:
        """The names of those of some targets that are run."""
        return [each.name for each in targets if not self.only or each.name in self.only]


@dataclass
class Verdict:
    """What came of a run."""

    tally: Tally = field(default_factory=Tally)
    faults: list[str] = field(default_factory=list)
    """What was noticed beside the cases: by the honest client, in the log, in the levels."""
    notes: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> list[tuple[str, str]]:
        """Target and kind of each difference that no row of the table explains."""
        known = {(each.target, each.kind) for each in EXPLAINED}
        return [
            (target, kind)
            for target, kinds in self.tally.found.items()
            for kind in kinds
            if (target, kind) not in known
        ]

    @property
    def holds(self) -> bool:
        """Whether nothing was found that is not explained."""
        return not self.unexplained and not self.faults

    def text(self, seed: int) -> str:
        """Return the report: counts by target, differences by kind, and commands that replay them."""
        lines = []
        unexplained = set(self.unexplained)
        for target in sorted(self.tally.cases | self.tally.found):
            kinds = self.tally.found.get(target, {})
            cases = self.tally.cases.get(target, 0)
            lines.append(f"{target:17} {cases:9,} cases, {len(kinds)} kinds of differences")
            for kind, found in sorted(kinds.items(), key=lambda each: -each[1].count):
                mark = "UNEXPLAINED" if (target, kind) in unexplained else "explained"
                lines.append(f"    {found.count:9,} {mark:11} {kind}")
        for target, kind in self.unexplained:
            found = self.tally.found[target][kind]
            if target not in TARGETS:
                continue
            lines.append(f"\n{target}: {kind}\n    {found.data[:INPUT_BYTES_SHOWN]!r}")
            lines.append(f"    python -m loadtests.fuzz --seed {seed} --only {target} --case {found.case}")
        return "\n".join([*lines, *self.notes, *(f"FAULT {each}" for each in self.faults)])


async def run(plan: Plan) -> Verdict:
    """Run a plan."""
    verdict = Verdict()
    readers = plan.chosen(pure.TARGETS)
    live = [TARGETS[name]() for name in plan.chosen(LIVE)]
    beside = asyncio.create_task(_run_pure(plan, readers, verdict)) if readers else None
    try:
        if live:
            async with Stage() as stage:
                await _run_live(plan, [each for each in live if isinstance(each, LiveTarget)], stage, verdict)
        if beside is not None:
            await beside
    finally:
        if beside is not None:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
    return verdict


async def replay(plan: Plan, target: PureTarget | LiveTarget, number: int) -> Verdict:
    """Run one case."""
    verdict = Verdict()
    data = target.case(plan.seed, number)
    verdict.tally.cases[target.name] = 1
    verdict.notes.append(f"input: {data!r}")
    if isinstance(target, PureTarget):
        with pure.catching_hangs():
            pure.run_case(target, number, data, verdict.tally)
        return verdict
    async with Stage() as stage:
        await _run_case(target, number, data, stage, verdict.tally)
        verdict.faults += [f"the log: {kind} ({count})" for kind, count in stage.errors().items()]
    return verdict


# Readers


async def _run_pure(plan: Plan, names: Sequence[str], verdict: Verdict) -> None:
    """Run the targets without I/O in a process of their own, and take its tally."""
    command = [sys.executable, "-m", "loadtests.fuzz.pure", "--seed", str(plan.seed)]
    process = await asyncio.create_subprocess_exec(
        *command, "--seconds", str(plan.seconds), *names, stdout=asyncio.subprocess.PIPE, limit=1 << 26
    )
    assert process.stdout is not None
    last = b"{}"
    try:
        async with asyncio.timeout(plan.seconds + PURE_END_S):
            async for line in process.stdout:
                last = line
            await process.wait()
    except TimeoutError:
        verdict.faults.append(f"the readers hang after cases {last.decode()}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        verdict.tally.merge(msgspec.json.decode(last, type=Tally))
    else:
        verdict.faults.append(
            f"the readers ended with {process.returncode} after cases {last.decode().strip()}"
        )


# The hub


async def _run_live(plan: Plan, targets: Sequence[LiveTarget], stage: Stage, verdict: Verdict) -> None:
    tally = Tally()
    for target in targets:  # so that what the hub makes once is there
        for number in range(WARM_UP_CASES):
            await _run_case(target, number, target.case(~plan.seed, number), stage, Tally())
    await _once(stage)
    start, memory = await stage.settled(), stage.memory()
    honest, others, done = Honest(stage), bystanders(stage), asyncio.Event()
    tasks = [asyncio.create_task(honest.run(done)), *(asyncio.create_task(each.run()) for each in others)]
    try:
        await _cases(plan, targets, stage, tally)
    finally:
        done.set()
        await asyncio.gather(tasks[0], return_exceptions=True)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
    verdict.tally.merge(tally)
    await _judge(stage, honest, others, verdict)
    if not verdict.faults or stage_lives(stage):
        verdict.faults += [
            f"{name} stay above their level: {what}" for name, what in (await stage.above(start)).items()
        ]
        grown = stage.memory() - memory
        verdict.notes.append(f"memory of the hub: {memory >> 20} MB, then {grown / 2**20:+.1f} MB")
        if grown > GROWTH_BYTES_MAX:
            verdict.faults.append(f"the hub grew by {grown >> 20} MB")


def stage_lives(stage: Stage) -> bool:
    """Whether the hub's process is still there."""
    try:
        os.kill(stage.hub.pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _once(stage: Stage) -> None:
    """Have a client of each kind come and go."""
    done = asyncio.Event()
    done.set()
    others = [asyncio.create_task(each.run()) for each in bystanders(stage)]
    await Honest(stage).run(done)
    await asyncio.sleep(1.0)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _cases(plan: Plan, targets: Sequence[LiveTarget], stage: Stage, tally: Tally) -> None:
    """Give each target a turn, one after the other, until the time is over."""
    end = time.monotonic() + plan.seconds
    turn_s = min(TURN_S, plan.seconds / len(targets) / 2)
    while time.monotonic() < end and stage_lives(stage):
        for target in targets:
            turn_ends = min(end, time.monotonic() + turn_s)
            await asyncio.gather(*(_lane(plan, target, turn_ends, stage, tally) for _ in range(target.lanes)))


async def _lane(plan: Plan, target: LiveTarget, until: float, stage: Stage, tally: Tally) -> None:
    while time.monotonic() < until:
        number = tally.count(target.name)
        await _run_case(target, number, target.case(plan.seed, number), stage, tally)


async def _run_case(target: LiveTarget, number: int, data: bytes, stage: Stage, tally: Tally) -> None:
    try:
        async with asyncio.timeout(CASE_S):
            async with contextlib.aclosing(target.check(data, stage)) as kinds:  # type: ignore[type-var]
                async for kind in kinds:
                    tally.note(target.name, kind, number, data)
    except TimeoutError:
        tally.note(target.name, f"hangs: no end after {CASE_S:g} s", number, data)
    except Exception as exc:
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.name}"
        tally.note(target.name, f"raises {type(exc).__name__} in {place}", number, data)


async def _judge(stage: Stage, honest: Honest, others: Sequence[Bystander], verdict: Verdict) -> None:
    verdict.faults += honest.faults()
    for other in others:
        verdict.faults += [
            f"a bystander cannot read: {kind}: {what}" for kind, what in other.unreadable.items()
        ]
    for kind, count in stage.errors().items():
        verdict.tally.found.setdefault("log", {})[kind] = Found(count, 0, b"")
    if not stage_lives(stage):
        verdict.faults.append(f"the hub is gone:\n{stage.hub.log[-2000:]}")
    received = ", ".join(str(each.received) for each in others)
    verdict.notes.append(
        f"the honest client: {honest.published} published, {len(honest.received)} received,"
        f" {len(honest.pinged_at) - 2} pings, the slowest publication took {honest.slowest_s * 1000:.0f} ms;"
        f" bystanders received {received}; the log has {stage.hub.log.count(chr(10))} lines"
    )
