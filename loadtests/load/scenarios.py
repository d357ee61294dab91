"""The scenarios by name: which of Locust's users a run has."""

from __future__ import annotations

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
