"""`hub load`: load a hub, and hold it against service levels."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import typer

from hub.errors import StartupError

# The arguments are those of `hub.load.command`, which needs an extra, and of Locust.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def load(context: typer.Context) -> None:
    """Load a hub with Locust users, and hold it against service levels: `hub load --help` says how."""
    if find_spec("locust") is None:
        raise StartupError("hub load needs an extra: pip install 'hub-realtime[load]'")
    from hub.load.command import main

    sys.exit(main(context.args))
