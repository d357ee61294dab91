"""Restarting a running hub from outside: it drains and begins anew, and is watched until it serves again."""

from __future__ import annotations

import time
from typing import Final

from hub.client.publisher import Publisher
from hub.errors import RequestError

START_TIMEOUT_S: Final = 30.0
"""What a node has, beyond its drain, until it serves again."""

_LOOK_PERIOD_S: Final = 0.2


def roll(url: str, key: str, drain_timeout_s: float) -> int:
    """Have the hub at a URL restart, all its workers one after another, and wait until that is done.

    Args:
        url: of the hub.
        key: of its server API.
        drain_timeout_s: what each of its nodes takes at most to drain.

    Returns:
        How many nodes are there anew.

    Raises:
        RequestError: the hub refused, or did not come back in time.
    """
    with Publisher(url, key) as hub:
        old = _nodes(hub)
        hub.request("drain", {"restart": True})
        limit_s = len(old) * (drain_timeout_s + START_TIMEOUT_S)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            time.sleep(_LOOK_PERIOD_S)
            try:
                new = _nodes(hub)
            except RequestError:
                continue  # for a moment nobody listens
            if len(new) >= len(old) and not new & old:
                return len(new)
    raise RequestError(0, f"the hub at {url} did not begin anew in {limit_s:g} s: its log says why")


def _nodes(hub: Publisher) -> set[str]:
    """The nodes behind the URL: the one that answers, and the workers beside it, which share its name."""
    nodes = hub.request("info", {})["nodes"]
    return {node["uid"] for node in nodes if node["name"] == nodes[0]["name"]}
