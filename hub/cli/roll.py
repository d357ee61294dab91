"""`hub roll`: restart running hubs one after another."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from hub.cli.options import Config, Dev, api_key, given, url_of
from hub.client.publisher import Publisher
from hub.config import load
from hub.errors import RequestError

START_TIMEOUT_S: Final = 30.0
"""How long a node may take, beyond its drain, until it serves again."""

_LOOK_PERIOD_S: Final = 0.2


def roll(
    urls: Annotated[
        list[str] | None,
        typer.Argument(help="Where the hubs are.", show_default="the host and port of the settings"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of the server API.", show_default="that of the settings")
    ] = None,
    config: Config = None,
    dev: Dev = False,
) -> None:
    """Restart running hubs one after another, so that no client loses anything.

    Each hub drains and restarts. The next hub follows `server.roll_pause_s` after that, when balancers have
    noticed that this one is back. A hub of several workers replaces its workers one by one.
    """
    settings = load(config, given({"dev": dev or None}))
    for number, url in enumerate(urls or [url_of(settings)]):
        if number:
            time.sleep(settings.server.roll_pause_s)
        count = roll_hub(url, api_key(settings, key), settings.server.drain_timeout_s)
        print(f"{url} serves again, with {count} new {'node' if count == 1 else 'nodes'}", flush=True)


def roll_hub(url: str, key: str, drain_timeout_s: float) -> int:
    """Restart the hub at a URL, all its workers one after another, and wait until that is done.

    Args:
        url: of the hub.
        key: of its server API.
        drain_timeout_s: what each of its nodes takes at most to drain.

    Returns:
        How many new nodes there are.

    Raises:
        RequestError: the hub refused, or did not serve again in time.
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
                continue  # for a moment no process listens
            if len(new) >= len(old) and not new & old:
                return len(new)
    raise RequestError(0, f"the hub at {url} did not serve again in {limit_s:g} s: its log says why")


def _nodes(hub: Publisher) -> set[str]:
    """The nodes behind the URL: the one that answers, and the workers beside it, which share its name."""
    nodes = hub.request("info", {})["nodes"]
    return {node["uid"] for node in nodes if node["name"] == nodes[0]["name"]}
