"""`hub publish`: publish to a channel of a running hub."""

from __future__ import annotations

from typing import Annotated

import typer

from hub.cli.options import Config, Dev, api_key, given, parse_json, url_of
from hub.client.publisher import Publisher
from hub.config import load


def publish(
    channel: Annotated[str, typer.Argument(help="Channel to publish to.")],
    data: Annotated[str, typer.Argument(help="JSON; what is not JSON is sent as a string.")],
    url: Annotated[
        str | None, typer.Option(help="Where the hub is.", show_default="the host and port of the settings")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of the server API.", show_default="that of the settings")
    ] = None,
    config: Config = None,
    dev: Dev = False,
) -> None:
    """Publish to a channel, through the server API of a running hub."""
    settings = load(config, given({"dev": dev or None}))
    key = api_key(settings, key)
    try:
        payload = parse_json(data)
    except ValueError:
        payload = data
    with Publisher(url or url_of(settings), key) as publisher:
        position = publisher.publish(channel, payload)
    print(f"published to {channel}" + (f" at offset {position.offset}" if position.offset else ""))
