"""What a load run is to do, and the scenarios by name: which of Locust's users a run has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCENARIOS: Final[dict[str, tuple[str, ...]]] = {
    "chat": ("ChatUser",),
    "live": ("BoardPublisher", "LiveUser"),
    "mobile": ("BoardPublisher", "MobileUser"),
    "storm": ("BoardPublisher", "StormUser"),
    "slow": ("BoardPublisher", "LiveUser", "SlowUser"),
    "idle": ("IdleUser",),
    "mixed": ("ChatUser", "BoardPublisher", "LiveUser", "MobileUser", "IdleUser"),
}


@dataclass(frozen=True)
class LoadPlan:
    """What is to be run.

    Args:
        scenario: its name.
        classes: of Locust's users.
        users: how many.
        seconds: how long.
        nodes: of the local hub.
        target: addresses of a hub elsewhere, empty for a local one.
        faults: seconds from the start, and the fault's name.
        arguments: more of Locust's.
        token_key: HMAC secret of a hub that asks for tokens, empty for none.
        shape: of the load, empty for all users from the beginning to the end.
        file: the Locust file that has the classes; None for the hub's own scenarios.
    """

    scenario: str
    classes: tuple[str, ...]
    users: int
    seconds: int
    nodes: int
    target: str
    faults: tuple[tuple[float, str], ...]
    arguments: tuple[str, ...] = ()
    token_key: str = ""
    shape: str = ""
    file: Path | None = None
