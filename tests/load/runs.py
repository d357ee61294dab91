"""Runs as a hub under load might leave them, made from a seed."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec

from hub.load.report.record import (
    RUN,
    SAMPLES,
    Figures,
    GeneratorFigures,
    InjectedFault,
    JudgedLevel,
    LoadRun,
    NodeFigures,
    Sample,
)

KILLED_S = 20
"""When a node dies, for five seconds."""


def run(*, seconds: int = 60, killed: bool = True, generator_cpu: float = 40.0, seed: int = 1) -> LoadRun:
    """A minute of chat with a thousand users on two nodes."""
    chance = random.Random(seed)
    samples = [_sample(chance, float(t), killed, generator_cpu) for t in range(1, seconds + 1)]
    return LoadRun(
        scenario="chat",
        began="2026-11-24T12:00:00+00:00",
        passed=True,
        arguments={"users": 1000, "nodes": 2, "minutes": seconds / 60},
        environment={"cpu": "A CPU <fast>", "cores": 2, "versions": {"Python": "3.11.2"}},
        faults=[InjectedFault(KILLED_S, "kill-node")] if killed else [],
        totals={
            "receive": Figures(1_234_567, 0, 2.4, 5.3, 9.8, 812.0),
            "publish": Figures(12_345, 0, 1.1, 2.5, 4.4, 310.0),
            "connect": Figures(1500, 0, 4.0, 20.0, 45.0, 130.0),
            "reconnect": Figures(500, 0, 700.0, 1400.0, 1900.0, 2300.0),
        },
        counts={"received": 1_234_567, "lost": 0, "repeated": 0, "disordered": 0},
        levels=[
            JudgedLevel("receive_p99_ms", 250.0, 9.8, True),
            JudgedLevel("reconnect_p99_ms", 5000.0, 1900.0, True),
            JudgedLevel("lost", 0, 0, True),
            JudgedLevel("error_share", 0.001, 0.0, True),
            JudgedLevel("node_memory_bytes", 2**28, 98_000_000.0, True),
        ],
        samples=samples,
    )


def write(folder: Path, finished: LoadRun) -> Path:
    """Leave a run in a folder, as a load run does."""
    whole = msgspec.to_builtins(finished)
    lines = whole.pop("samples")
    (folder / RUN).write_bytes(msgspec.json.encode(whole))
    (folder / SAMPLES).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return folder


def _sample(chance: random.Random, t: float, killed: bool, generator_cpu: float) -> Sample:
    users = int(min(1000, 100 * t))
    down = killed and KILLED_S < t <= KILLED_S + 5
    back = killed and KILLED_S < t <= KILLED_S + 3
    stats = {
        "receive": _figures(chance, int(users * 20), 400.0 if back else 2.5),
        "publish": _figures(chance, int(users / 5), 30.0 if back else 1.2),
    }
    if t <= 10:
        stats["connect"] = _figures(chance, 100, 5.0)
    if back:
        stats["reconnect"] = _figures(chance, 170, 900.0)
    nodes = {"node-1": _node(chance, users if down else users / 2, t)}
    if not down:
        nodes["node-2"] = _node(chance, users / 2, t)
    return Sample(
        t,
        users,
        stats,
        nodes,
        GeneratorFigures(generator_cpu + chance.uniform(-5, 5), 0.004 + chance.uniform(0, 0.004)),
        {"1006": 0 if not killed else min(500, max(0, int(500 * (t - KILLED_S)))), "3012": int(t // 25)},
    )


def _figures(chance: random.Random, n: int, median: float) -> Figures:
    median *= math.exp(chance.gauss(0, 0.1))
    tail = math.exp(abs(chance.gauss(0, 0.4)))
    return Figures(n, 0, median, median * 2.1, median * 3 * tail, median * 6 * tail)


def _node(chance: random.Random, connections: float, t: float) -> NodeFigures:
    return NodeFigures(
        cpu=min(99, connections / 12 + chance.uniform(0, 4)),
        memory=60e6 + 45_000 * connections + 20_000 * t,
        connections=int(connections),
        lag_s=0.002 + chance.expovariate(1500),
        outbox_bytes=chance.choice([0, 0, 0, 20_000, 90_000]) * connections / 500,
    )
