"""`hub serve`: run a hub until a signal ends it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from hub.cli.options import Config, Dev, given
from hub.config import load


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to listen on.", show_default="8000")] = None,
    config: Config = None,
    dev: Dev = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port. Several need Redis.", show_default="1")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="URL of the Redis that joins several nodes.", metavar="URL"),
    ] = None,
) -> None:
    """Run a hub until a signal ends it."""
    from hub.server import serve as run_server  # here, since it raises where there is no Unix

    flags = {
        "dev": dev or None,
        "server": {"host": host, "port": port, "workers": workers},
        "redis": {"url": redis},
    }
    run_server(partial(load, config, given(flags)))
