"""The command `hub`, which `python -m hub` is too. It needs an extra of the distribution."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command, or say what to install for it."""
    if find_spec("typer") is None:
        sys.exit("hub: the command needs an extra: pip install 'hub-realtime[server]'")
    from hub.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
